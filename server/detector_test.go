package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// status returns the status of the server.
func (d *daemon) status() *api.Status {
	d.tb.Helper()
	st, err := patiently(func() (*api.Status, error) { return d.server.Status(context.Background()) })
	if err != nil {
		d.tb.Fatal(err)
	}
	return st
}

// awaitWaiters waits until n clients wait for a key.
func (d *daemon) awaitWaiters(n int) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if got := d.status().Waiters; got != n {
			return fmt.Errorf("%d waiters, want %d", got, n)
		}
		return nil
	})
}

// deadlocks returns the deadlocks that the server knows.
func (d *daemon) deadlocks() *api.Deadlocks {
	d.tb.Helper()
	known, err := d.server.Deadlocks(context.Background())
	if err != nil {
		d.tb.Fatal(err)
	}
	return known
}

// awaitDeadlocks waits until n deadlocks stand.
func (d *daemon) awaitDeadlocks(n int) *api.Deadlocks {
	d.tb.Helper()
	var known *api.Deadlocks
	eventually(d.tb, func() error {
		if known = d.deadlocks(); len(known.Cycles) != n {
			return fmt.Errorf("%d deadlocks stand, want %d", len(known.Cycles), n)
		}
		return nil
	})
	return known
}

// ring is a number of clients of which each holds a key and waits for that of the next.
type ring struct {
	clients []*prototest.Client
	ids     []api.ConnectionID
	keys    []string
}

// makeRing makes one of a client for each loop of loops, which holds a key of that loop. The waits begin in the order
// given, the last one with a timeout of its own.
func (d *daemon) makeRing(loops, order []int, timeout int) *ring {
	d.tb.Helper()
	r := &ring{}
	for i, loop := range loops {
		c := d.dialOn(loop)
		key := d.keysOf(loop, i+1)[i]
		r.clients, r.ids, r.keys = append(r.clients, c), append(r.ids, d.idOf(c)), append(r.keys, key)
		c.Do("lock "+key+" 0", "l locked")
	}
	for n, i := range order {
		ms := 300000
		if n == len(order)-1 {
			ms = timeout
		}
		r.clients[i].Send("lock " + r.next(i) + " " + strconv.Itoa(ms))
		if n < len(order)-1 {
			d.awaitWaiters(n + 1) // so that this one is older than the next
		}
	}
	return r
}

// next returns the key that a client of the ring waits for.
func (r *ring) next(i int) string { return r.keys[(i+1)%len(r.keys)] }

// leave ends all clients of the ring.
func (r *ring) leave(d *daemon) {
	for _, c := range r.clients {
		c.Close()
	}
	d.awaitLeft(0)
}

var rings = []struct {
	name         string
	loops, order []int
}{
	{"two on one loop", []int{0, 0}, []int{0, 1}},
	{"two on two loops", []int{0, 1}, []int{1, 0}},
	{"three on two loops", []int{0, 1, 1}, []int{1, 2, 0}},
}

