package server

import (
	"bytes"
	"fmt"
	"testing"

	"dreadlock/proto/prototest"
)

// A client that is reset in any state of its session leaves nothing behind: what it held is free, and goes to the next
// waiter, and its place in a queue is free.
func TestReset(t *testing.T) {
	states := []struct {
		name string
		// reach sends what brings c into the state. It holds held, of the other loop, already; key is held by holder.
		reach func(c *prototest.Client, key, held string)
	}{
		{"holding", func(*prototest.Client, string, string) {}},
		{"in the middle of a command", func(c *prototest.Client, key, _ string) { c.Write([]byte("lock " + key)) }},
		{"waiting", func(c *prototest.Client, key, _ string) { c.Send("lock " + key + " 600000") }},
		{"waiting with a pipeline", func(c *prototest.Client, key, held string) {
			c.Send("unlock x", "lock "+key+" 600000", "unlock "+held, "lock "+held+" 0", "lock x 0")
		}},
		{"answers unread", func(c *prototest.Client, _, held string) {
			c.Write(bytes.Repeat(makeCycle(0, held+"x", held+"y").commands, 200))
		}},
		{"draining", func(c *prototest.Client, _, held string) {
			c.Write(bytes.Repeat(makeCycle(0, held+"x", held+"y").commands, 200))
			c.CloseWrite()
		}},
	}
	d := startDaemon(t, nil)
	cs := d.canaries()
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			d.pairs(func(conn, keyLoop int) {
				key, held := d.keysOf(keyLoop, 1)[0], d.keysOf(1-keyLoop, 1)[0]
				for _, settled := range []bool{false, true} {
					holder, c, afterKey, afterHeld := d.dial(), d.dialOn(conn), d.dialOn(0), d.dialOn(1)
					holder.Do("lock "+key+" 0", "l locked")
					c.Do("lock "+held+" 0", "l locked")
					afterHeld.Send("lock " + held + " 600000")
					state.reach(c, key, held)
					if settled {
						cs.pass(conn, keyLoop)
						afterKey.Send("lock " + key + " 600000")
						cs.passAll()
						c.Reset()
					} else {
						c.Reset()
						afterKey.Send("lock " + key + " 600000")
					}
					afterHeld.Expect("l locked")
					holder.Do("unlock "+key, "u unlocked")
					afterKey.Expect("l locked")
					afterKey.Do("unlock "+key, "u unlocked")
					afterHeld.Do("unlock "+held, "u unlocked")
					d.wantFree(key, held, held+"x", held+"y", "x")
					for _, end := range []*prototest.Client{holder, afterKey, afterHeld} {
						end.Close()
					}
				}
			})
		})
		d.wantConnections(len(cs.clients))
	}
}

// A client is reset while its request is in the mailbox of the other loop. A lock that is granted there all the same is
// freed by the message behind it.
func TestResetWithRequestAway(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for frozen := range 2 {
		conn := 1 - frozen
		keys := d.keysOf(frozen, 3)
		free, taken := keys[0], keys[1]
		holder, next := d.dialOn(conn), d.dialOn(conn)
		holder.Do("lock "+taken+" 0", "l locked")
		commands := []string{
			"lock " + free + " 0", "lock " + free + " 600000", "unlock " + free, "lock " + taken + " 600000", "lock " + taken + " 0",
		}
		var clients []*prototest.Client
		for range commands {
			clients = append(clients, d.dialOn(conn))
		}
		thaw := d.freeze(g, frozen)
		for i, c := range clients {
			c.Send(commands[i], "lock "+keys[2]+" 0")
		}
		cs.pass(conn, conn)
		for _, c := range clients {
			c.Reset()
		}
		next.Send("lock " + taken + " 600000")
		cs.pass(conn, conn)
		d.wantConnections(len(cs.clients) + 3) // with the one that froze the loop
		thaw()
		holder.Do("unlock "+taken, "u unlocked")
		next.Expect("l locked")
		next.Do("unlock "+taken, "u unlocked")
		d.wantFree(keys...)
		holder.Close()
		next.Close()
	}
	d.wantConnections(len(cs.clients))
}

