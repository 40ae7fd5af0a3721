package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// lost fails the test unless the sessions of a member were lost for these reasons.
func (w *world) lost(m *member, reasons ...string) {
	w.tb.Helper()
	var got []string
	for _, err := range m.Losses() {
		var end *endError
		if !errors.As(err, &end) {
			w.tb.Fatalf("a session was lost: %v", err)
		}
		got = append(got, end.reason)
	}
	if !slices.Equal(got, reasons) {
		w.tb.Errorf("sessions were lost for %v, want %v", m.Losses(), reasons)
	}
}

// agrees waits until all members know what etcd has.
func (w *world) agrees() {
	w.tb.Helper()
	n := newNames(DefaultPrefix)
	for _, m := range w.members {
		w.until("a member knows what etcd has", func() bool {
			answer, err := w.client.Get(w.ctx, n.places, clientv3.WithPrefix())
			if err != nil || int(answer.Count) != m.Places() {
				return false
			}
			for _, kv := range answer.Kvs {
				if key, p, ok := n.parsePlace(kv.Key); !ok || !sees(m, string(key), p) {
					return false
				}
			}
			return true
		})
	}
}

// All of etcd is silent: nothing may be told when the time of the lease is up, and the clients are dropped in time. Then everything
// begins anew.
func TestEtcdGone(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	cfg := w.config()
	cfg.TTL = MinTTL
	for range 2 {
		w.join(cfg, newRecorder(t))
	}
	w.passes()
	a, b := w.members[0], w.members[1]
	p := w.place(a, "a", false)
	w.sees(b, "a", p)
	before := w.session(a)
	var until time.Duration
	for _, m := range w.cluster.Members {
		m.Pause()
	}
	w.until("the session is lost", func() bool {
		if u := before.Until(); u != 0 {
			until = u
		}
		return len(a.Losses()) > 0 && len(b.Losses()) > 0
	})
	if now := fleet.Now(); now < until {
		t.Errorf("it was lost %s before its time", until-now)
	}
	w.lost(a, api.LostTime)
	w.lost(b, api.LostTime)
	if st := a.store.Status(); st.InTouch || !strings.Contains(st.Reason, "etcd") {
		t.Errorf("the status is %+v", st)
	}
	w.until("the loss is counted", func() bool { return a.store.Status().Lost[api.LostTime] == 1 })
	w.until("the log says that etcd cannot be reached", func() bool { return a.log.has("cannot reach etcd at " + w.cluster.Members[0].URL) })
	for _, m := range w.cluster.Members {
		m.Resume()
	}
	if next := w.session(a); next.Lease() == before.Lease() {
		t.Error("the next session has the lease of the one before")
	}
	w.misses(a, "a", p)
	w.passes()
	w.agrees()
}

// Each member of etcd is killed in turn, also the one that leads and the one that a store talks to. Nobody loses a session.
func TestMemberKilled(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	all := w.joinAll(2)
	held := w.place(all[0], "held", false)
	for _, m := range w.cluster.Members {
		m.Kill()
		w.passes()
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		w.leader()
		w.until("the member is back", func() bool {
			_, err := w.client.Status(w.ctx, m.URL)
			return err == nil
		})
		w.passes()
	}
	w.keeps(all...)
	w.sees(all[1], "held", held)
	w.agrees()
}

// Each member of etcd hangs in turn, with its connections open. The stores go on at the others.
func TestMemberHangs(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	all := w.joinAll(2)
	held := w.place(all[0], "held", false)
	for _, m := range w.cluster.Members {
		m.Pause()
		w.passes()
		m.Resume()
		w.leader()
		w.passes()
	}
	w.keeps(all...)
	w.sees(all[1], "held", held)
	w.agrees()
	if all[0].store.Status().WatchRestarts == 0 || !all[0].log.has("etcd does not answer here") {
		t.Error("a member hung, and the store has nothing to say of it")
	}
}

// Leaders move, and history is compacted all the time, while places come and go.
func TestLeaderMovesAndCompaction(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	all := w.joinAll(3)
	stop := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if answer, err := w.client.Get(w.ctx, "x"); err == nil {
				w.client.Compact(w.ctx, answer.Header.Revision)
			}
		}
	})
	for round := range 12 {
		w.passes()
		if round%3 == 0 {
			w.moveLeader()
		}
		if round%4 == 1 {
			m := w.cluster.Members[round%len(w.cluster.Members)]
			m.Kill()
			w.passes()
			m.Start()
		}
	}
	close(stop)
	helpers.Wait()
	w.passes()
	w.keeps(all...)
	w.agrees()
}

// moveLeader has another member lead.
func (w *world) moveLeader() {
	w.tb.Helper()
	leader := w.leader()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{leader.URL}})
	if err != nil {
		w.tb.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	members, err := client.MemberList(ctx)
	if err != nil {
		return // there is no leader at this moment: it moves
	}
	for _, m := range members.Members {
		if m.Name != leader.Name {
			client.MoveLeader(ctx, m.ID)
			return
		}
	}
}

