package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// Peers that send without end and do not read are held back: by TCP, not by the memory of the daemon.

// memoryBound is how much more memory may be in use for one client.
const memoryBound = 16 << 20

// torrent is what a client sends without end: a cycle, over and over, from one buffer.
type torrent struct {
	cycle
	buf    []byte // whole cycles
	cycles int
	sent   int // bytes
}

// makeTorrent makes size bytes of cycles.
func makeTorrent(c cycle, size int) *torrent {
	n := size / len(c.commands)
	return &torrent{cycle: c, buf: bytes.Repeat(c.commands, max(1, (128<<10)/len(c.commands))), cycles: n}
}

func (t *torrent) size() int { return t.cycles * len(t.commands) }

func (t *torrent) next() []byte {
	at := t.sent % len(t.buf)
	return t.buf[at:min(len(t.buf), at+t.size()-t.sent)]
}

// offer sends as much as the server takes. A server that still read would do so in the turns in which it serves the
// canaries, so when those come back and not a byte more could be sent, the client is held back.
func (t *torrent) offer(tb testing.TB, conn *net.TCPConn, cs *canaries) {
	tb.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	for refused := 0; refused < 20 && t.sent < t.size(); {
		n := 0
		err := raw.Write(func(fd uintptr) bool {
			n = writeSome(int(fd), t.next())
			return true
		})
		if err != nil {
			tb.Fatal(err)
		}
		if n > 0 {
			t.sent += n
			refused = 0
			continue
		}
		refused++
		cs.passAll()
	}
}

// rest sends what has not been sent.
func (t *torrent) rest(conn net.Conn) error {
	for t.sent < t.size() {
		n, err := conn.Write(t.next())
		t.sent += n
		if err != nil {
			return err
		}
	}
	return nil
}

func TestPeerThatNeverReads(t *testing.T) {
	cases := []struct {
		maxOutput, size, width int
		narrow                 bool
	}{
		{256 << 10, 50 << 20, 60, false},
		{4 << 10, 1 << 20, 60, true},
		{1, 100 << 10, 0, true}, // all of it fits into the socket: nothing follows that could wake the session
		{4 << 10, 200 << 10, 0, true},
		{256 << 10, 600 << 10, 0, true},
	}
	for _, tc := range cases {
		for _, halfClosed := range []bool{false, true} {
			if halfClosed && tc.size > 10<<20 {
				continue
			}
			t.Run(fmt.Sprintf("max-output=%d,size=%d,fin=%t", tc.maxOutput, tc.size, halfClosed), func(t *testing.T) {
				d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput = tc.maxOutput })
				cs := d.canaries()
				d.pairs(func(conn, keyLoop int) {
					if conn == 1 || tc.size > 10<<20 && keyLoop == 1 || halfClosed && keyLoop == 0 {
						return // the loops are alike
					}
					flood := makeTorrent(makeCycle(tc.width, d.keysOf(keyLoop, 4)...), tc.size)
					var c *net.TCPConn
					if tc.narrow {
						c = d.dialNarrowOn(conn)
					} else {
						c = d.dialOn(conn).Conn()
					}
					before := heap()
					flood.offer(t, c, cs)
					if tc.size > 10<<20 && flood.sent == flood.size() {
						t.Errorf("all of %d bytes were taken from a client that does not read", flood.sent)
					}
					if grown := heap() - before; grown > memoryBound {
						t.Errorf("%d bytes more are in use for a client that sent %d", grown, flood.sent)
					}
					cs.passAll()
					var sender sync.WaitGroup
					sender.Go(func() {
						if err := flood.rest(c); err != nil {
							t.Error(err)
						}
						if halfClosed {
							_ = c.CloseWrite()
						}
					})
					if halfClosed && flood.sent == flood.size() {
						sender.Wait() // the end of the input stands behind what is held back
						cs.passAll()
					}
					if err := flood.wantAnswers(c, flood.cycles); err != nil {
						t.Fatal(err)
					}
					sender.Wait()
					if halfClosed {
						if err := wantEOF(c); err != nil {
							t.Fatal(err)
						}
					}
					_ = c.Close()
				})
				d.wantConnections(len(cs.clients))
			})
		}
	}
}

