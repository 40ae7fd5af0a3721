package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

const refusalLine = "e too many connections\r\n"

// A command of 10,000 bytes works, one byte more does not, however it is cut and wherever its key belongs.
func TestCommandLength(t *testing.T) {
	const limit = 10000
	for _, loops := range []int{1, 2} {
		d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
		cs := d.canaries()
		d.pairs(func(conn, keyLoop int) {
			longKey := func(n int) string {
				for i := 0; ; i++ {
					key := fmt.Sprintf("%s%d", strings.Repeat("k", n-8), 10000000+i)
					if d.server.shardOf(d.server.seed.Hash([]byte(key))) == keyLoop {
						return key
					}
				}
			}
			shortKey := d.keysOf(keyLoop, 1)[0]
			for _, length := range []int{limit, limit + 1} {
				lock := "lock " + longKey(length-len("lock  0\r\n")) + " 0\r\n"
				unlock := "unlock " + longKey(length-len("unlock \r\n")) + "\r\n"
				spaces := "unlock " + shortKey + strings.Repeat(" ", length-len("unlock "+shortKey+"\r\n")) + "\r\n"
				digits := "lock " + shortKey + " " + strings.Repeat("0", length-len("lock "+shortKey+" \r\n")) + "\r\n"
				for command, answer := range map[string]string{
					lock: "l locked", unlock: "e not locked", spaces: "e not locked", digits: "l locked",
				} {
					for _, cut := range []int{0, 1, 7, 5000, length - 2, length - 1} {
						c := d.dialOn(conn)
						c.Do("lock before 0", "l locked")
						c.Write([]byte(command[:cut]))
						if cut > 0 {
							cs.pass(conn, conn)
						}
						_, _ = c.Conn().Write([]byte(command[cut:]))
						if length > limit {
							c.ExpectEnd()
						} else {
							c.Expect(answer)
							c.Do("unlock before", "u unlocked")
							c.CloseWrite()
							c.ExpectEnd()
						}
						c.Close()
						d.wantFree("before")
					}
				}
			}
		})
	}
}

// leave ends a client and waits until the server has counted it out, which it has when the client sees the end.
func leave(c *prototest.Client) {
	c.CloseWrite()
	c.ExpectEnd()
	c.Close()
}

// The client beyond the limit is told so, also if it has sent a command already, and the others notice nothing.
func TestConnectionLimit(t *testing.T) {
	const limit = 10
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxConnections = loops, limit })
			keys := d.keysOf(0, limit)
			var clients []*prototest.Client
			for i := range limit {
				c := d.dial()
				c.Do("lock "+keys[i]+" 0", "l locked")
				clients = append(clients, c)
			}
			for round := range 20 {
				refused := d.dial()
				if round%2 == 1 {
					refused.Send("unlock "+keys[0], "lock "+keys[0]+"x 600000")
				}
				refused.Expect("e too many connections")
				if _, err := refused.ReadReply(); !errors.Is(err, io.EOF) {
					t.Fatalf("want the end of the stream, got %v", err)
				}
				if round%4 < 2 {
					refused.Close()
				}
				i := round % limit
				clients[i].Do("lock "+keys[i]+" 0", "e already locked")
				leave(clients[i])
				clients[i] = d.dial()
				clients[i].Do("lock "+keys[i]+" 600000", "l locked")
			}
			for i, c := range clients {
				c.Do("unlock "+keys[i], "u unlocked")
			}
		})
	}
}

// A client that has ended its input and still has answers to read counts; once it has read them it does not.
func TestConnectionLimitHalfClosed(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxConnections, cfg.MaxOutput = 1, 4<<10 })
	text := makeCycle(0, d.keysOf(0, 2)[1], d.keysOf(1, 2)[1])
	const cycles = 3500 // 380 KB of answers
	conn := d.dialNarrow()
	if err := errors.Join(text.flood(conn, cycles), conn.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		refused := d.dial()
		refused.Expect("e too many connections")
		refused.ExpectEnd()
	}
	if err := errors.Join(text.wantAnswers(conn, cycles), wantEOF(conn)); err != nil {
		t.Fatal(err)
	}
	c := d.dial()
	c.Do("unlock a", "e not locked")
	refused := d.dial()
	refused.Expect("e too many connections")
}

