package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench"
	"dreadlock/bench/fleet/etcdtest"
)

// benchCommand compares a fleet with clients that lock with etcd alone, and with daemons that are alone.
type benchCommand struct {
	Daemon  string        `type:"existingfile" placeholder:"FILE" help:"Program of the daemon. By default the one next to this program."`
	Rounds  int           `default:"5" placeholder:"N" help:"Number of rounds, each with a cluster of its own (${default})."`
	Clients int           `default:"200" placeholder:"N" help:"Number of clients (${default})."`
	Window  time.Duration `default:"1s" placeholder:"TIME" help:"Length of a measurement (${default})."`
	Only    []int         `placeholder:"N" help:"Check only the goals with these numbers."`
	NoFsync bool          `name:"no-fsync" help:"The members of etcd do not wait for the disk."`
	JSON    string        `name:"json" type:"path" placeholder:"FILE" help:"Write all results to this file."`
}

// The servers in tables, beside [serverMutex].
const (
	serverFleet    = "fleet"
	serverMemory   = "memory"               // daemons without a fleet: each has a lock table of its own
	serverLeadless = "fleet without leader" // whose etcd has no leader
)

const (
	warmupTime = 500 * time.Millisecond
	leaderless = 3 // windows are measured before and while etcd has no leader
)

// Validate reports the first option that cannot be used.
func (c *benchCommand) Validate() error {
	switch {
	case c.Rounds < 1:
		return errors.New("--rounds: want 1 at least")
	case c.Clients < daemons:
		return fmt.Errorf("--clients: want %d at least, one for each daemon", daemons)
	case c.Window <= 0:
		return errors.New("--window: want more than 0")
	case len(c.goals()) == 0:
		return fmt.Errorf("--only: there is no goal with a number of %v", c.Only)
	}
	return nil
}