// A client that floods while it waits costs no memory, and when the wait is over, every command is answered in order.
func TestFloodBehindWait(t *testing.T) {
	for _, end := range []string{"grant", "timeout"} {
		for _, maxPipeline := range []int{256 << 10, 4 << 10} {
			t.Run(fmt.Sprintf("%s,max-pipeline=%d", end, maxPipeline), func(t *testing.T) {
				d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline = maxPipeline })
				cs := d.canaries()
				d.pairs(func(conn, keyLoop int) {
					size, keys := 2<<20, d.keysOf(keyLoop, 1)
					if conn == 0 && keyLoop == 1 && maxPipeline > 4<<10 && end == "grant" {
						size = 50 << 20
					}
					key := keys[0]
					flood := makeTorrent(makeCycle(2000, d.keysOf(0, 3)[2], d.keysOf(1, 3)[2]), size)
					holder, c := d.dial(), d.dialOn(conn)
					holder.Do("lock "+key+" 0", "l locked")
					timeout := map[string]int{"grant": 600000, "timeout": 300}[end]
					c.Send(fmt.Sprintf("lock %s %d", key, timeout))
					cs.pass(conn, keyLoop)
					before := heap()
					flood.offer(t, c.Conn(), cs)
					if size > 10<<20 && flood.sent == flood.size() {
						t.Errorf("all of %d bytes were taken from a client that waits", flood.sent)
					}
					if grown := heap() - before; grown > memoryBound {
						t.Errorf("%d bytes more are in use for a client that sent %d", grown, flood.sent)
					}
					first := "t timeout\r\n"
					if end == "grant" {
						holder.Do("unlock "+key, "u unlocked")
						first = "l locked\r\n"
					}
					var sender sync.WaitGroup
					sender.Go(func() {
						if err := flood.rest(c.Conn()); err != nil {
							t.Error(err)
						}
					})
					got := make([]byte, len(first))
					if _, err := io.ReadFull(c.Conn(), got); err != nil || string(got) != first {
						t.Fatalf("got %q, %v", got, err)
					}
					if err := flood.wantAnswers(c.Conn(), flood.cycles); err != nil {
						t.Fatal(err)
					}
					sender.Wait()
					c.Close()
					holder.Close()
					d.wantConnections(len(cs.clients))
				})
			})
		}
	}
}

// The end of a client that is held back while it waits is noticed all the same, as soon as it arrives. It does not arrive while it stands
// after more than the sockets take: see TestEndBehindFlood.
func TestFloodBehindWaitEnds(t *testing.T) {
	for _, end := range []string{"reset", "half-close", "close"} {
		t.Run(end, func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline = 4 << 10 })
			cs := d.canaries()
			d.pairs(func(conn, keyLoop int) {
				key, held := d.keysOf(keyLoop, 1)[0], d.keysOf(1-keyLoop, 1)[0]
				flood := makeCycle(2000, key+"x", key+"y")
				holder, c, next := d.dial(), d.dialOn(conn), d.dialOn(conn)
				holder.Do("lock "+key+" 0", "l locked")
				c.Do("lock "+held+" 0", "l locked")
				c.Send("lock " + key + " 600000")
				cs.pass(conn, keyLoop)
				c.Write(flood.commands)
				cs.pass(conn, conn)
				c.Write(flood.commands) // is not read
				next.Send("lock " + key + " 600000")
				cs.pass(conn, keyLoop)
				switch end {
				case "reset":
					c.Reset()
				case "half-close":
					c.CloseWrite()
				default:
					c.Close()
				}
				d.wantFree(held) // while holder still holds the key
				d.wantConnections(len(cs.clients) + 2)
				holder.Do("unlock "+key, "u unlocked")
				next.Expect("l locked")
				next.Do("unlock "+key, "u unlocked")
				d.wantFree(key, key+"x", key+"y")
				holder.Close()
				next.Close()
			})
			d.wantConnections(len(cs.clients))
		})
	}
}

