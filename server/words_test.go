package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/fleet/fleettest"
)

// tokenOf asks for the token of a key that c holds.
func tokenOf(tb testing.TB, c *prototest.Client, key string) (token uint64) {
	tb.Helper()
	c.Send("fence " + key)
	reply, err := c.ReadReply()
	if err != nil {
		tb.Fatal(err)
	}
	if n, err := fmt.Sscanf(reply, "f %d", &token); n != 1 || err != nil || reply != fmt.Sprintf("f %d", token) || int64(token) <= 0 {
		tb.Fatalf("the reply to fence is %q", reply)
	}
	return token
}

// The token of a grant stays as long as the grant, and each grant of a key has a greater one than those before: by lock, by
// unlock to a waiter, by the end of a holder, and after a restart. Only the holder learns it.
func TestFence(t *testing.T) {
	greatest := uint64(0) // of the starts before
	for range 2 {
		d := startDaemon(t, nil)
		var latest []uint64
		for _, key := range []string{d.keysOf(0, 1)[0], d.keysOf(1, 1)[0]} {
			last := greatest
			newGrant := func(c *prototest.Client) {
				t.Helper()
				token := tokenOf(t, c, key)
				if again := tokenOf(t, c, key); again != token {
					t.Errorf("the token of one grant is %d and %d", token, again)
				}
				if token <= last {
					t.Errorf("the token of a later grant is %d, not above %d", token, last)
				}
				last = token
				if shown, err := d.server.Key(t.Context(), key, 1); err != nil || shown.Token != token {
					t.Errorf("the API shows %+v (%v), want the token %d", shown, err, token)
				}
			}
			a, b, c := d.dial(), d.dial(), d.dial()
			a.Do("fence "+key, "e not locked")
			a.Do("lock "+key+" 0", "l locked")
			newGrant(a)
			b.Do("fence "+key, "e not owner")
			a.Do("unlock "+key, "u unlocked")
			a.Do("fence "+key, "e not locked")
			a.Do("lock "+key+" 0", "l locked")
			newGrant(a)
			b.Send("lock " + key + " 300000")
			d.awaitWaiters(1)
			c.Send("lock " + key + " 300000")
			d.awaitWaiters(2)
			a.Do("unlock "+key, "u unlocked")
			b.Expect("l locked")
			newGrant(b)
			b.Reset()
			c.Expect("l locked")
			newGrant(c)
			a.Do("fence "+key, "e not owner")
			latest = append(latest, last)
		}
		d.stop()
		greatest = slices.Max(latest)
	}
}

// A lock and the question for its token in one write cost one round trip.
func TestFenceInPipeline(t *testing.T) {
	d := startDaemon(t, nil)
	c := d.dial()
	for _, key := range []string{d.keysOf(0, 1)[0], d.keysOf(1, 1)[0]} {
		c.Send("lock "+key+" 5000", "FENCE  "+key+" ", "unlock "+key, "fence "+key)
		c.Expect("l locked")
		if reply, err := c.ReadReply(); err != nil || !strings.HasPrefix(reply, "f ") {
			t.Errorf("the reply to fence is %q (%v)", reply, err)
		}
		c.Expect("u unlocked", "e not locked")
	}
}

// A name is answered with what a client has to know of the daemon: how long a vanished host keeps its keys, and the lock
// table, which is another one after a restart.
func TestName(t *testing.T) {
	spaces := make(map[string]bool)
	for range 2 {
		d := startDaemon(t, nil)
		c := d.dial()
		for _, name := range []string{"ann@build7:4711", "!#$%&'()*+,-./~"} {
			c.Send("name " + name)
			reply, err := c.ReadReply()
			var silence int
			var space string
			if n, scanErr := fmt.Sscanf(reply, "n named %d %16s", &silence, &space); err != nil || n != 2 || scanErr != nil {
				t.Fatalf("the reply to name is %q (%v)", reply, err)
			}
			if silence != int(2*d.server.cfg.KeepAlive.Milliseconds()) || len(space) != 16 {
				t.Errorf("the reply to name is %q, want twice the keepalive and 16 digits", reply)
			}
			spaces[space] = true
			page, err := d.server.Connections(t.Context(), api.ConnectionQuery{})
			if err != nil || len(page.Connections) != 1 || page.Connections[0].Name != name {
				t.Errorf("the API shows %+v (%v), want the name %s", page, err, name)
			}
		}
	}
	if len(spaces) != 2 {
		t.Errorf("two starts have the lock tables %v", spaces)
	}
}