// The watch is silent while history is compacted, and so all has to be listed. A try that came and went meanwhile is asked for again.
func TestListAfterCompaction(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	relays, cfg := w.relays()
	b := w.joinAll(1)[0]
	a := w.join(cfg, newRecorder(t))
	w.session(a)
	gone, stays := w.place(b, "gone", false), w.place(b, "stays", false)
	w.sees(a, "gone", gone)
	w.sees(a, "stays", stays)
	for _, r := range relays {
		r.silence()
	}
	try := w.place(a, "stays", true)
	w.sees(b, "stays", try)
	w.session(b).Refuse([]byte("stays"), try, stays.Seq)
	w.misses(b, "stays", try)
	w.session(b).Leave([]byte("gone"), gone.Seq)
	w.misses(b, "gone", gone)
	later := w.place(b, "later", false)
	w.sees(b, "later", later)
	answer, err := w.client.Get(w.ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Compact(w.ctx, answer.Header.Revision); err != nil {
		t.Fatal(err)
	}
	for _, r := range relays {
		r.hear()
	}
	w.misses(a, "gone", gone)
	w.sees(a, "later", later)
	w.sees(a, "stays", try)
	w.sees(b, "stays", try)
	w.keeps(a, b)
	w.agrees()
	if st := a.store.Status(); st.Lists < 2 {
		t.Errorf("all was listed %d times, want twice", st.Lists)
	}
}

// relays stand between a store and all members.
func (w *world) relays() (all []*relay, cfg Config) {
	cfg = w.config()
	for i, m := range w.cluster.Members {
		r := newRelay(w.tb, m.URL)
		all = append(all, r)
		cfg.Endpoints[i] = r.url
	}
	return all, cfg
}

// What is written gets to etcd, and the answer does not come back. It is written again at another endpoint, and there once.
func TestLostAnswer(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	relays, cfg := w.relays()
	b := w.joinAll(1)[0]
	a := w.join(cfg, newRecorder(t))
	w.session(a)
	w.passes()
	for i := range relays {
		relays[i].silence()
		key := fmt.Sprintf("a%d", i)
		p := w.place(a, key, false)
		w.sees(b, key, p)
		w.sees(a, key, p)
		w.session(a).Leave([]byte(key), p.Seq)
		w.misses(b, key, p)
		w.misses(a, key, p)
		relays[i].hear()
	}
	w.passes()
	w.keeps(a, b)
	w.agrees()
	if a.store.Status().Repeats == 0 {
		t.Error("nothing was written again")
	}
	for i := range relays {
		if n := len(b.Came(fmt.Sprintf("a%d", i))); n != 1 {
			t.Errorf("place %d came %d times", i, n)
		}
	}
}

// A try is written, refused, and written again, as no answer has come. Its daemon sees it in the end, and can leave it.
func TestLostAnswerOfRefused(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	relays, cfg := w.relays()
	b := w.joinAll(1)[0]
	a := w.join(cfg, newRecorder(t))
	w.session(a)
	p := w.place(b, "a", false)
	w.sees(a, "a", p)
	for _, r := range relays {
		r.silence()
	}
	try := w.place(a, "a", true)
	w.sees(b, "a", try)
	w.session(b).Refuse([]byte("a"), try, p.Seq)
	w.misses(b, "a", try)
	for _, r := range relays {
		r.hear()
	}
	w.sees(a, "a", try)
	w.session(b).Refuse([]byte("a"), try, p.Seq)
	w.misses(a, "a", try)
	w.passes()
	w.keeps(a, b)
	w.agrees()
}

// The watch says nothing any more, without an error. Signs of life that are written elsewhere show that, and it is begun anew.
func TestWatchHangs(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	relays, cfg := w.relays()
	a := w.join(cfg, newRecorder(t))
	b := w.joinAll(1)[0]
	w.session(a)
	w.passes()
	a.store.endpoints.current.Store(1) // only the watch is where nothing is heard of
	relays[0].silence()
	p := w.place(b, "a", false)
	w.sees(a, "a", p)
	w.until("the log says that the watch hangs", func() bool { return a.log.has("it hangs: what was written") })
	if st := a.store.Status(); st.WatchRestarts == 0 {
		t.Errorf("the watch was not begun anew: %+v", st)
	}
	w.keeps(a, b)
	relays[0].hear()
	w.passes()
	w.agrees()
}

// Places are counted now and then. If there are more than are known, or fewer, all are listed.
func TestEventsLost(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	a := w.joinAll(1)[0]
	w.passes()
	before := a.store.Status().Lists
	se := w.session(a).(*session)
	se.counted <- counted{revision: 1, want: 1, have: 1}
	if n := a.store.Status().Lists; n != before {
		t.Errorf("all was listed %d times, want %d", n, before)
	}
	se.counted <- counted{revision: 1, want: 1, have: 2}
	w.until("all is listed", func() bool { return a.store.Status().Lists == before+1 })
	if !a.log.has("events were lost: there are 2 places, and 1 are known") {
		t.Error("the log does not say that events were lost")
	}
	w.passes()
	w.keeps(a)
	var c counted
	se.count(w.ctx, counted{revision: se.view.revision, want: 7})
	select {
	case c = <-se.counted:
	default: // the session has taken it
	}
	if c.have > 1 {
		t.Errorf("%d places were counted, there is none", c.have)
	}
}

// The database of etcd is full: nothing is lost, places are left and refused, and those that are asked for come when there is room again.
func TestDatabaseFull(t *testing.T) {
	const quota = 16 << 20
	w := startWorld(t, etcdtest.Options{Members: 1, Args: []string{"--quota-backend-bytes", fmt.Sprint(quota)}})
	all := w.joinAll(2)
	a, b := all[0], all[1]
	p, kept := w.place(a, "p", false), w.place(a, "kept", false)
	try := w.place(b, "kept", true)
	for _, m := range all {
		w.sees(m, "p", p)
		w.sees(m, "kept", kept)
		w.sees(m, "kept", try)
	}
	ballast := strings.Repeat("x", 1<<20)
	for i := 0; ; i++ {
		if _, err := w.client.Put(w.ctx, fmt.Sprintf("ballast%d", i), ballast); errors.Is(err, rpctypes.ErrNoSpace) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	waiting := w.place(a, "waiting", false)
	w.session(a).Leave([]byte("p"), p.Seq)
	w.misses(b, "p", p)
	w.session(a).Refuse([]byte("kept"), try, kept.Seq)
	w.misses(b, "kept", try)
	until := w.session(a).Until()
	w.until("the lease is renewed", func() bool { return w.session(a).Until() > until+beatTime })
	w.keeps(a, b)
	const says = "the database of etcd is full"
	w.until("the log says that it is full", func() bool { return a.log.has(says) })
	if st := a.store.Status(); !st.InTouch || !slices.ContainsFunc(st.Warnings, func(text string) bool { return strings.Contains(text, says) }) {
		t.Errorf("the status does not say that the database is full: %+v", st)
	}
	a.store.health.check(w.ctx)
	if !a.log.has("has raised the alarm NOSPACE: compact and defragment its database") {
		t.Error("the log does not name the alarm")
	}
	if sees(b, "waiting", waiting) {
		t.Error("a place came although nothing can be written")
	}
	w.free()
	w.sees(b, "waiting", waiting)
	w.sees(a, "waiting", waiting)
	w.until("nothing is refused any more", func() bool {
		return a.store.Status().Warnings == nil || !slices.ContainsFunc(a.store.Status().Warnings, func(s string) bool { return strings.Contains(s, says) })
	})
	w.passes()
	w.keeps(a, b)
	w.agrees()
}

// free makes room in the database.
func (w *world) free() {
	w.tb.Helper()
	answer, err := w.client.Delete(w.ctx, "ballast", clientv3.WithPrefix())
	if err != nil {
		w.tb.Fatal(err)
	}
	if _, err := w.client.Compact(w.ctx, answer.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		w.tb.Fatal(err)
	}
	for _, m := range w.cluster.Members {
		if _, err := w.client.Defragment(w.ctx, m.URL); err != nil {
			w.tb.Fatal(err)
		}
	}
	if _, err := w.client.AlarmDisarm(w.ctx, &clientv3.AlarmMember{}); err != nil {
		w.tb.Fatal(err)
	}
}

// The lock delay makes the lease last longer, and not the time for which grants may be told. While keys rest it is left to expire.
func TestLockDelay(t *testing.T) {
	w := startWorld(t, etcdtest.Options{Members: 1})
	r := newRecorder(t)
	r.Delay, r.Held = 2500*time.Millisecond, true
	cfg := w.config()
	cfg.TTL = DefaultTTL
	a := w.join(cfg, r)
	s := w.session(a)
	p := w.place(a, "a", false)
	w.sees(a, "a", p)
	if left := s.Until() - fleet.Now(); left > DefaultTTL-margin {
		t.Errorf("grants may be told for %s", left)
	}
	answer, err := w.client.TimeToLive(w.ctx, clientv3.LeaseID(s.Lease()))
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(answer.GrantedTTL) * time.Second; got != DefaultTTL+3*time.Second {
		t.Errorf("the lease lasts %s, want %s", got, DefaultTTL+3*time.Second)
	}
	s.Lose()
	if s.Until() != 0 {
		t.Error("grants of a session may be told after its member has lost it")
	}
	w.until("there is another session", func() bool { next := a.Session(); return next != nil && next != s })
	w.sees(a, "a", p)
	w.lost(a, api.LostPlace)
}
