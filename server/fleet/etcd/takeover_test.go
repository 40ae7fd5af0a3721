package etcd

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
	"dreadlock/server/fleet/fleettest"
)

// lives reports whether etcd has a lease.
func (w *world) lives(lease int64) bool {
	w.tb.Helper()
	answer, err := w.client.TimeToLive(w.ctx, clientv3.LeaseID(lease))
	if err != nil {
		w.tb.Fatal(err)
	}
	return answer.TTL > 0
}

// What a store has inherited it can bequeath as it was.
func TestLegacyOfLegacy(t *testing.T) {
	key := []byte("a/\x00/1.2")
	place := func(lease int64, seq uint64) fleet.Place { return fleet.Place{Lease: lease, Seq: seq} }
	want := &fleet.Legacy{
		Greeting: fleet.Greeting{Store: storeName, Name: DefaultPrefix, Space: 5},
		Lease:    7, TTL: 20 * time.Second, Rest: 4 * time.Second, Until: fleet.Now() + time.Minute, Since: time.Now().Round(0),
		Seq: 9, Revision: 1000, Listed: 900, Relist: true,
		Places: []fleet.Change{
			{Key: key, Place: place(7, 2), Revision: 800}, {Key: []byte("b"), Place: place(8, 1), Try: true, Revision: 950},
		},
		Queue: []fleet.Operation{
			{Key: key, Place: place(7, 9), Join: true, Try: true}, {Key: key, Place: place(7, 2)},
			{Key: []byte("b"), Place: place(8, 1), While: 3}, {Key: []byte("c"), Place: place(7, 4), Join: true},
		},
		Unseen: []fleet.Unseen{
			{Operation: fleet.Operation{Key: []byte("c"), Place: place(7, 4), Join: true}},
			{Operation: fleet.Operation{Key: []byte("d"), Place: place(7, 5), Join: true}, Revision: 990},
			{Operation: fleet.Operation{Key: key, Place: place(7, 9), Join: true, Try: true}},
		},
		Daemons:  []fleet.Daemon{{Lease: 7, Address: "a:1", Version: "v", Space: "5", Beat: 12}, {Lease: 8, Address: "b:1"}},
		Beat:     12,
		Counters: map[string]uint64{"transactions": 1, "operations": 2, "repeats": 3, "watch restarts": 4, "lists": 5, "lost " + api.LostTime: 6},
	}
	s, err := New(Config{Endpoints: []string{"x"}, Prefix: DefaultPrefix, TTL: DefaultTTL, Address: func() string { return "" }, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	carried, err := fleettest.Carry(want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inherit(carried); err != nil {
		t.Fatal(err)
	}
	s.suspension = &suspension{session: s.inherited}
	got, err := s.Legacy()
	if err != nil {
		t.Fatal(err)
	}
	for i := range got.Daemons {
		if age := got.Daemons[i].Age; age < 0 || age > time.Minute {
			t.Errorf("the sign of life of a daemon is %s old", age)
		}
		got.Daemons[i].Age = 0
	}
	if !got.Since.Equal(want.Since) {
		t.Errorf("since %s, want %s", got.Since, want.Since)
	}
	got.Since = want.Since
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it bequeaths\n%+v, want\n%+v", got, want)
	}
	if next := s.inherited.watcher.next; next != 0 {
		t.Errorf("it watches from %d, and is to list all", next)
	}
}

// A daemon that is out of touch with its fleet has nothing to hand over, but what it counts: the successor begins a session.
func TestTakeoverOutOfTouch(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	a := w.joinAll(1)[0]
	w.session(a).Lose()
	w.until("the session is lost", func() bool { return len(a.Losses()) == 1 })
	w.session(a)
	w.cluster.Members[0].Kill()
	a.leave()
	a.store = w.newStore(a)
	a.run(w.ctx)
	w.until("the log says that etcd cannot be reached", func() bool { return a.log.has("cannot reach etcd") })
	for range 2 {
		if until := w.suspend(a); until != 0 {
			t.Errorf("grants may be told until %s, and there is no session", until)
		}
		w.takeOver(a)
	}
	if st := a.store.Status(); st.InTouch || st.Reason == "" {
		t.Errorf("the status is %+v", st)
	}
	if err := w.cluster.Members[0].Start(); err != nil {
		t.Fatal(err)
	}
	w.passes()
}

// What a store has counted goes over, and what it shows: the successor has it before it runs.
func TestTakeoverStatus(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	all := w.joinAll(2)
	a := all[0]
	w.session(a).Lose()
	w.until("the loss is counted", func() bool { return a.store.Status().Lost[api.LostPlace] == 1 })
	w.passes()
	other := w.place(all[1], "b", false)
	w.sees(a, "a", w.place(a, "a", false))
	w.sees(a, "b", other)
	w.suspend(a)
	before := a.store.Status()
	l, err := a.store.Legacy()
	if err != nil {
		t.Fatal(err)
	}
	if l, err = fleettest.Carry(l); err != nil {
		t.Fatal(err)
	}
	next := w.newStore(a)
	if _, err := next.Inherit(l); err != nil {
		t.Fatal(err)
	}
	after := next.Status()
	if !after.InTouch || after.Lease != before.Lease || after.Transactions != before.Transactions || after.Lost[api.LostPlace] != 1 ||
		after.AllPlaces != 2 || after.Places != 1 || len(after.Daemons) != 2 || !after.Since.Equal(before.Since) || after.Space != before.Space {
		t.Errorf("the successor shows %+v, and before it was %+v", after, before)
	}
	if address := next.Address(other.Lease); address != "host1:6001" {
		t.Errorf("the other daemon is at %q", address)
	}
	a.store.Resume()
	w.passes()
}

// A store that is suspended when the daemon is stopped waits for the end of the takeover. If there is a successor it must not touch
// the lease any more.
func TestStoppedInTakeover(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	for _, yield := range []bool{true, false} {
		w.members = nil
		m := w.joinAll(1)[0]
		p := w.place(m, "a", false)
		w.sees(m, "a", p)
		w.suspend(m)
		left := make(chan struct{})
		go func() {
			defer close(left)
			m.leave()
		}()
		select {
		case <-left:
			t.Fatal("the store has not waited for the end of the takeover")
		case <-time.After(100 * time.Millisecond):
		}
		if yield {
			m.store.Yield()
		} else {
			m.store.Resume()
		}
		<-left
		if w.lives(p.Lease) != yield {
			t.Errorf("the lease goes over: %t, and it lives: %t", yield, !yield)
		}
		if told := len(m.Losses()) > 0; told == yield {
			t.Errorf("the lease goes over: %t, and the member was told of a loss: %t", yield, told)
		}
	}
}

// A transaction is under way whose answer is lost: Suspend waits for no longer than a call takes. The successor writes it again.
func TestSuspendInSilence(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	relay := newRelay(t, w.cluster.Members[0].URL)
	cfg := w.config()
	cfg.Endpoints = []string{relay.url}
	a := w.join(cfg, newRecorder(t))
	b := w.join(w.config(), newRecorder(t))
	w.passes()
	relay.silence()
	p := w.place(a, "a", false)
	w.sees(b, "a", p) // etcd has it
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := a.store.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a store that cannot stand still in time: %v", err)
	}
	q := w.place(a, "a", false)
	w.suspend(a)
	before, next := a.store, w.newStore(a)
	l, err := before.Legacy()
	if err != nil {
		t.Fatal(err)
	}
	s, err := next.Inherit(l)
	if err != nil {
		t.Fatal(err)
	}
	before.Yield()
	a.GoOn(s)
	a.leave()
	relay.hear()
	a.store = next
	a.run(w.ctx)
	w.sees(a, "a", p)
	w.sees(b, "a", q)
	w.sees(a, "a", q)
	w.passes()
	w.keeps(a, b)
	w.agrees()
}

// A takeover that takes too long: the session is over when the time has come up to which grants could be told.
func TestTakeoverTakesTooLong(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	cfg := w.config()
	cfg.TTL = MinTTL
	a := w.join(cfg, newRecorder(t))
	s := w.session(a)
	before := s.Until()
	until := w.suspend(a)
	l, err := a.store.Legacy()
	if err != nil {
		t.Fatal(err)
	}
	if until <= before {
		t.Errorf("grants may be told until %s, and before it was %s: the lease was not renewed", until, before)
	}
	w.until("the time is up", func() bool { return fleet.Now() > until })
	if s.Until() != until {
		t.Error("a suspended store has renewed its lease")
	}
	if _, err := a.store.Legacy(); err == nil {
		t.Error("a session goes over whose time is up")
	}
	late := newRecorder(t)
	next := w.newStore(a)
	inherited, err := next.Inherit(l)
	if err != nil {
		t.Fatal(err)
	}
	late.Found(inherited)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		next.Run(ctx, late)
	}()
	w.until("the successor loses the session", func() bool { return len(late.Losses()) == 1 })
	w.lost(&member{Recorder: late}, api.LostTime)
	cancel()
	<-ended
	a.store.Resume()
	w.until("the session is lost", func() bool { return len(a.Losses()) == 1 })
	w.lost(a, api.LostTime)
	w.passes()
}

