package server

import (
	"fmt"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// A timeout is never early.
func TestTimeoutIsNeverEarly(t *testing.T) {
	for _, tick := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(tick.String(), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Tick = tick })
			d.pairs(func(conn, keyLoop int) {
				key := d.keysOf(keyLoop, 1)[0]
				holder, c := d.dial(), d.dialOn(conn)
				holder.Do("lock "+key+" 0", "l locked")
				timeouts := []int{1, 2, 4, 5, 6, 11, 23, 40}
				if tick == maxTick {
					timeouts = []int{1, 101}
				}
				for _, ms := range timeouts {
					start := time.Now()
					c.Do(fmt.Sprintf("lock %s %d", key, ms), "t timeout")
					if took := time.Since(start); took < time.Duration(ms)*time.Millisecond {
						t.Errorf("a timeout of %d ms took %s", ms, took)
					}
				}
				holder.Close()
				c.Close()
			})
		})
	}
}

// A timeout of zero does not wait for a tick: many of them in a row take less than as many ticks.
func TestTimeoutZeroIsAtOnce(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Tick = maxTick })
	d.pairs(func(conn, keyLoop int) {
		key := d.keysOf(keyLoop, 1)[0]
		holder, c := d.dial(), d.dialOn(conn)
		holder.Do("lock "+key+" 0", "l locked")
		const tries = 100
		start := time.Now()
		for range tries {
			c.Do("lock "+key+" 00", "t timeout")
		}
		if took := time.Since(start); took > tries*maxTick/2 {
			t.Errorf("%d locks with a timeout of 0 took %s", tries, took)
		}
		holder.Close()
	})
}

// Numbers beyond all bounds wait on: shorter waits that begin later end first, and the key is granted then.
func TestTimeoutHuge(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	numbers := []string{
		"2147483647", "2147483648", "4294967296", "4294967297", "9223372036854", "9223372036855", "9223372036854775807",
		"9223372036854775808", "18446744073709551616", "18446744073709551617", "99999999999999999999999999999999999999",
	}
	d.pairs(func(conn, keyLoop int) {
		for _, number := range numbers {
			key := d.keysOf(keyLoop, 1)[0]
			holder, c, other := d.dial(), d.dialOn(conn), d.dial()
			holder.Do("lock "+key+" 0", "l locked")
			c.Send("lock " + key + " " + number)
			cs.pass(conn, keyLoop)
			other.Do("lock "+key+" 12", "t timeout")
			holder.Do("unlock "+key, "u unlocked")
			c.Expect("l locked")
			c.Do("unlock "+key, "u unlocked")
			holder.Close()
			c.Close()
			other.Close()
		}
	})
}

// A wait that runs out at the head, in the middle or at the tail of a queue leaves the order of the others alone; who
// asks again stands at the end.
func TestTimeoutInQueue(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	const waiters = 5
	d.pairs(func(conn, keyLoop int) {
		for place := range waiters {
			key := d.keysOf(keyLoop, 1)[0]
			holder := d.dialOn(1 - conn)
			holder.Do("lock "+key+" 0", "l locked")
			var queue []*prototest.Client
			for i := range waiters {
				c := d.dialOn((conn + i) % 2)
				timeout := 600000
				if i == place {
					timeout = 15
				}
				c.Send(fmt.Sprintf("lock %s %d", key, timeout))
				cs.pass((conn+i)%2, keyLoop)
				queue = append(queue, c)
			}
			late := queue[place]
			late.Expect("t timeout")
			late.Send("lock " + key + " 600000")
			cs.pass((conn+place)%2, keyLoop)
			queue = append(append(queue[:place:place], queue[place+1:]...), late)
			holder.Do("unlock "+key, "u unlocked")
			for _, next := range queue {
				// Only the holder can unlock, so this also shows that nobody else was granted the key.
				next.Expect("l locked")
				next.Do("unlock "+key, "u unlocked")
			}
			d.wantFree(key)
		}
	})
}

// The holder unlocks and locks in one write: the first waiter goes first, and the holder behind the others.
func TestUnlockAndLockInOneWrite(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	d.pairs(func(conn, keyLoop int) {
		for waiterLoop := range 2 {
			key := d.keysOf(keyLoop, 1)[0]
			holder, first, second := d.dialOn(conn), d.dialOn(waiterLoop), d.dialOn(1-waiterLoop)
			holder.Do("lock "+key+" 0", "l locked")
			first.Send("lock " + key + " 600000")
			cs.pass(waiterLoop, keyLoop)
			second.Send("lock " + key + " 600000")
			cs.pass(1-waiterLoop, keyLoop)
			holder.Send("unlock "+key, "lock "+key+" 0", "lock "+key+" 600000")
			holder.Expect("u unlocked", "t timeout")
			cs.pass(conn, keyLoop)
			first.Expect("l locked")
			first.Do("unlock "+key, "u unlocked")
			second.Expect("l locked")
			second.Do("unlock "+key, "u unlocked")
			holder.Expect("l locked")
			holder.Do("unlock "+key, "u unlocked")
		}
	})
}

// The timer of a wait that was granted does not end the next wait of the same client.
func TestTimerOfGrantedWait(t *testing.T) {
	d := startDaemon(t, nil)
	cs := d.canaries()
	d.pairs(func(conn, keyLoop int) {
		keys := d.keysOf(keyLoop, 2)
		holder, c, clock := d.dialOn(conn), d.dialOn(conn), d.dial()
		holder.Do("lock "+keys[0]+" 0", "l locked")
		holder.Do("lock "+keys[1]+" 0", "l locked")
		c.Send("lock "+keys[0]+" 200", "lock "+keys[1]+" 600000")
		cs.pass(conn, keyLoop)
		holder.Do("unlock "+keys[0], "u unlocked")
		c.Expect("l locked")
		cs.pass(conn, keyLoop)
		clock.Do("lock "+keys[1]+" 210", "t timeout") // the first timer has run out as well
		holder.Do("unlock "+keys[1], "u unlocked")
		c.Expect("l locked")
		c.Close()
		d.wantFree(keys...)
	})
}

// A wait runs out and its key is unlocked in the same turn of the loop: there is one outcome, and it is true.
func TestTimeoutMeetsUnlock(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for keyLoop := range 2 {
		key, otherKey := d.keysOf(keyLoop, 1)[0], d.keysOf(1-keyLoop, 1)[0]
		var waiters []*prototest.Client
		holder, clock := d.dialOn(1-keyLoop), d.dialOn(1-keyLoop)
		holder.Do("lock "+key+" 0", "l locked")
		holder.Do("lock "+otherKey+" 0", "l locked")
		for i := range 4 {
			waiters = append(waiters, d.dialOn(i%2))
		}
		for i, c := range waiters {
			c.Send("lock " + key + " 40")
			cs.pass(i%2, keyLoop)
		}
		thaw := d.freeze(g, keyLoop)
		holder.Send("unlock " + key)
		clock.Do("lock "+otherKey+" 60", "t timeout") // the time of the waiters has run out
		thaw()
		holder.Expect("u unlocked")
		for _, c := range waiters {
			switch answer, err := c.ReadReply(); {
			case err != nil:
				t.Fatal(err)
			case answer == "l locked":
				c.Do("unlock "+key, "u unlocked")
			case answer == "t timeout":
				c.Send("unlock " + key)
				if answer, err := c.ReadReply(); err != nil || answer == "u unlocked" {
					t.Fatalf("after a timeout: got %q, %v", answer, err)
				}
			default:
				t.Fatalf("got %q", answer)
			}
		}
		holder.Close()
		d.wantFree(key, otherKey)
	}
}