// Many more than may linger are refused at once: each is told or closed, and the limit is as exact as before.
func TestManyRefusals(t *testing.T) {
	const limit = 10
	d := startDaemon(t, func(cfg *Config) { cfg.MaxConnections = limit })
	var clients []*prototest.Client
	for range limit {
		c := d.dial()
		c.Do("unlock a", "e not locked")
		clients = append(clients, c)
	}
	start := time.Now()
	var told atomic.Int32
	var refused, ended sync.WaitGroup
	allCame := make(chan struct{})
	for i := range 500 {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		ended.Add(1)
		refused.Go(func() { // and keeps its side open for as long as possible
			_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
			if i%3 == 0 {
				_, _ = conn.Write([]byte("lock a 0\r\n"))
			}
			text, err := io.ReadAll(conn)
			if string(text) == refusalLine {
				told.Add(1)
			} else if len(text) > 0 {
				t.Errorf("a refused client got %q", text)
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("a refused client was neither told nor closed")
			}
			ended.Done()
			<-allCame
			_ = conn.Close()
		})
	}
	ended.Wait()
	if n := d.server.refusals.Load(); n > maxRefusals {
		t.Errorf("%d refused connections linger", n)
	}
	close(allCame)
	refused.Wait()
	if told.Load() < maxRefusals {
		t.Errorf("%d of 500 were told", told.Load())
	}
	for i, c := range clients {
		c.Do("unlock a", "e not locked")
		leave(c)
		clients[i] = d.dial()
		clients[i].Do("unlock a", "e not locked")
	}
	d.wantNoRefusals()
	c := d.dial()
	c.Expect("e too many connections")
	seconds := int(time.Since(start)/time.Second) + 1
	if n := len(d.log.containing("connection refused")); n < 1 || n > 10*seconds+10 {
		t.Errorf("501 refused clients wrote %d lines", n)
	}
}

// wantNoRefusals waits until no refused connection lingers.
func (d *daemon) wantNoRefusals() {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if n := d.server.refusals.Load(); n != 0 {
			return fmt.Errorf("%d refused connections are counted, want none", n)
		}
		return nil
	})
}

// A refused client that does not go is not waited for.
func TestRefusedClientStays(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxConnections = 1 })
	c := d.dial()
	c.Do("unlock a", "e not locked")
	var stay []*prototest.Client
	for range 5 {
		refused := d.dial()
		refused.Expect("e too many connections")
		refused.ExpectEnd()
		stay = append(stay, refused)
	}
	d.wantNoRefusals()
	for _, refused := range stay {
		refused.Close()
	}
}

// Clients that are gone before they can be refused are not counted for ever. They come while a loop stands still.
func TestRefusedClientIsGone(t *testing.T) {
	d, g := startGated(t, func(cfg *Config) { cfg.MaxConnections = 3 })
	thaw := d.freeze(g, 0)
	var served []*prototest.Client
	for len(served) < 2 { // half of them go to the loop that stands still
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		reset(conn.(*net.TCPConn))
		c := prototest.Dial(t, d.address)
		served = append(served, c)
	}
	for range 300 {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		reset(conn.(*net.TCPConn))
	}
	thaw()
	last := d.dial() // behind all others
	last.Send("unlock a")
	if _, err := last.ReadReply(); err != nil { // whether it is refused or not
		t.Error(err)
	}
	last.Close()
	d.wantNoRefusals()
	for _, c := range served {
		c.Close()
	}
	d.wantConnections(0)
	for range 3 {
		c := d.dial()
		c.Do("unlock a", "e not locked")
	}
	d.dial().Expect("e too many connections")
}