// What a successor cannot go on with it says before anything has happened.
func TestPrepare(t *testing.T) {
	w, other := startWorld(t, etcdtest.Options{Members: 1}), startWorld(t, etcdtest.Options{Members: 1})
	a := w.joinAll(1)[0]
	b := other.joinAll(1)[0]
	g := a.store.Greeting()
	if g.Space == 0 || g.Space != a.store.Space() {
		t.Fatalf("the greeting is %+v", g)
	}
	elsewhere := a.cfg
	elsewhere.Prefix = "/elsewhere"
	nowhere := a.cfg
	nowhere.Endpoints = []string{"http://127.0.0.1:1"}
	for _, test := range []struct {
		cfg  Config
		g    fleet.Greeting
		want string // empty for none
	}{
		{a.cfg, g, ""},
		{b.cfg, g, "--fleet: etcd has the lock space"},
		{elsewhere, g, "--fleet-prefix: /elsewhere is not the fleet of the daemon that runs, which is " + DefaultPrefix},
		{nowhere, g, "cannot reach etcd at http://127.0.0.1:1"},
		{nowhere, fleet.Greeting{Store: g.Store, Name: g.Name}, ""}, // it is out of touch itself
		{a.cfg, fleet.Greeting{Store: "memory"}, "--fleet: the daemon that runs has its fleet on another store"},
	} {
		s, err := New(test.cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Prepare(t.Context(), test.g)
		s.endpoints.close()
		if err == nil != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, %+v: %v, want %q", test.cfg.Endpoints, test.g, err, test.want)
		}
		if strings.HasPrefix(test.want, "--fleet-prefix") {
			if _, err := s.Inherit(&fleet.Legacy{Greeting: test.g}); err == nil {
				t.Error("a session of another fleet is gone on with")
			}
		}
	}
	w.keeps(a)
	other.keeps(b)
}