// A deadlock is reported once, and forgotten when it is over, however it ends.
func TestDeadlocks(t *testing.T) {
	d := startDaemon(t, nil)
	found := uint64(0)
	ends := []func(r *ring){
		func(r *ring) { r.clients[0].Close() },
		func(r *ring) { r.clients[1].Reset() },
		func(r *ring) {
			if err := d.server.Kick(context.Background(), r.ids[0], "a test"); err != nil {
				t.Errorf("kick: %v", err)
			}
		},
	}
	for i, test := range rings {
		t.Run(test.name, func(t *testing.T) {
			r := d.makeRing(test.loops, test.order, 300000)
			found++
			known := d.awaitDeadlocks(1)
			cycle := known.Cycles[0]
			if known.Found != found || cycle.ID != found || known.Broken != 0 || known.Breaking {
				t.Errorf("got %+v, want number %d", known, found)
			}
			if st := d.status(); st.Deadlocks != 1 || st.Counters.DeadlocksFound != found || st.Waiters != len(r.clients) {
				t.Errorf("status: %+v", st)
			}
			if len(cycle.Waits) != len(r.clients) {
				t.Fatalf("got %+v, want %d waits", cycle, len(r.clients))
			}
			youngest := test.order[len(test.order)-1]
			if last := cycle.Waits[len(cycle.Waits)-1]; last.Connection != r.ids[youngest] {
				t.Errorf("the last is %d, want the youngest, %d", last.Connection, r.ids[youngest])
			}
			for _, w := range cycle.Waits {
				k := slices.Index(r.ids, w.Connection)
				if k < 0 {
					t.Fatalf("%d is none of %v", w.Connection, r.ids)
				}
				next := (k + 1) % len(r.ids)
				address := r.clients[k].Conn().LocalAddr().String()
				if w.WaitsFor != r.next(k) || w.HeldBy != r.ids[next] || w.Address != address || w.WaitedSeconds <= 0 {
					t.Errorf("got %+v, want a wait for %s of %d, from %s", w, r.next(k), r.ids[next], address)
				}
			}
			ends[i](r)
			d.awaitDeadlocks(0)
			if st := d.status(); st.Deadlocks != 0 || st.Counters.DeadlocksFound != found {
				t.Errorf("status: %+v", st)
			}
			// The looks that found it again, and at last did not, have not logged it again.
			if lines := d.log.containing(`"deadlock":`); len(lines) != int(found) {
				t.Errorf("got %q, want %d lines", lines, found)
			}
			for k := range r.ids {
				wait := fmt.Sprintf("connection %d (%s) waits for %s, held by %d",
					r.ids[k], r.clients[k].Conn().LocalAddr(), r.next(k), r.ids[(k+1)%len(r.ids)])
				if lines := d.log.containing("deadlock: ", wait); len(lines) != 1 {
					t.Errorf("got %q, want one line with %q", lines, wait)
				}
			}
			r.leave(d)
		})
	}
}

// A deadlock ends by the timeout of one of its waits.
func TestDeadlockTimesOut(t *testing.T) {
	d := startDaemon(t, nil)
	for timeout := 500; ; timeout *= 2 { // where the machine is so slow that it was not found in time
		r := d.makeRing([]int{0, 1}, []int{0, 1}, timeout)
		r.clients[1].Expect("t timeout")
		found := d.deadlocks().Found
		if found == 0 && timeout < 10000 {
			r.leave(d)
			continue
		}
		if found != 1 {
			t.Errorf("%d deadlocks were found, want 1", found)
		}
		d.awaitDeadlocks(0)
		r.clients[1].Do("unlock "+r.keys[1], "u unlocked")
		r.clients[0].Expect("l locked")
		return
	}
}

// Several deadlocks stand side by side, and those who wait for their parties are part of none.
func TestDeadlocksSideBySide(t *testing.T) {
	d := startDaemon(t, nil)
	const n = 4
	keys := d.keysOf(0, n)
	other := d.keysOf(1, 2*n)
	var pairs [][2]*prototest.Client
	for i := range n {
		a, b, tail := d.dial(), d.dial(), d.dial()
		a.Do("lock "+keys[i]+" 0", "l locked")
		b.Do("lock "+other[i]+" 0", "l locked")
		tail.Do("lock "+other[n+i]+" 0", "l locked")
		a.Send("lock " + other[i] + " 300000")
		b.Send("lock " + keys[i] + " 300000")
		d.awaitWaiters(3*i + 2)
		tail.Send("lock " + keys[i] + " 300000")
		d.awaitWaiters(3*i + 3)
		pairs = append(pairs, [2]*prototest.Client{a, b})
	}
	known := d.awaitDeadlocks(n)
	for i, c := range known.Cycles {
		if c.ID != uint64(i+1) || len(c.Waits) != 2 {
			t.Errorf("cycle %d: %+v, want two waits, and the oldest first", i, c)
		}
	}
	pairs[2][0].Close()
	pairs[2][1].Expect("l locked")
	if known = d.awaitDeadlocks(n - 1); known.Found != n {
		t.Errorf("%d were found, want %d", known.Found, n)
	}
}

