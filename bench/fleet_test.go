package bench

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A fleet of fakes has one target, and its connections are spread over it in turn. So none of its groups is at one server alone.
func TestTogether(t *testing.T) {
	var servers []*Server
	var fakes []*fake
	for range 3 {
		f := &fake{}
		fakes, servers = append(fakes, f), append(servers, &Server{Target: *f.start(t)})
	}
	w := short(Uncontended)
	w.Connections = 9
	target := Together("all", servers)
	r, err := Run(t.Context(), target, w, Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	if r.Server != "all" || r.ServerCPU != nil {
		t.Errorf("%+v", r)
	}
	for i, f := range fakes {
		f.mu.Lock()
		if len(f.keys) != 3 {
			t.Errorf("server %d had %d keys, want 3", i, len(f.keys))
		}
		f.mu.Unlock()
	}
}

// The processor time and the memory of a fleet are those of all its servers.
func TestTogetherCosts(t *testing.T) {
	one, two := startPeer(t, "dreadlock:1"), startPeer(t, "dreadlock:1")
	w := short(Uncontended)
	r, err := Run(t.Context(), Together("both", []*Server{one, two}), w, Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	var memory int64
	for _, s := range []*Server{one, two} {
		own, err := residentMemory(s.PID)
		if err != nil {
			t.Fatal(err)
		}
		memory = max(memory, own)
	}
	if r.Memory < memory*3/2 || r.ServerCPU == nil || r.Allocations != nil {
		t.Errorf("memory %d, where one server has %d; %+v", r.Memory, memory, r)
	}
}

// No key of Fresh is locked twice, in any dialect.
func TestFreshKeys(t *testing.T) {
	f := &fake{}
	w := short(Fresh)
	r, err := Run(t.Context(), f.start(t), w, Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := int(r.Answered / 2); len(f.keys) != want || want < w.Connections {
		t.Errorf("%d keys were used by %d pairs of lock and unlock", len(f.keys), want)
	}
	for name, d := range dialects {
		c := &conn{}
		freshKeys(d, "p", []*conn{c})
		for range 12 {
			for _, number := range c.digits {
				increment(number)
			}
		}
		if lock, unlock := string(c.lock.request), string(c.unlock.request); !strings.Contains(lock, "0000000012") || !strings.Contains(unlock, "0000000012") {
			t.Errorf("%s: %q, %q", name, lock, unlock)
		}
		if name == "echo" && string(c.lock.request) != string(c.lock.accept[0]) {
			t.Errorf("echo wants %q of %q", c.lock.accept[0], c.lock.request)
		}
	}
	number := []byte("0999")
	if increment(number); string(number) != "1000" {
		t.Errorf("%s comes after 0999", number)
	}
}

// All members of a group use one key.
func TestGroups(t *testing.T) {
	f := &fake{}
	w := short(Groups)
	w.Keys = 7
	if _, err := Run(t.Context(), f.start(t), w, Options{Loops: 1}); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.keys) != w.Keys {
		t.Errorf("%d keys, want %d", len(f.keys), w.Keys)
	}
}

// Load goes on while a server is changed, and both times are measured apart.
func TestRunChanged(t *testing.T) {
	var answered, atChange atomic.Int64
	target := (&fake{answer: func(n int64, reply string) string {
		answered.Store(n)
		return reply
	}}).start(t)
	w := short(Groups)
	change := Change{Server: "changed", Make: func(context.Context) error {
		atChange.Store(answered.Load())
		return nil
	}}
	before, after, err := RunChanged(t.Context(), target, w, Options{Loops: 1}, change)
	if err != nil {
		t.Fatal(err)
	}
	if before.Server != "fake" || after.Server != "changed" || after.Elapsed < w.Window || !after.Started.After(before.Started.Add(w.Window)) {
		t.Errorf("%+v, %+v", before, after)
	}
	if before.Operations > atChange.Load() || after.Operations > after.Answered-before.Operations || after.Latency.Count > after.Answered-before.Latency.Count {
		t.Errorf("%d and %d operations of %d, %d before the change", before.Operations, after.Operations, after.Answered, atChange.Load())
	}
	refuses := Change{Server: "changed", Make: func(context.Context) error { return errors.New("it refuses") }}
	if _, _, err := RunChanged(t.Context(), target, w, Options{}, refuses); err == nil || !strings.Contains(err.Error(), "it refuses") {
		t.Error(err)
	}
	if _, _, err := RunChanged(t.Context(), target, short(Waiters), Options{}, change); !errors.Is(err, ErrWorkload) {
		t.Error(err)
	}
}

// A change that lets the server lose a connection ends the run.
func TestRunChangedFinds(t *testing.T) {
	var faulty atomic.Bool
	target := (&fake{answer: func(_ int64, reply string) string {
		if faulty.Load() {
			return "close"
		}
		return reply
	}}).start(t)
	w := short(Uncontended)
	_, _, err := RunChanged(t.Context(), target, w, Options{Loops: 1}, Change{Server: "faulty", Make: func(context.Context) error {
		faulty.Store(true)
		return nil
	}})
	checkViolation(t, err, "the server closed the connection")
}

// Ratios can be to one server, and a goal says what they should be.
func TestRelateTo(t *testing.T) {
	w := Workload{Kind: Fresh, Connections: 10, Window: time.Second}
	var results []*Result
	for i, rate := range []float64{100, 300, 200, 400, 100, 500} {
		server := []string{"slow", "fast"}[i%2]
		results = append(results, &Result{Workload: w, Server: server, Throughput: rate, Loops: 1})
	}
	c := Collect(results)
	c.RelateTo("slow")
	if got := c.Cell("fresh/10", "fast").Ratios[Throughput]; got.Median != 3 || got.Min != 2 || got.Max != 5 {
		t.Errorf("ratios %+v", got)
	}
	for times, met := range map[float64]bool{3: true, 3.1: false} {
		if g := c.AtLeast(7, "speed", &w, "fast", "slow", times); g.Met != met || !g.Measured || g.Number != 7 || g.What != "speed, relative to slow" {
			t.Errorf("%+v", g)
		}
	}
	if g := c.AtLeast(1, "speed", &w, "fast", "nobody", 1); g.Met || g.Measured {
		t.Errorf("%+v", g)
	}
	var text strings.Builder
	if err := WriteComparison(&text, c); err != nil || !strings.Contains(text.String(), "xN is the ratio to slow\n") || !strings.Contains(text.String(), "x3.00") {
		t.Errorf("%v\n%s", err, &text)
	}
}

// Where there is no program with etcd and none can be built, that says what to do, and a comparison goes on without the fleet.
func TestNoMembers(t *testing.T) {
	t.Setenv("PATH", "")
	peers := &Peers{Daemon: daemonProgram}
	defer peers.Close()
	cases := []Case{{Workload: short(Uncontended), Peers: []Peer{peersFleet[1], peerDaemon1}, Rounds: 1}}
	c, err := Compare(t.Context(), peers, cases, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Cells) != 1 || len(c.Skipped) != 1 || !strings.Contains(c.Skipped[0], `start dreadlock+fleet:1`) || !strings.Contains(c.Skipped[0], `"make bench"`) {
		t.Errorf("%d cells, %q", len(c.Cells), c.Skipped)
	}
}

// The goals have figures of every way to a daemon, of a fleet, of connections that come and go, and of takeovers.
func TestSuiteHasAll(t *testing.T) {
	rows := make(map[string]bool)
	for _, k := range Suite(1) {
		for _, p := range k.Peers {
			rows[k.Workload.Name()+" "+p.Name()] = true
		}
	}
	for _, row := range []string{
		"uncontended/50 dreadlock+tls:1", "uncontended/50 dreadlock+unix:1", "uncontended/50 dreadlock+fleet:1", "churn/16 dreadlock:1",
		"churn/16 dreadlock+tls:1", "churn/16 dreadlock+unix:1", "churn/16 dreadlock+fleet:1", "takeover/1000 dreadlock:1", "takeover/15000 dreadlock:1",
	} {
		if !rows[row] {
			t.Errorf("no row %s", row)
		}
	}
}
