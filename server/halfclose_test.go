package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// The end of the input right behind two commands loses no answer, wherever the key is.
func TestHalfCloseAnswers(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			for loop := range loops {
				for _, key := range d.keysOf(loop, 150) {
					c := d.dial()
					c.Send("lock "+key+" 600000", "unlock "+key)
					c.CloseWrite()
					c.Expect("l locked", "u unlocked")
					if _, err := c.ReadReply(); !errors.Is(err, io.EOF) {
						t.Fatalf("key %s: want the end of the stream, got %v", key, err)
					}
					c.Close()
				}
			}
			d.wantConnections(0)
		})
	}
}

// What the client has locked and not unlocked before it ended is free when the stream ends.
func TestHalfCloseReleases(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 5), d.keysOf(1, 5)...)
	for conn := range 2 {
		c := d.dialOn(conn)
		for _, key := range keys {
			c.Send("lock " + key + " 0")
		}
		c.CloseWrite()
		for range keys {
			c.Expect("l locked")
		}
		c.ExpectEnd()
		d.wantFree(keys...)
	}
}

// Who has seen the end of a connection, whatever ended it, finds its keys free at once, on all loops and by clients of each.
func TestEndIsSeenLast(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 3), d.keysOf(1, 3)...)
	others := []*prototest.Client{d.dialOn(0), d.dialOn(1)}
	rounds := 200
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		c := d.dialOn(round % 2)
		for _, key := range keys {
			c.Do("lock "+key+" 0", "l locked")
		}
		switch round / 2 % 3 {
		case 0:
			c.Send("unlock nobodys")
			c.CloseWrite()
			c.Expect("e not locked")
		case 1:
			c.CloseWrite()
		case 2:
			c.Send("nonsense")
		}
		c.ExpectEnd()
		for _, key := range keys {
			o := others[round/6%2]
			o.Do("lock "+key+" 0", "l locked")
			o.Do("unlock "+key, "u unlocked")
		}
		c.Close()
	}
}

// A client that sends much, ends its input and reads only then gets every answer: they are many times what the socket
// buffers hold.
func TestHalfCloseUnreadAnswers(t *testing.T) {
	for _, maxOutput := range []int{256 << 10, 4 << 10} {
		d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput = maxOutput })
		text := makeCycle(0, append(d.keysOf(0, 50), d.keysOf(1, 50)...)...)
		for _, n := range []int{1, 55} { // 5 and 300 KB of answers
			for range 2 {
				conn := d.dialNarrow()
				if err := errors.Join(text.flood(conn, n), conn.CloseWrite()); err != nil {
					t.Fatal(err)
				}
				if err := text.wantAnswers(conn, n); err != nil {
					t.Fatalf("%d cycles, --max-output %d: %v", n, maxOutput, err)
				}
				if err := wantEOF(conn); err != nil {
					t.Fatal(err)
				}
				_ = conn.Close()
			}
		}
		d.wantConnections(0)
	}
}

// The end of the input comes while the client is held back, so it stands behind commands that were not read yet: each
// command waits for its turn on the other loop, and meanwhile more was sent than is kept.
func TestHalfCloseHeldBack(t *testing.T) {
	for _, maxPipeline := range []int{1, 4 << 10, 256 << 10} {
		t.Run(fmt.Sprintf("max-pipeline=%d", maxPipeline), func(t *testing.T) {
			d, g := startGated(t, func(cfg *Config) { cfg.MaxPipeline = maxPipeline })
			cs := d.canaries()
			for frozen := range 2 {
				text := makeCycle(400, d.keysOf(frozen, 2)...)
				cycles := (512 << 10) / len(text.commands)
				c := d.dialOn(1 - frozen)
				thaw := d.freeze(g, frozen)
				var sender sync.WaitGroup
				sender.Go(func() { // may have to wait for the thaw
					if err := errors.Join(text.flood(c.Conn(), cycles), c.Conn().CloseWrite()); err != nil {
						t.Error(err)
					}
				})
				for range 20 {
					cs.pass(1-frozen, 1-frozen) // the loop reads what it wants to
				}
				thaw()
				_ = c.Conn().SetReadDeadline(time.Now().Add(prototest.Patience))
				if err := text.wantAnswers(c.Conn(), cycles); err != nil {
					t.Fatal(err)
				}
				if err := wantEOF(c.Conn()); err != nil {
					t.Fatal(err)
				}
				sender.Wait()
			}
		})
	}
}

// The end of the input ends a wait: the client's place in the queue is free, what it held is free, and what it sent
// behind is not executed.
func TestHalfCloseCancelsWait(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	for holderLoop := range 2 {
		for nextLoop := range 2 {
			d.pairs(func(conn, keyLoop int) {
				keys := d.keysOf(keyLoop, 2)
				key, behind := keys[0], keys[1]
				held := d.keysOf(1-keyLoop, 1)[0]
				for _, queuedBefore := range []bool{false, true} {
					holder, c, next := d.dialOn(holderLoop), d.dialOn(conn), d.dialOn(nextLoop)
					holder.Do("lock "+key+" 0", "l locked")
					c.Do("lock "+held+" 0", "l locked")
					c.Send("unlock nothing", "lock "+key+" 600000", "lock "+behind+" 0")
					if queuedBefore {
						cs.pass(conn, keyLoop)
						next.Send("lock " + key + " 600000")
						cs.pass(nextLoop, keyLoop)
					}
					c.CloseWrite()
					c.Expect("e not locked")
					if _, err := c.ReadReply(); !errors.Is(err, io.EOF) {
						t.Fatalf("want the end of the stream, got %v", err)
					}
					if !queuedBefore {
						next.Send("lock " + key + " 600000")
						cs.pass(nextLoop, keyLoop)
					}
					d.wantFree(held, behind)
					holder.Do("unlock "+key, "u unlocked")
					next.Expect("l locked")
					next.Do("unlock "+key, "u unlocked")
					d.wantFree(key)
					for _, end := range []*prototest.Client{holder, c, next} {
						end.Close()
					}
				}
			})
		}
	}
	d.wantConnections(len(cs.clients))
}