// The youngest wait is answered with an error, and nobody else's. The client keeps what it holds, and goes on.
func TestBreakDeadlocks(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.BreakDeadlocks = true })
	for i, test := range rings {
		t.Run(test.name, func(t *testing.T) {
			r := d.makeRing(test.loops, test.order, 300000)
			n := len(r.clients)
			youngest := test.order[n-1]
			c := r.clients[youngest]
			c.Expect("e deadlock")
			c.Do("lock "+r.keys[youngest]+" 0", "e already locked")
			c.Do("unlock "+r.next(youngest), "e not owner")
			c.Do("lock "+r.next(youngest)+" 0", "t timeout")
			known := d.awaitDeadlocks(0)
			if !known.Breaking || known.Found != uint64(i+1) || known.Broken != uint64(i+1) {
				t.Errorf("got %+v, want %d found and broken", known, i+1)
			}
			st := d.status()
			if st.Waiters != n-1 || st.HeldKeys != n {
				t.Errorf("%d waiters and %d held keys, want %d and %d", st.Waiters, st.HeldKeys, n-1, n)
			}
			if got := commandCounts(st)["lock deadlock"]; got != uint64(i+1) {
				t.Errorf("%d locks were answered with a deadlock, want %d", got, i+1)
			}
			c.Do("unlock "+r.keys[youngest], "u unlocked")
			for k := (youngest + n - 1) % n; k != youngest; k = (k + n - 1) % n { // each waits for what the one before gives up
				r.clients[k].Expect("l locked")
				r.clients[k].Do("unlock "+r.keys[k], "u unlocked")
			}
			c.Do("lock "+r.next(youngest)+" 0", "l locked")
			if lines := d.log.containing(`"deadlock":`); len(lines) != i+1 {
				t.Errorf("got %q, want %d lines", lines, i+1)
			}
			r.leave(d)
		})
	}
}

// commandCounts returns the counters of commands, by kind and outcome.
func commandCounts(st *api.Status) map[string]uint64 {
	counts := make(map[string]uint64)
	for _, c := range st.Counters.Commands {
		counts[c.Kind+" "+c.Outcome] = c.Count
	}
	return counts
}

// suspects returns how many waits the loops suspect.
func (d *daemon) suspects() (n int) {
	d.tb.Helper()
	found, missing := eachShard(context.Background(), d.server, d.server.shards, func(sh *shard, n *int) (more bool) {
		*n = sh.suspects.len()
		return false
	})
	if missing > 0 {
		d.tb.Fatalf("%d loops are missing", missing)
	}
	for _, k := range found {
		n += *k
	}
	return n
}

// A session that holds nothing while it waits is no suspect: clients that use one key each cost the detector nothing.
func TestNoSuspects(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 1), d.keysOf(1, 1)...)
	holder := d.dial()
	var waiters []*prototest.Client
	for _, key := range keys {
		holder.Do("lock "+key+" 0", "l locked")
		for range 3 {
			c := d.dial()
			c.Do("lock "+key+"x 0", "l locked") // what was given up does not count
			c.Do("unlock "+key+"x", "u unlocked")
			c.Send("lock " + key + " 300000")
			waiters = append(waiters, c)
			d.awaitWaiters(len(waiters))
			if n, tokens := d.suspects(), len(d.server.detector.wanted); n != 0 || tokens != 0 {
				t.Fatalf("%d suspects, %d tokens, want none", n, tokens)
			}
		}
	}
	for i, key := range keys {
		both := d.dial()
		both.Do("lock "+key+"y 0", "l locked")
		both.Send("lock " + key + " 300000")
		d.awaitWaiters(len(waiters) + 1)
		if n := d.suspects(); n != 1 {
			t.Fatalf("%d suspects, want the one that holds a key", n)
		}
		if i == 0 {
			both.Close()
			d.awaitWaiters(len(waiters))
			if n := d.suspects(); n != 0 {
				t.Fatalf("%d suspects, and the only one has left", n)
			}
			continue
		}
		holder.Close()
		for _, c := range waiters {
			c.Expect("l locked")
			c.Close()
		}
		both.Expect("l locked")
		if n := d.suspects(); n != 0 {
			t.Fatalf("%d suspects, and the only one has its key", n)
		}
	}
}

// identify gives the connection of a client a name and an owner.
func (d *daemon) identify(c *prototest.Client, name, owner string) {
	d.tb.Helper()
	c.Send("name " + name)
	if reply, err := c.ReadReply(); err != nil || !strings.HasPrefix(reply, "n named ") {
		d.tb.Fatalf("the reply to name is %q (%v)", reply, err)
	}
	c.Do("owner "+owner, "o owned")
}