// Run measures.
func (c *benchCommand) Run(ctx context.Context) error {
	peers := &bench.Peers{Daemon: c.Daemon}
	defer peers.Close()
	started := time.Now()
	var results []*bench.Result
	for i := range c.Rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, c.Rounds)
		measured, err := c.round(ctx, peers)
		if err != nil {
			return err
		}
		results = append(results, measured...)
	}
	comparison := bench.Collect(results)
	comparison.Command, comparison.Started, comparison.Elapsed = os.Args, started, time.Since(started).Seconds()
	comparison.RelateTo(serverMutex)
	comparison.Goals = c.check(comparison)
	if c.JSON != "" {
		text, err := json.MarshalIndent(comparison, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.JSON, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return c.write(os.Stdout, comparison)
}

func (c *benchCommand) write(out io.Writer, comparison *bench.Comparison) error {
	if err := bench.WriteComparison(out, comparison); err != nil {
		return err
	}
	return bench.WriteGoals(out, comparison.Goals)
}

// workload completes a workload.
func (c *benchCommand) workload(kind bench.Kind, keys int) bench.Workload {
	return bench.Workload{Kind: kind, Connections: c.Clients, Keys: keys, Warmup: warmupTime, Window: c.Window}
}

// goal is a workload, and how many times the throughput of a server should be that of another one.
type goal struct {
	number   int
	what     string
	workload bench.Workload
	server   string
	other    string
	times    float64
}

// goals returns the goals to check. Those of one workload follow one another.
func (c *benchCommand) goals() (chosen []goal) {
	own := c.workload(bench.Uncontended, 0)
	alone := c.workload(bench.Groups, c.Clients) // a key each as well, in a table of its own
	alone.Window *= leaderless
	all := []goal{
		{1, "a key each", own, serverFleet, serverMutex, 8},
		{2, "a key each", own, serverFleet, serverMemory, 0.8},
		{3, "one key for all", c.workload(bench.Groups, 1), serverFleet, serverMutex, 50},
		{4, "10 keys at random", c.workload(bench.Contended, 10), serverFleet, serverMutex, 5},
		{5, "a key for 3 clients at 3 daemons", c.workload(bench.Groups, (c.Clients+daemons-1)/daemons), serverFleet, serverMutex, 5},
		{6, "keys never used twice", c.workload(bench.Fresh, 0), serverFleet, serverMutex, 2.5},
		{7, fmt.Sprintf("a key each, %s without a leader of etcd", alone.Window), alone, serverLeadless, serverFleet, 0.9},
	}
	return slices.DeleteFunc(all, func(g goal) bool { return len(c.Only) > 0 && !slices.Contains(c.Only, g.number) })
}

// check returns which goals are met.
func (c *benchCommand) check(comparison *bench.Comparison) (all []bench.Goal) {
	for _, g := range c.goals() {
		all = append(all, comparison.AtLeast(g.number, g.what, &g.workload, g.server, g.other, g.times))
	}
	return all
}

// round measures everything once, on a new cluster.
func (c *benchCommand) round(ctx context.Context, peers *bench.Peers) (results []*bench.Result, err error) {
	r, err := startRound(ctx, peers, !c.NoFsync)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	measured := make(map[string]bool)
	for _, g := range c.goals() {
		if g.server == serverLeadless {
			before, after, err := r.loseLeader(ctx, g.workload)
			if err != nil {
				return nil, err
			}
			results = append(results, before, after)
			continue
		}
		servers := []string{g.server, g.other}
		for _, i := range rand.Perm(len(servers)) {
			if of := g.workload.Name() + " " + servers[i]; !measured[of] {
				measured[of] = true
				result, err := r.measure(ctx, servers[i], g.workload)
				if err != nil {
					return nil, err
				}
				results = append(results, result)
			}
		}
	}
	return results, nil
}

// round has what one round runs on.
type round struct {
	dir     string
	program string // this one
	cluster *etcdtest.Cluster
	daemons []*bench.Server
	targets map[string]*bench.Target
}

// startRound starts a cluster, a fleet on it, and daemons that are alone.
func startRound(ctx context.Context, peers *bench.Peers, fsync bool) (_ *round, err error) {
	r := &round{targets: make(map[string]*bench.Target)}
	defer func() {
		if err != nil {
			r.stop()
		}
	}()
	if r.program, err = os.Executable(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "dreadlock-fleet-"); err != nil {
		return nil, err
	}
	if r.cluster, err = etcdtest.Start(etcdtest.Options{Program: r.program, Dir: r.dir, Fsync: fsync}); err != nil {
		return nil, err
	}
	if _, err := r.leader(ctx); err != nil {
		return nil, err
	}
	joins := &bench.Variant{Name: serverFleet, Options: []string{"--fleet", strings.Join(r.cluster.Endpoints(), ",")}}
	for name, variant := range map[string]*bench.Variant{serverFleet: joins, serverMemory: nil} {
		var all []*bench.Server
		for range daemons {
			s, err := peers.Start(ctx, bench.Peer{Kind: bench.Daemon, Loops: 1, Variant: variant})
			if err != nil {
				return nil, err
			}
			all = append(all, s)
			r.daemons = append(r.daemons, s)
		}
		r.targets[name] = bench.Together(name, all)
		r.targets[name].Loops = 0 // all have one, and there is nothing to compare that with
	}
	// The first grants show that all daemons are in touch with etcd.
	first := bench.Workload{Kind: bench.Uncontended, Connections: daemons, Window: time.Millisecond}
	_, err = r.measure(ctx, serverFleet, first)
	return r, err
}

// leader waits for a leader of etcd.
func (r *round) leader(ctx context.Context) (*etcdtest.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return r.cluster.AwaitLeader(ctx, clientv3.Config{Logger: zap.NewNop()})
}

func (r *round) stop() {
	for _, s := range r.daemons {
		s.Stop()
	}
	if r.cluster != nil {
		r.cluster.Stop()
	}
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}

// measure measures a workload on a server.
func (r *round) measure(ctx context.Context, server string, w bench.Workload) (*bench.Result, error) {
	if server == serverMutex {
		return r.mutexes(ctx, w)
	}
	return bench.Run(ctx, r.targets[server], w, bench.Options{})
}

// mutexes measures a workload on clients that lock with etcd alone.
func (r *round) mutexes(ctx context.Context, w bench.Workload) (*bench.Result, error) {
	competitor := exec.CommandContext(ctx, r.program, "mutex", "--endpoints", strings.Join(r.cluster.Endpoints(), ","),
		"--kind", string(w.Kind), "--clients", strconv.Itoa(w.Connections), "--keys", strconv.Itoa(w.Keys),
		"--warmup", w.Warmup.String(), "--window", w.Window.String())
	competitor.Stderr = os.Stderr
	said, err := competitor.Output()
	if err != nil {
		return nil, fmt.Errorf("%s on %s: %w", w.Name(), serverMutex, err)
	}
	result := &bench.Result{}
	if err := json.Unmarshal(said, result); err != nil {
		return nil, fmt.Errorf("%s on %s: %w", w.Name(), serverMutex, err)
	}
	return result, nil
}

// loseLeader measures a workload before and after two members of etcd are stopped, the leader among them.
func (r *round) loseLeader(ctx context.Context, w bench.Workload) (before, after *bench.Result, err error) {
	var paused []*etcdtest.Member
	defer func() {
		for _, m := range paused {
			_ = m.Resume() // it is killed anyway
		}
	}()
	lose := func(ctx context.Context) error {
		leader, err := r.leader(ctx)
		if err != nil {
			return err
		}
		others := 1
		for _, m := range r.cluster.Members {
			if m != leader {
				if others == 0 {
					continue
				}
				others--
			}
			if err := m.Pause(); err != nil {
				return err
			}
			paused = append(paused, m)
		}
		return nil
	}
	return bench.RunChanged(ctx, r.targets[serverFleet], w, bench.Options{}, bench.Change{Server: serverLeadless, Make: lose})
}