// The daemons of a fleet say which it is, once they have reached its store.
func TestNameInAFleet(t *testing.T) {
	store := fleettest.NewFleet(time.Minute)
	store.Space = 0xf1ee
	for range 2 {
		startDaemon(t, func(cfg *Config) { cfg.Fleet = store.Store() }).dial().Do("name ann", "n named 60000 000000000000f1ee")
	}
}

// Names and owners are shown of who holds and who waits, on whichever loop; the latest counts.
func TestIdentityShown(t *testing.T) {
	d := startDaemon(t, nil)
	for loop := range 2 {
		key := d.keysOf(loop, 1)[0]
		holder, waiter := d.dialOn(0), d.dialOn(1)
		holder.Do("owner before", "o owned")
		holder.Do("owner job1", "o owned")
		holder.Send("name holder")
		holder.Do("lock "+key+" 0", "n named 60000 "+fmt.Sprintf("%016x", d.server.space))
		holder.Expect("l locked")
		waiter.Send("owner job2", "lock "+key+" 300000")
		waiter.Expect("o owned")
		d.awaitWaiters(1)
		shown, err := d.server.Key(t.Context(), key, 10)
		if err != nil || len(shown.Queue) != 1 {
			t.Fatalf("the API shows %+v (%v)", shown, err)
		}
		if h, w := shown.Holder, shown.Queue[0]; h.Name != "holder" || h.Owner != "job1" || w.Name != "" || w.Owner != "job2" {
			t.Errorf("the API shows %+v", shown)
		}
		waiter.Close()
		holder.Close()
		d.awaitLeft(0)
	}
}

// Every line of the log about a client says its name and its owner: syntax errors, kicks, deadlocks, the list of who holds
// what, and the keys that are lost at the end.
func TestNamesInLog(t *testing.T) {
	d := startDaemon(t, nil)
	key, other := d.keysOf(0, 1)[0], d.keysOf(1, 1)[0]
	named := func(name string) *prototest.Client {
		c := d.dial()
		c.Send("name " + name)
		if _, err := c.ReadReply(); err != nil {
			t.Fatal(err)
		}
		c.Do("owner of"+name, "o owned")
		return c
	}
	logged := func(name string, texts ...string) {
		t.Helper()
		texts = append(texts, `"name":"`+name+`"`, `"owner":"of`+name+`"`)
		if n := len(d.log.containing(texts...)); n != 1 {
			t.Errorf("%d lines with %q", n, texts)
		}
	}
	ann, bob, cleo := named("ann"), named("bob"), named("cleo")
	ann.Send("nonsense")
	ann.ExpectEnd()
	logged("ann", "client dropped: syntax error")

	bob.Do("lock "+key+" 0", "l locked")
	cleo.Do("lock "+other+" 0", "l locked")
	if err := d.server.LogHolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	logged("bob", "key held", key)
	bob.Send("lock " + other + " 600000")
	cleo.Send("lock " + key + " 600000")
	d.awaitDeadlocks(1)
	eventually(t, func() error {
		for _, name := range []string{"bob", "cleo"} {
			if len(d.log.containing("deadlock: ", "name "+name+", owner of"+name)) != 1 {
				return fmt.Errorf("no deadlock of %s", name)
			}
		}
		return nil
	})
	if err := d.server.Kick(t.Context(), d.idOf(bob), "a test"); err != nil {
		t.Fatal(err)
	}
	bob.Expect("e kicked")
	logged("bob", "client kicked")
	cleo.Expect("l locked")
	d.stop()
	logged("cleo", "key lost", `"key":"`+key+`"`)
	logged("cleo", "key lost", `"key":"`+other+`"`)
}
