package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/fleet/fleettest"
)

// fleetOf starts daemons that share a store.
func fleetOf(tb testing.TB, n int, change func(*Config)) (f *fleettest.Fleet, daemons []*daemon, stores []*fleettest.Store) {
	f = fleettest.NewFleet(10 * time.Second)
	for range n {
		store := f.Store()
		stores = append(stores, store)
		daemons = append(daemons, startDaemon(tb, func(c *Config) {
			c.Fleet = store
			if change != nil {
				change(c)
			}
		}))
	}
	return f, daemons, stores
}

// Clients of different daemons of a fleet share the keys. The tokens of a key rise from daemon to daemon.
func TestFleet(t *testing.T) {
	_, d, _ := fleetOf(t, 3, nil)
	a, b, c := d[0].dial(), d[1].dial(), d[2].dial()
	a.Do("lock k 60000", "l locked")
	b.Do("lock k 0", "t timeout")
	b.Do("unlock k", "e not owner")
	c.Do("fence k", "e not owner")
	b.Do("unlock other", "e not locked")
	c.Do("lock k 1", "t timeout")
	b.Send("lock k 60000")
	d[1].awaitWaiters(1)
	first := fenceOf(t, a, "k")
	a.Do("unlock k", "u unlocked")
	b.Expect("l locked")
	if next := fenceOf(t, b, "k"); next <= first {
		t.Errorf("the token %d follows on %d", next, first)
	}
	c.Send("lock k 60000")
	d[2].awaitWaiters(1)
	b.Reset()
	c.Expect("l locked")
	c.Do("name c", fmt.Sprintf("n named %d %016x", d[2].server.cfg.silence().Milliseconds(), 0xf1ee7))
}

func fenceOf(t *testing.T, c *prototest.Client, key string) (n uint64) {
	t.Helper()
	c.Send("fence " + key)
	line, err := c.ReadReply()
	if _, scanErr := fmt.Sscanf(line, "f %d", &n); err != nil || scanErr != nil {
		t.Fatalf("fence: %q, %v", line, err)
	}
	return n
}

// Who ends his side has the answers to what needs no waiting, although each of these has to wait for the store.
func TestFleetHalfClose(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			_, d, _ := fleetOf(t, 2, func(c *Config) { c.Loops = loops })
			for i := range 8 {
				c := d[0].dial()
				c.Send(fmt.Sprintf("lock a%d 60000", i), fmt.Sprintf("lock b%d 0", i), fmt.Sprintf("unlock c%d", i), fmt.Sprintf("unlock a%d", i))
				c.CloseWrite()
				c.Expect("l locked", "l locked", "e not locked", "u unlocked")
				c.ExpectEnd()
			}
		})
	}
}

// A daemon whose lease is gone drops all who hold or wait, and serves them again when they come back. The loss has its own reason.
func TestFleetLoss(t *testing.T) {
	f, d, stores := fleetOf(t, 2, nil)
	holder, waiter, idle, other := d[0].dial(), d[0].dial(), d[0].dial(), d[1].dial()
	holder.Do("lock k 60000", "l locked")
	idle.Do("unlock x", "e not locked")
	waiter.Send("lock k 60000")
	d[0].awaitWaiters(1)
	other.Send("lock k 60000")
	d[1].awaitWaiters(1)
	f.Revoke(stores[0])
	holder.ExpectEnd()
	waiter.ExpectEnd()
	other.Expect("l locked")
	idle.Do("lock k 0", "t timeout")
	st, err := d[0].server.Status(t.Context())
	if err != nil || st.Counters.Disconnects[api.OutOfTouch] != 2 || st.HeldKeys != 0 || st.Waiters != 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
	page, err := d[0].server.Events(t.Context(), &api.EventQuery{Key: "k"})
	if err != nil || len(page.Events) < 2 || page.Events[1].Kind != api.EventLost || page.Events[1].Reason != api.OutOfTouch {
		t.Errorf("events: %+v, %v", page, err)
	}
}

// What another daemon has is shown as such, and is none of the keys that are held here.
func TestFleetElsewhere(t *testing.T) {
	_, d, _ := fleetOf(t, 2, nil)
	a, b := d[0].dial(), d[1].dial()
	a.Do("lock k 60000", "l locked")
	b.Do("lock k 0", "t timeout")
	k, err := d[1].server.Key(t.Context(), "k", 10)
	if err != nil || k.Holder.Daemon != "1" && k.Holder.Daemon != "2" || !strings.HasPrefix(k.Holder.Address, "daemon") || k.Holder.Connection != 0 {
		t.Fatalf("key: %+v, %v", k, err)
	}
	if st, err := d[1].server.Status(t.Context()); err != nil || st.HeldKeys != 0 || st.OldestHoldSeconds != 0 ||
		st.Fleet.Lines != 1 || st.Fleet.Tries != 1 {
		t.Errorf("status: %+v, %v", st, err)
	}
	if _, err := d[1].server.Release(t.Context(), &api.ReleaseQuery{Key: "k"}); !errors.Is(err, api.ErrConflict) ||
		!strings.Contains(err.Error(), "daemon "+k.Holder.Daemon+" ("+k.Holder.Address+")") {
		t.Errorf("release: %v", err)
	}
	b.Send("lock k 60000")
	d[1].awaitWaiters(1)
	if _, err := d[0].server.Release(t.Context(), &api.ReleaseQuery{Key: "k"}); err != nil {
		t.Errorf("release: %v", err)
	}
	b.Expect("l locked")
	a.Do("fence k", "e not owner")
	page, err := d[0].server.Events(t.Context(), &api.EventQuery{Key: "k"})
	if err != nil || len(page.Events) != 3 || page.Events[2].Kind != api.EventElsewhere || page.Events[2].Daemon == "" ||
		page.Events[0].Token>>20 == 0 || page.Events[0].Token != page.Events[1].Token {
		t.Errorf("events: %+v, %v", page, err)
	}
}

// A daemon that drains leaves the places that nobody needs, and ends when its clients are done, whatever others hold.
func TestFleetDrain(t *testing.T) {
	f, d, _ := fleetOf(t, 2, nil)
	a, b, other := d[0].dial(), d[0].dial(), d[1].dial()
	b.Do("lock idle 0", "l locked")
	b.Do("unlock idle", "u unlocked")
	a.Do("lock k 60000", "l locked")
	other.Do("lock elsewhere 0", "l locked")
	if n := f.Places(); n != 3 {
		t.Errorf("%d places, want 3", n)
	}
	if err := d[0].server.BeginDrain(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if n := f.Places(); n != 2 {
			return fmt.Errorf("%d places, want 2", n)
		}
		return nil
	})
	other.Send("lock k 60000")
	d[1].awaitWaiters(1)
	a.Do("unlock k", "u unlocked")
	other.Expect("l locked")
	d[0].ended()
}