// Owners that wait on one connection, and hold on another what the next owner waits for, are a deadlock. It is shown with
// their names.
func TestDeadlocksOfOwners(t *testing.T) {
	for _, test := range rings {
		t.Run(test.name, func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.BreakDeadlocks = true })
			// A ring whose parties are pairs of connections: one of a pair holds a key, the other one waits for the next key.
			n := len(test.loops)
			var holders, waiters []*prototest.Client
			var keys []string
			for i, loop := range test.loops {
				holder, waiter := d.dial(), d.dialOn(loop)
				holders, waiters, keys = append(holders, holder), append(waiters, waiter), append(keys, d.keysOf(loop, i+1)[i])
				holder.Do("lock "+keys[i]+" 0", "l locked")
				for k, c := range []*prototest.Client{holder, waiter} {
					d.identify(c, fmt.Sprintf("job%d-%d", i, k), fmt.Sprintf("owner%d", i))
				}
			}
			for k, i := range test.order {
				waiters[i].Send("lock " + keys[(i+1)%n] + " 300000")
				if k < n-1 {
					d.awaitWaiters(k + 1)
				}
			}
			youngest := test.order[n-1]
			waiters[youngest].Expect("e deadlock")
			known := d.awaitDeadlocks(0)
			if known.Found != 1 || known.Broken != 1 {
				t.Errorf("got %+v, want one found and broken", known)
			}
			lines := d.log.containing("deadlock: ")
			for i := range n {
				next := (i + 1) % n
				want := fmt.Sprintf("connection %d (%s, name job%d-1, owner owner%d) waits for %s, held by %d of owner owner%d",
					d.idOf(waiters[i]), waiters[i].Conn().LocalAddr(), i, i, keys[next], d.idOf(holders[next]), next)
				if len(lines) != 1 || !strings.Contains(lines[0], want) {
					t.Errorf("got %q, want one line with %q", lines, want)
				}
			}
			want := api.Peer{Connection: d.idOf(holders[0]), Address: holders[0].Conn().LocalAddr().String(), Name: "job0-0", Owner: "owner0"}
			if got := d.connectionOf(holders[0].Conn()).Peer; got != want {
				t.Errorf("got the connection %+v, want %+v", got, want)
			}
			if got := d.key(keys[0]).Holder; got != want {
				t.Errorf("got the holder %+v, want %+v", got, want)
			}
		})
	}
}

// An owner that waits for itself is a deadlock of one wait. Another owner that waits for the same key is not part of it.
func TestDeadlockOfOneOwner(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 1), d.keysOf(1, 1)...)
	one, two, other := d.dial(), d.dial(), d.dial()
	d.identify(one, "one", "x")
	d.identify(two, "two", "y")
	d.identify(other, "other", "z")
	one.Do("lock "+keys[0]+" 0", "l locked")
	other.Do("lock "+keys[1]+" 0", "l locked")
	two.Send("lock " + keys[0] + " 300000")
	d.awaitWaiters(1)
	other.Send("lock " + keys[0] + " 300000")
	d.awaitWaiters(2)
	d.server.detector.search(context.Background())
	if known := d.deadlocks(); known.Found != 0 {
		t.Fatalf("three owners, none of which waits for itself, and there is %+v", known)
	}
	d.identify(one, "one", "y") // nobody begins to wait
	known := d.awaitDeadlocks(1)
	waits := known.Cycles[0].Waits
	if len(waits) != 1 || waits[0].Connection != d.idOf(two) || waits[0].HeldBy != d.idOf(one) || waits[0].WaitsFor != keys[0] ||
		waits[0].Name != "two" || waits[0].Owner != "y" {
		t.Errorf("got %+v, want two to wait for one", waits)
	}
	one.Close()
	two.Expect("l locked")
	d.awaitDeadlocks(0)
}

// A grant may close a cycle, too: the key goes to a connection whose owner waits elsewhere, for one that is next in the queue.
func TestDeadlockByGrant(t *testing.T) {
	d := startDaemon(t, nil)
	keys := append(d.keysOf(0, 1), d.keysOf(1, 1)...)
	holder, granted, elsewhere, next := d.dial(), d.dial(), d.dial(), d.dial()
	d.identify(granted, "granted", "x")
	d.identify(elsewhere, "elsewhere", "x")
	holder.Do("lock "+keys[0]+" 0", "l locked")
	next.Do("lock "+keys[1]+" 0", "l locked")
	for i, c := range []*prototest.Client{granted, next, elsewhere} {
		c.Send("lock " + keys[min(i/2, 1)] + " 300000")
		d.awaitWaiters(i + 1)
	}
	d.server.detector.search(context.Background())
	if known := d.deadlocks(); known.Found != 0 {
		t.Fatalf("the holder does not wait, and there is %+v", known)
	}
	holder.Do("unlock "+keys[0], "u unlocked")
	granted.Expect("l locked")
	d.awaitDeadlocks(1)
}

