package main

import (
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// testDelay is the lock delay of the tests.
const testDelay = 1500 * time.Millisecond

// startDelayed starts a daemon with a lock delay and waits until that of its start is over.
func startDelayed(t *testing.T, args ...string) *view {
	t.Helper()
	v := startAdmin(t, append([]string{"--lock-delay", testDelay.String()}, args...)...)
	v.d.dial().Do("lock start 60000", "l locked")
	return v
}

// queueFor has a new client wait for the key.
func (v *view) queueFor(t *testing.T, key string) *prototest.Client {
	t.Helper()
	c := v.d.dial()
	c.Send("lock " + key + " 60000")
	eventually(t, "nobody waits for "+key, func() bool {
		var k api.Key
		v.get("/api/v1/keys/"+key, &k)
		return k.Waiters == 1
	})
	return c
}

// connectionOf returns the number of the connection of a client.
func (v *view) connectionOf(c *prototest.Client) string {
	var page api.ConnectionPage
	v.get("/api/v1/connections?address="+c.Conn().LocalAddr().String(), &page)
	if len(page.Connections) != 1 {
		v.d.tb.Fatalf("the connection of %v is not listed", c.Conn().LocalAddr())
	}
	return strconv.FormatUint(uint64(page.Connections[0].Connection), 10)
}

// Whatever ends the connection of a holder, the next one in line is told only when the lock delay is over. Nobody holds the key
// until then, and the API says who held it.
func TestLockDelay(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, lose := range map[string]func(t *testing.T, v *view, holder *prototest.Client){
		"closed": func(_ *testing.T, _ *view, holder *prototest.Client) { holder.Close() },
		"ended":  func(_ *testing.T, _ *view, holder *prototest.Client) { holder.CloseWrite() },
		"reset":  func(_ *testing.T, _ *view, holder *prototest.Client) { holder.Reset() },
		"syntax error": func(_ *testing.T, _ *view, holder *prototest.Client) {
			holder.Write([]byte("unlock nobodys\r\nunlock !"))
		},
		"kicked": func(t *testing.T, v *view, holder *prototest.Client) {
			if status, body := v.request(http.MethodPost, "/api/v1/connections/"+v.connectionOf(holder)+"/kick"); status != http.StatusOK {
				t.Errorf("kick: %d, %s", status, body)
			}
		},
		"kicked while it waits": func(t *testing.T, v *view, holder *prototest.Client) {
			holder.Send("lock start 60000") // of another client, which keeps it
			if status, body := v.request(http.MethodPost, "/api/v1/connections/"+v.connectionOf(holder)+"/kick"); status != http.StatusOK {
				t.Errorf("kick: %d, %s", status, body)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			v := startDelayed(t)
			holder := v.d.dial()
			holder.Do("lock a 0", "l locked")
			holder.Do("lock b 0", "l locked") // probably of the other loop
			next, other := v.queueFor(t, "a"), v.queueFor(t, "b")
			id := v.connectionOf(holder)
			lost := time.Now()
			lose(t, v, holder)
			eventually(t, "the key never rests", func() bool {
				if time.Since(lost) > testDelay {
					return true // a busy machine
				}
				var k api.Key
				v.get("/api/v1/keys/a", &k)
				return k.FreesInSeconds > 0 && k.FreesInSeconds <= testDelay.Seconds() &&
					strconv.FormatUint(uint64(k.Holder.Connection), 10) == id
			})
			for _, c := range []*prototest.Client{next, other} {
				c.Expect("l locked")
				if took := time.Since(lost); took < testDelay {
					t.Errorf("the next one has the key after %s, want %s", took, testDelay)
				}
			}
		})
	}
}

// A key that is unlocked goes to the next at once, and so does the rest of a pipeline that ends with the connection.
func TestLockDelayUnlock(t *testing.T) {
	t.Parallel() // it mostly waits
	v := startDelayed(t)
	began := time.Now()
	for {
		holder := v.d.dial()
		holder.Do("lock a 60000", "l locked")
		next := v.queueFor(t, "a")
		unlocked := time.Now()
		holder.Send("unlock a")
		holder.CloseWrite()
		next.Expect("l locked")
		took := time.Since(unlocked)
		next.Do("unlock a", "u unlocked")
		if took < testDelay {
			return
		}
		if time.Since(began) > prototest.Patience {
			t.Fatal("an unlock never passes the key on before the lock delay is over")
		}
	}
}

// A daemon that takes the place of another one grants nothing before the lock delay is over: who held a key of the one before may
// still be at work. It says so. Who asks meanwhile waits.
func TestLockDelayRestart(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, end := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			address := freeAddress(t)
			before := startDelayed(t, "--listen", address)
			holder := before.d.dial()
			holder.Do("lock a 0", "l locked")
			ended := time.Now()
			before.d.signal(end)
			before.d.wait()

			v := startAdmin(t, "--lock-delay", testDelay.String(), "--listen", address)
			line := v.d.logs("nothing is granted yet: who held a key before the start may still be about to stop", "info")
			if line.text("lock_delay") != testDelay.String() || line.text("until") == "" {
				t.Errorf("the log says %v", line)
			}
			next := v.d.dial()
			next.Send("lock a 60000")
			var status api.Status
			v.get("/api/v1/status", &status)
			if status.LockDelaySeconds != testDelay.Seconds() || status.GrantsInSeconds <= 0 && time.Since(ended) < testDelay ||
				status.GrantsInSeconds > testDelay.Seconds() {
				t.Errorf("the status says: a delay of %v s, grants in %v s", status.LockDelaySeconds, status.GrantsInSeconds)
			}
			hasty := v.d.dial()
			hasty.Send("lock b 0")
			if reply, err := hasty.ReadReply(); err != nil || reply != "t timeout" && time.Since(ended) < testDelay {
				t.Errorf("a try soon after the start: %q, %v", reply, err)
			}
			next.Expect("l locked")
			if took := time.Since(ended); took < testDelay {
				t.Errorf("the next one has the key %s after the end of the daemon before, want %s", took, testDelay)
			}
		})
	}
}

// A host that vanishes keeps its keys until it is given up, and then for the lock delay.
func TestLockDelayVanished(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := prototest.NewRemote(t)
	t.Parallel() // it mostly waits
	const keepAlive = time.Second
	v := startDelayed(t, "--listen", net.JoinHostPort(r.Address, "0"), "--keepalive", keepAlive.String())
	holder := v.d.dialFrom(r)
	holder.Do("lock a 0", "l locked")
	next := v.queueFor(t, "a")
	gone := time.Now()
	r.Vanish()
	next.Expect("l locked")
	if took := time.Since(gone); took < keepAlive+testDelay {
		t.Errorf("the next one has the key %s after the host has vanished, want %s", took, keepAlive+testDelay)
	}
}
