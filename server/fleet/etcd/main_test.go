package etcd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/proto/prototest"
	"dreadlock/server/fleet"
	"dreadlock/server/fleet/fleettest"
)

// program is that of the members.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fleet")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		// A cached test result is used until a file changes that the test itself has read.
		if _, err := os.ReadDir("../../../bench/fleet"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if program, err = etcdtest.Build(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// world is an etcd and the members of a fleet on it.
type world struct {
	tb      testing.TB
	cluster *etcdtest.Cluster
	client  *clientv3.Client
	ctx     context.Context
	members []*member
}

// member is a member of the fleet and its store.
type member struct {
	*fleettest.Recorder
	cfg   Config
	store *Store
	log   *logText
	leave func()
}

// logText is a log that a test reads.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logText) has(text string) bool { return strings.Contains(l.String(), text) }

// startWorld starts an etcd without a fleet.
func startWorld(tb testing.TB, o etcdtest.Options) *world {
	tb.Helper()
	o.Program, o.Dir = program, tb.TempDir()
	cluster, err := etcdtest.Start(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Stop)
	w := &world{tb: tb, cluster: cluster, ctx: context.Background()}
	w.leader()
	w.client, err = clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.client.Close() })
	return w
}

// leader awaits that etcd has a leader.
func (w *world) leader() *etcdtest.Member {
	w.tb.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, prototest.Patience)
	defer cancel()
	m, err := w.cluster.AwaitLeader(ctx, clientv3.Config{Logger: zap.NewNop()})
	if err != nil {
		w.tb.Fatal(err)
	}
	return m
}

// config returns the options of a member. Its lease outlasts whatever a busy machine does.
func (w *world) config() Config {
	return Config{
		Endpoints: w.cluster.Endpoints(), Prefix: DefaultPrefix, TTL: time.Minute,
		Address: func() string { return fmt.Sprintf("host%d:6001", len(w.members)) }, Version: "test", Log: zerolog.Nop(),
	}
}

// join has a member join the fleet. The test ends when it has left.
func (w *world) join(cfg Config, r *fleettest.Recorder) *member {
	w.tb.Helper()
	m := &member{Recorder: r, log: &logText{}}
	address := fmt.Sprintf("host%d:6001", len(w.members))
	cfg.Address = func() string { return address }
	cfg.Log = zerolog.New(m.log).With().Timestamp().Logger()
	m.cfg = cfg
	m.store = w.newStore(m)
	m.run(w.ctx)
	w.tb.Cleanup(func() {
		m.leave()
		if w.tb.Failed() {
			w.tb.Logf("%s: %s", address, m.log)
		}
	})
	w.members = append(w.members, m)
	return m
}

// newStore returns a store for a member.
func (w *world) newStore(m *member) *Store {
	w.tb.Helper()
	s, err := New(m.cfg)
	if err != nil {
		w.tb.Fatal(err)
	}
	return s
}

// run has the store of a member run until it leaves.
func (m *member) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { m.store.Run(ctx, m.Recorder) })
	m.leave = func() {
		cancel()
		running.Wait()
	}
}

// suspend has the store of a member stand still.
func (w *world) suspend(m *member) time.Duration {
	w.tb.Helper()
	until, err := m.store.Suspend(w.ctx)
	if err != nil {
		w.tb.Fatal(err)
	}
	return until
}

// takeOver makes another store for a member whose own is suspended, and goes on with that.
func (w *world) takeOver(m *member) {
	w.tb.Helper()
	before, next := m.store, w.newStore(m)
	if s := fleettest.TakeOver(w.tb, before, next); s != nil {
		m.GoOn(s)
	}
	m.leave() // it has yielded
	m.store = next
	m.run(w.ctx)
}

// joinAll has some members join the fleet, and awaits their sessions.
func (w *world) joinAll(n int) []*member {
	w.tb.Helper()
	var all []*member
	for range n {
		all = append(all, w.join(w.config(), fleettest.NewRecorder(w.tb)))
	}
	for _, m := range all {
		w.session(m)
	}
	return all
}

// until waits until something is so.
func (w *world) until(what string, is func() bool) {
	w.tb.Helper()
	deadline := time.Now().Add(prototest.Patience)
	for !is() {
		if time.Now().After(deadline) {
			w.tb.Fatalf("not within %s: %s", prototest.Patience, what)
		}
		w.step()
	}
}

// step waits until some member was told something, or a moment has passed.
func (w *world) step() {
	next := make(chan struct{}, 1)
	for _, m := range w.members {
		changed := m.Next()
		go func() {
			select {
			case <-changed:
				select {
				case next <- struct{}{}:
				default:
				}
			case <-time.After(20 * time.Millisecond):
			}
		}()
	}
	select {
	case <-next:
	case <-time.After(20 * time.Millisecond):
	}
}

// session awaits the session of a member.
func (w *world) session(m *member) (s fleet.Session) {
	w.tb.Helper()
	w.until("a member has a session", func() bool { s = m.Session(); return s != nil })
	return s
}

// place has a member ask for a place, and returns it.
func (w *world) place(m *member, key string, try bool) fleet.Place {
	w.tb.Helper()
	s := w.session(m)
	return fleet.Place{Lease: s.Lease(), Seq: s.Join([]byte(key), try)}
}

// sees waits until a member sees a place.
func (w *world) sees(m *member, key string, p fleet.Place) {
	w.tb.Helper()
	w.until(fmt.Sprintf("%s is in the line of %s", p, key), func() bool { return sees(m, key, p) })
}

// misses waits until a member does not see a place.
func (w *world) misses(m *member, key string, p fleet.Place) {
	w.tb.Helper()
	w.until(fmt.Sprintf("%s is not in the line of %s", p, key), func() bool { return !sees(m, key, p) })
}

func sees(m *member, key string, p fleet.Place) bool {
	for _, c := range m.Line(key) {
		if c.Place == p {
			return true
		}
	}
	return false
}

// passes has all members make a place and leave it, and waits until all have seen it: the fleet works.
func (w *world) passes() {
	w.tb.Helper()
	for _, m := range w.members {
		p := w.place(m, "passes", false)
		for _, other := range w.members {
			w.sees(other, "passes", p)
		}
		w.session(m).Leave([]byte("passes"), p.Seq)
		for _, other := range w.members {
			w.misses(other, "passes", p)
		}
	}
}

// keeps fails the test if a member has lost a session.
func (w *world) keeps(all ...*member) {
	w.tb.Helper()
	for _, m := range all {
		if lost := m.Losses(); len(lost) > 0 {
			w.tb.Errorf("a session was lost: %v", lost)
		}
	}
}

func newRecorder(tb testing.TB) *fleettest.Recorder { return fleettest.NewRecorder(tb) }