// A whole queue dies in the moment in which its key is released: the grant goes on to the first who lives.
func TestResetMeetsGrant(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for range 5 { // as many as the log takes in a burst, two loops each
		d.pairs(func(conn, keyLoop int) {
			if conn == keyLoop {
				return
			}
			key := d.keysOf(keyLoop, 1)[0]
			holder, last := d.dialOn(keyLoop), d.dialOn(keyLoop)
			holder.Do("lock "+key+" 0", "l locked")
			var dying []*prototest.Client
			for i := range 6 {
				c := d.dialOn(i % 2)
				c.Send("lock " + key + " 600000")
				cs.pass(i%2, keyLoop)
				dying = append(dying, c)
			}
			last.Send("lock " + key + " 600000")
			cs.pass(keyLoop, keyLoop)
			// The loop that stands still has to hear of the grants and of the resets at the same time.
			thaw := d.freeze(g, conn)
			holder.Send("unlock " + key)
			for _, c := range dying {
				c.Reset()
			}
			thaw()
			holder.Expect("u unlocked")
			last.Expect("l locked")
			last.Do("unlock "+key, "u unlocked")
			d.wantFree(key)
			holder.Close()
			last.Close()
		})
	}
	d.wantConnections(len(cs.clients))
}

// Clients pipeline, end their input, and are reset while their answers are written, in an unlucky moment or another.
// The limit on connections is as exact as before: none of them is counted for ever.
func TestResetWhileAnswersAreWritten(t *testing.T) {
	const limit = 64
	d, g := startGated(t, func(cfg *Config) { cfg.MaxConnections = limit })
	keys := append(d.keysOf(0, 8), d.keysOf(1, 8)...)
	text := makeCycle(0, keys...)
	for _, halfClosed := range []bool{false, true} {
		for i := range 60 {
			conn := d.dialNarrow()
			if err := text.flood(conn, 1+i%20); err != nil {
				t.Fatal(err)
			}
			if halfClosed {
				_ = conn.CloseWrite()
			}
			if err := text.wantAnswers(conn, 1); err != nil {
				t.Fatal(err)
			}
			reset(conn)
			d.wantConnections(0)
		}
		d.wantFree(keys...)
		d.wantConnections(0)
	}
	// And in the unlucky one for certain: an answer is on its way when the reset comes behind the end of the input.
	cs := d.canaries()
	for frozen := range 2 {
		var clients []*prototest.Client
		for range 10 {
			clients = append(clients, d.dialOn(1-frozen))
		}
		thaw := d.freeze(g, frozen)
		for i, c := range clients {
			key := d.keysOf(frozen, 30)[20+i]
			c.Send("lock "+key+" 0", "unlock "+key, "unlock "+key, "unlock "+key)
			c.CloseWrite()
		}
		cs.pass(1-frozen, 1-frozen)
		cs.pass(1-frozen, 1-frozen)
		for _, c := range clients {
			c.Reset()
		}
		thaw()
		d.wantFree(d.keysOf(frozen, 30)...)
		d.wantConnections(len(cs.clients))
	}
}

// Many clients come and go by resets, all at once, over the same keys.
func TestResetStorm(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			var keys []string
			for loop := range loops {
				keys = append(keys, d.keysOf(loop, 2)...)
			}
			for round := range 40 {
				var clients []*prototest.Client
				for i := range 2 * len(keys) {
					c := d.dial()
					c.Send("lock "+keys[i%len(keys)]+" 600000", "lock "+keys[(i+round)%len(keys)]+" 600000")
					clients = append(clients, c)
				}
				for i, c := range clients {
					if (i+round)%3 == 0 {
						c.CloseWrite()
					}
					c.Reset()
				}
			}
			d.wantFree(keys...)
			d.wantConnections(0)
		})
	}
}