// A client that does not read is reset: at once its keys are free.
func TestPeerThatNeverReadsEnds(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput = 4 << 10 })
	cs := d.canaries()
	d.pairs(func(conn, keyLoop int) {
		keys := d.keysOf(keyLoop, 3)
		c := d.dialNarrowOn(conn)
		fmt.Fprintf(c, "lock %s 0\r\n", keys[0])
		flood := makeTorrent(makeCycle(0, keys[1]), 1<<20)
		flood.offer(t, c, cs)
		reset(c)
		d.wantFree(keys...)
		d.wantConnections(len(cs.clients))
	})
}

// Commands that have been read already wait as well while their client does not read the answers of those before.
func TestUnreadAnswersHoldCommandsBack(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline, cfg.MaxOutput = 2<<20, 4<<10 })
	cs := d.canaries()
	d.pairs(func(conn, keyLoop int) {
		keys := d.keysOf(keyLoop, 4)
		holder, c, other := d.dial(), d.dialNarrowOn(conn), d.dial()
		holder.Do("lock "+keys[0]+" 0", "l locked")
		fmt.Fprintf(c, "lock %s 600000\r\n", keys[0])
		cs.pass(conn, keyLoop)
		text := makeCycle(0, d.keysOf(conn, 4)[3])
		const cycles = 14000 // 750 KB of answers
		if err := text.flood(c, cycles); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "lock %s 0\r\n", keys[1])
		d.wantRead(c)
		cs.passAll()
		holder.Do("unlock "+keys[0], "u unlocked")
		cs.passAll()
		cs.passAll()
		other.Do("lock "+keys[1]+" 0", "l locked")
		other.Do("unlock "+keys[1], "u unlocked")
		first := make([]byte, len("l locked\r\n"))
		if _, err := io.ReadFull(c, first); err != nil || string(first) != "l locked\r\n" {
			t.Fatalf("got %q, %v", first, err)
		}
		if err := text.wantAnswers(c, cycles); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, first); err != nil || string(first) != "l locked\r\n" {
			t.Fatalf("got %q, %v", first, err)
		}
		other.Do("lock "+keys[1]+" 0", "t timeout")
		_ = c.Close()
		holder.Close()
		other.Close()
		d.wantFree(keys...)
	})
	d.wantConnections(len(cs.clients))
}

// Many clients that neither read nor end do not keep the others from being served, nor the server from stopping.
func TestManyPeersThatNeverRead(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput, cfg.MaxMemory = 32<<10, 128<<20 }) // of which an eighth may be read on
	cs := d.canaries()
	text := makeCycle(0, append(d.keysOf(0, 2), d.keysOf(1, 2)...)...)
	before := heap()
	var floods sync.WaitGroup
	var clients []*net.TCPConn
	for range 20 {
		c := d.dialNarrow()
		clients = append(clients, c)
		floods.Go(func() {
			if err := text.flood(c, 1<<20); err == nil || errors.Is(err, io.EOF) {
				t.Error("a client that never reads could send everything")
			}
		})
	}
	busy := d.dial()
	key := d.keysOf(1, 9)[8]
	for range 100 {
		busy.Do("lock "+key+" 0", "l locked")
		busy.Do("unlock "+key, "u unlocked")
		cs.passAll()
	}
	if grown := heap() - before; grown > 2*memoryBound {
		t.Errorf("%d bytes more are in use for 20 clients that do not read", grown)
	}
	d.stop()
	for _, c := range clients {
		_ = c.Close()
	}
	floods.Wait()
}