// A command that ends with the input is none.
func TestHalfCloseUnfinishedCommand(t *testing.T) {
	d := startDaemon(t, nil)
	d.pairs(func(conn, keyLoop int) {
		keys := d.keysOf(keyLoop, 2)
		command := "lock " + keys[1] + " 0\r\n"
		for cut := range len(command) {
			c := d.dialOn(conn)
			c.Write([]byte("lock " + keys[0] + " 0\r\n" + command[:cut]))
			c.CloseWrite()
			c.Expect("l locked")
			if _, err := c.ReadReply(); !errors.Is(err, io.EOF) {
				t.Fatalf("behind %q: want the end of the stream, got %v", command[:cut], err)
			}
			c.Close()
		}
		d.wantFree(keys...)
	})
}

// The input ends while the request is on its way to the other loop: it is executed, unless it would have to wait.
func TestHalfCloseWithRequestAway(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for frozen := range 2 {
		conn := 1 - frozen
		keys := d.keysOf(frozen, 6)
		holder := d.dialOn(conn)
		holder.Do("lock "+keys[0]+" 0", "l locked")
		cases := []struct {
			commands, answers []string
		}{
			{[]string{"lock " + keys[1] + " 0", "unlock " + keys[1]}, []string{"l locked", "u unlocked"}},
			{[]string{"lock " + keys[2] + " 600000", "lock " + keys[0] + " 0"}, []string{"l locked", "t timeout"}},
			{[]string{"lock " + keys[0] + " 600000", "lock " + keys[3] + " 0"}, nil},
			{[]string{"lock " + keys[4] + " 0", "lock " + keys[0] + " 600000", "unlock " + keys[4]}, []string{"l locked"}},
			{[]string{"unlock " + keys[0], "lock " + keys[5] + " 1"}, []string{"e not owner", "l locked"}},
			{[]string{"lock " + keys[5] + "x 0", "garbage", "unlock " + keys[5]}, []string{"l locked"}},
		}
		var clients []*prototest.Client
		for range cases {
			clients = append(clients, d.dialOn(conn))
		}
		thaw := d.freeze(g, frozen)
		for i, c := range clients {
			c.Send(cases[i].commands...)
			c.CloseWrite()
		}
		cs.pass(conn, conn)
		cs.pass(conn, conn) // and the end of the input has been read
		thaw()
		for i, c := range clients {
			c.Expect(cases[i].answers...)
			c.ExpectEnd()
			c.Close()
		}
		holder.Do("unlock "+keys[0], "u unlocked")
		d.wantFree(keys...)
		holder.Close()
	}
	d.wantConnections(len(cs.clients))
}

// A client that ends its input and does not read holds nothing up: its keys are free once its commands are executed.
func TestHalfCloseOfManyAtOnce(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 4), d.keysOf(1, 4)...)
	var conns []net.Conn
	for range 100 {
		conn := d.dialNarrow()
		conns = append(conns, conn)
		for _, key := range keys {
			fmt.Fprintf(conn, "lock %s 0\r\nunlock %s\r\n", key, key)
		}
		_ = conn.CloseWrite()
	}
	d.wantFree(keys...)
	for _, conn := range conns {
		if text, err := io.ReadAll(conn); err != nil || len(text) == 0 {
			t.Fatalf("got %q, %v", text, err)
		}
		_ = conn.Close()
	}
	d.wantConnections(0)
}

// The end of the input arrives while the client is held back behind a wait, together with the grant that ends the wait:
// the loop hears of both at once, resumes the client for the grant, and is told of the end of what it has resumed. Part
// of the input is still in the socket then.
func TestHalfCloseMeetsGrant(t *testing.T) {
	t.Run("few answers", func(t *testing.T) { testHalfCloseMeetsGrant(t, 4<<10, 1000, 2) })
	t.Run("more answers than the sockets take", func(t *testing.T) { testHalfCloseMeetsGrant(t, 256<<10, 0, 2500) })
}

// testHalfCloseMeetsGrant sends twice that many cycles of commands, the half of which is more than maxPipeline.
func testHalfCloseMeetsGrant(t *testing.T, maxPipeline, width, cycles int) {
	t.Helper()
	d, g := startGated(t, func(cfg *Config) { cfg.MaxPipeline = maxPipeline })
	cs := d.canaries()
	for conn := range 2 {
		key := d.keysOf(1-conn, 1)[0]
		text := makeCycle(width, d.keysOf(conn, 2)...)
		holder, c := d.dialOn(1-conn), d.dialNarrowOn(conn)
		holder.Do("lock "+key+" 0", "l locked")
		fmt.Fprintf(c, "lock %s 600000\r\n", key)
		cs.pass(conn, 1-conn)
		for range 2 { // the first half is read, the second is not
			if err := text.flood(c, cycles); err != nil {
				t.Fatal(err)
			}
			cs.pass(conn, conn)
		}
		thaw := d.freeze(g, conn)
		holder.Do("unlock "+key, "u unlocked")
		cs.pass(1-conn, 1-conn) // the grant is in the mailbox
		_ = c.CloseWrite()
		thaw()
		got := make([]byte, len("l locked\r\n"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "l locked\r\n" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := errors.Join(text.wantAnswers(c, 2*cycles), wantEOF(c)); err != nil {
			t.Fatal(err)
		}
	}
}