// Everything that may close a cycle notifies the detector.
func TestNotify(t *testing.T) {
	c := newCrowd(2)
	d := c.shards[0].server.detector
	notified := func() bool {
		select {
		case <-d.wanted:
			return true
		default:
			return false
		}
	}
	want := func(what string, want bool) {
		t.Helper()
		if got := notified(); got != want {
			t.Errorf("%s: notified: %t, want %t", what, got, want)
		}
	}
	a, b, e := c.sessions[0], c.sessions[1], c.sessions[2]
	a.session.roster = &roster{worker: c.shards[0].worker}
	c.lock(a, 0)
	c.lock(b, 0)
	want("one waits that holds nothing", false)
	a.session.keys = 0
	a.session.setOwner("x")
	want("a session that holds nothing gets an owner", false)
	a.session.keys = 1
	a.session.setOwner("x")
	want("the owner that it has", false)
	a.session.setOwner("y")
	want("a session that holds a key gets an owner", true)
	c.lock(e, 1)
	c.lock(e, 0)
	want("one waits that holds a key", true)
	c.unlock(a, 0)
	c.settle(c.shards[0])
	want("a grant to one without an owner", false)
	a.session.keys = 0
	c.lock(a, 1)
	want("one waits that has an owner", true)
	c.unlock(e, 1)
	c.settle(c.shards[1])
	want("a grant to one with an owner", true)
}

// A break that its loop does not get to in time is not made later, when the deadlock may be over; the deadlock still stands.
func TestLostBreak(t *testing.T) {
	d := startDaemon(t, nil)
	r := d.makeRing([]int{0, 1}, []int{0, 1}, 300000)
	d.awaitDeadlocks(1)
	standing, _ := d.server.detector.known()
	late, cancel := context.WithCancel(context.Background())
	cancel()
	d.server.detector.breakUp(late, standing[0])
	if st := d.status(); st.Waiters != 2 || st.Deadlocks != 1 { // the loops have done by now what they were sent before
		t.Errorf("%d waiters and %d deadlocks, want 2 and 1", st.Waiters, st.Deadlocks)
	}
	d.server.detector.breakUp(context.Background(), standing[0])
	r.clients[1].Expect("e deadlock")
	if known := d.awaitDeadlocks(0); known.Broken != 1 {
		t.Errorf("%d were broken, want 1", known.Broken)
	}
}

// A deadlock that cannot be broken because a loop is busy still stands, and is broken when the loop is free.
func TestBreakOnBusyLoop(t *testing.T) {
	d, g := startGated(t, func(cfg *Config) { cfg.BreakDeadlocks = true })
	held, open := g.hold("deadlock: ")
	t.Cleanup(open)
	r := d.makeRing([]int{0, 1}, []int{0, 1}, 300000)
	wait := func(what string, c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(prototest.Patience):
			t.Fatal(what)
		}
	}
	wait("the deadlock is not reported", held)

	// The youngest wait is for a key of loop 0.
	busy, release := make(chan struct{}), make(chan struct{})
	var task sync.WaitGroup
	task.Go(func() {
		eachShard(context.Background(), d.server, d.server.shards[:1], func(*shard, *struct{}) (more bool) {
			close(busy)
			<-release
			return false
		})
	})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	wait("the loop does no task", busy)
	open()
	eventually(t, func() error {
		if len(g.containing("not broken yet")) == 0 {
			return errors.New("nothing says that the deadlock is not broken")
		}
		return nil
	})
	if known := d.deadlocks(); len(known.Cycles) != 1 || known.Broken != 0 {
		t.Errorf("got %+v, want the deadlock to stand", known)
	}
	free()
	task.Wait()
	r.clients[1].Expect("e deadlock")
	if known := d.awaitDeadlocks(0); known.Found != 1 || known.Broken != 1 {
		t.Errorf("got %+v, want one found and broken", known)
	}
}

// A search that fails because a loop does not answer is made again.
func TestFailedLook(t *testing.T) {
	srv, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	srv.shards = []*shard{{}} // of a loop that does not run
	srv.detector.search(context.Background())
	if len(srv.detector.wanted) != 1 {
		t.Error("the suspects are forgotten")
	}
}
