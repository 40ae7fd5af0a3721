package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

func TestNewStat(t *testing.T) {
	tests := []struct {
		values []float64
		want   Stat
	}{
		{nil, Stat{}},
		{[]float64{3}, Stat{Median: 3, Min: 3, Max: 3, Rounds: 1}},
		{[]float64{9, 1, 2}, Stat{Median: 2, Min: 1, Max: 9, Rounds: 3}},
		{[]float64{4, 1, 2, 9}, Stat{Median: 3, Min: 1, Max: 9, Rounds: 4}},
	}
	for _, test := range tests {
		if got := newStat(test.values); got != test.want {
			t.Errorf("%v: %+v, want %+v", test.values, got, test.want)
		}
	}
}

// cellOf makes a cell with one figure a round, in microseconds of server time and in operations a second.
func cellOf(w Workload, p Peer, figures ...float64) *Cell {
	c := (&Comparison{}).cell(w.Name(), p.Name(), p.Kind, p.loops())
	for _, f := range figures {
		c.Results = append(c.Results, &Result{
			Workload:   w,
			Server:     p.Name(),
			Throughput: f,
			ServerCPU:  &CPU{PerOperation: time.Duration(f * 1000)},
		})
	}
	return c
}

// Ratios are taken round by round: on a machine that gets twice as slow they stay the same.
func TestRatiosAreTakenWithinRounds(t *testing.T) {
	c := &Comparison{Cells: []*Cell{cellOf(loadFew, peerDaemon1, 1.1, 2.2, 4.4), cellOf(loadFew, peerEcho1, 1, 2, 4)}}
	c.summarize()
	got := c.Cells[0].Ratios[ServerCPU]
	if got.Rounds != 3 || got.Min < 1.09 || got.Max > 1.11 {
		t.Errorf("ratio %+v", got)
	}
	if c.Cells[1].Ratios != nil {
		t.Error("the echo server has ratios to itself")
	}
}

func TestCheckGoals(t *testing.T) {
	late := func(early int64, ms int) *Cell {
		c := cellOf(loadInFlight, peerDaemon1, 1, 1)
		c.Results[0].Timeouts = &TimeoutsResult{Late: &Latency{P999: time.Duration(ms) * time.Millisecond}}
		c.Results[1].Timeouts = &TimeoutsResult{Early: early, Late: &Latency{P999: time.Duration(ms) * time.Millisecond}}
		return c
	}
	taken := func(ms int) *Cell {
		c := cellOf(loadTakeMany, peerDaemon1, 1)
		c.Results[0].Takeover = &TakeoverResult{Takeovers: make([]TakenOver, 1), Answer: time.Duration(ms) * time.Millisecond}
		return c
	}
	goal := func(number int, what string, cells ...*Cell) Goal {
		t.Helper()
		for _, g := range CheckGoals(&Comparison{Cells: cells}) {
			if g.Number == number && g.Server == "dreadlock:1" && strings.Contains(g.What, what) {
				return g
			}
		}
		t.Fatalf("no goal %d %q", number, what)
		return Goal{}
	}
	tests := []struct {
		goal          Goal
		measured, met bool
	}{
		{goal(1, "50 connections, relative to gnet:1", cellOf(loadFew, peerDaemon1, 5.7), cellOf(loadFew, peerEcho1, 5)), true, true},
		{goal(1, "50 connections, relative to gnet:1", cellOf(loadFew, peerDaemon1, 5.8), cellOf(loadFew, peerEcho1, 5)), true, false},
		{goal(1, "50 connections, relative to gnet:1", cellOf(loadFew, peerDaemon1, 5.7)), false, false},
		{goal(1, "1000 connections, relative to redis", cellOf(loadMany, peerDaemon1, 5), cellOf(loadMany, peerRedis, 5)), true, true},
		{goal(1, "1000 connections, relative to memcached", cellOf(loadMany, peerDaemon1, 5.1), cellOf(loadMany, peerMemcached, 5)), true, false},
		{goal(2, "shared keys", cellOf(loadContended, peerDaemon1, 80), cellOf(loadRivals, peerDaemon1, 100)), true, true},
		{goal(2, "shared keys", cellOf(loadContended, peerDaemon1, 79), cellOf(loadRivals, peerDaemon1, 100)), true, false},
		{goal(3, "pipelined", cellOf(loadPipelined, peerDaemon1, 1400), cellOf(loadFew, peerEcho1, 100)), true, true},
		{goal(3, "pipelined", cellOf(loadPipelined, peerDaemon1, 1399), cellOf(loadFew, peerEcho1, 100)), true, false},
		{goal(5, "early", late(0, 1)), true, true},
		{goal(5, "early", late(1, 1)), true, false},
		{goal(5, "lateness", late(0, 15)), true, true},
		{goal(5, "lateness", late(0, 16)), true, false},
		{goal(7, "relative to gnet:1", cellOf(loadVisits, peerDaemon1, 150), cellOf(loadVisits, peerEcho1, 100)), true, true},
		{goal(7, "relative to gnet:1", cellOf(loadVisits, peerDaemon1, 151), cellOf(loadVisits, peerEcho1, 100)), true, false},
		{goal(7, "relative to memcached", cellOf(loadVisits, peerDaemon1, 131), cellOf(loadVisits, peerMemcached, 100)), true, false},
		{goal(8, "latency", cellOf(loadAlone, peerDaemon1, 1), cellOf(loadAlone, peerRedis, 1)), false, false}, // redis was not measured
		{goal(9, "TLS", cellOf(loadFew, peersTLS[1], 129), cellOf(loadFew, peerDaemon1, 100)), true, true},
		{goal(9, "TLS", cellOf(loadFew, peersTLS[1], 131), cellOf(loadFew, peerDaemon1, 100)), true, false},
		{goal(9, "TLS", cellOf(loadFew, peersTLS[1], 1)), false, false},
		{goal(11, "command", cellOf(loadFew, peersFleet[1], 130), cellOf(loadFew, peerDaemon1, 100)), true, true},
		{goal(11, "command", cellOf(loadFew, peersFleet[1], 131), cellOf(loadFew, peerDaemon1, 100)), true, false},
		{goal(11, "connect,", cellOf(loadVisits, peersFleet[1], 131), cellOf(loadVisits, peerDaemon1, 100)), true, false},
		{goal(11, "connect,", cellOf(loadVisits, peerDaemon1, 100)), false, false},
		{goal(10, "1,000", taken(19)), true, true},
		{goal(10, "1,000", taken(21)), true, false},
		{goal(9, "Unix", cellOf(loadVisits, peersUnix[1], 76), cellOf(loadVisits, peerDaemon1, 100)), true, false},
	}
	for _, test := range tests {
		if test.goal.Measured != test.measured || test.goal.Met != test.met {
			t.Errorf("%+v: want measured %t, met %t", test.goal, test.measured, test.met)
		}
	}
}

func TestCompareTakesTurns(t *testing.T) {
	cases := []Case{
		{Workload: short(Uncontended), Peers: []Peer{peerDaemon1, peerEcho1}, Rounds: 2},
		{Workload: short(Waiters), Peers: []Peer{peerDaemon1}, Rounds: 1, Fresh: true},
	}
	c, err := Compare(t.Context(), &Peers{Daemon: daemonProgram}, cases, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n := Runs(cases); n != 5 || len(c.Cells) != 3 {
		t.Fatalf("%d runs, %d cells", n, len(c.Cells))
	}
	ours, echo := c.Cells[0].Results, c.Cells[1].Results
	for i, first := range []*Result{ours[0], echo[0]} {
		for j, second := range []*Result{ours[1], echo[1]} {
			if !first.Started.Before(second.Started) {
				t.Errorf("server %d of the first round was measured after server %d of the second", i, j)
			}
		}
	}
	c.Goals = CheckGoals(c)
	var table bytes.Buffer
	if err := WriteComparison(&table, c); err != nil {
		t.Fatal(err)
	}
	if err := WriteGoals(&table, c.Goals); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"uncontended/50", "dreadlock:1", "gnet:1", "hand-over us", "not measured"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in the table:\n%s", want, &table)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Comparison
	if err := json.Unmarshal(text, &back); err != nil || len(back.Cells) != 3 || back.Cells[0].Results[1].Operations != ours[1].Operations {
		t.Errorf("JSON and back: %v", err)
	}
}

// A server that is already running is measured beside one that is started here, and keeps running.
func TestCompareWithARunningServer(t *testing.T) {
	s := startPeer(t, "dreadlock:1")
	running, err := ParsePeer(fmt.Sprintf("dreadlock://%s?pid=%d&loops=1&name=running", s.Address, s.PID))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Compare(t.Context(), &Peers{}, []Case{{Workload: short(Uncontended), Peers: []Peer{running, peerEcho1}, Rounds: 1}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if cell := c.Cell("uncontended/50", "running"); cell == nil || cell.Ratios[ServerCPU].Rounds != 1 {
		t.Errorf("cell %+v", cell)
	}
	if err := s.Ended(); err != nil {
		t.Error(err)
	}
}

func TestParseTarget(t *testing.T) {
	got, err := ParseTarget("redis://host:6379?pid=12&name=old&loops=2")
	if err != nil || got.Address != "host:6379" || got.PID != 12 || got.Name != "old" || got.Loops != 2 || got.Dialect.Name != "redis" {
		t.Errorf("%+v, %v", got, err)
	}
	authority := prototest.NewCA(t).File()
	got, err = ParseTarget("dreadlock+tls://host:6002?loops=1&ca=" + authority)
	if err != nil || got.Name != "dreadlock+tls://host:6002" || got.Kind != Daemon || got.Network != "tcp" || got.Address != "host:6002" ||
		got.tls == nil || got.tls.ServerName != "host" || got.tls.RootCAs == nil {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseTarget("dreadlock+unix:///run/lock.sock?pid=12")
	if err != nil || got.Network != "unix" || got.Address != "/run/lock.sock" || got.PID != 12 || got.tls != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "http://host:1", "redis://host", "redis://host:1?pid=0", "redis://host:1?port=2", "echo://:x", "redis://host:1/path",
		"dreadlock+ssl://host:1", "dreadlock+unix://host:1", "dreadlock+unix:///", "dreadlock+tls://host",
		"dreadlock://host:1?ca=" + authority, "dreadlock+tls://host:1?ca=/missing", "dreadlock+tls://host:1?ca=compare_test.go",
	} {
		if _, err := ParseTarget(bad); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParsePeer(t *testing.T) {
	for text, want := range map[string]Peer{
		"dreadlock:2":      {Kind: Daemon, Loops: 2},
		"dreadlock+tls:2":  {Kind: Daemon, Way: overTLS, Loops: 2},
		"dreadlock+unix:1": {Kind: Daemon, Way: overUnix, Loops: 1},
		"gnet:1":           {Kind: GnetEcho, Loops: 1},

		"dreadlock+fleet:1": {Kind: Daemon, Way: inFleet, Loops: 1},
	} {
		if got, err := ParsePeer(text); got != want || err != nil || got.Name() != text {
			t.Errorf("%s: %+v named %s, %v", text, got, got.Name(), err)
		}
	}
	for _, bad := range []string{"", "nobody", "dreadlock+:1", "dreadlock+ssl", "gnet+tls:1", "gnet+fleet:1", "redis:2", "dreadlock:0", "dreadlock:2+tls"} {
		if _, err := ParsePeer(bad); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A way is compared with plain TCP, and a variant of the daemon with the daemon that is reached the same way.
func TestReferences(t *testing.T) {
	v := &Variant{Name: "old"}
	for _, tc := range []struct {
		peer Peer
		want string // empty: none
	}{
		{Peer{Kind: Daemon, Loops: 2}, ""},
		{Peer{Kind: Daemon, Way: overTLS, Loops: 2}, "dreadlock:2"},
		{Peer{Kind: Daemon, Way: inFleet, Loops: 2}, "dreadlock:2"},
		{Peer{Kind: Daemon, Way: overTLS, Loops: 2, Variant: v}, "dreadlock+tls:2"},
		{Peer{Kind: Daemon, Loops: 2, Variant: v}, "dreadlock:2"},
	} {
		if got, ok := tc.peer.reference(); ok != (tc.want != "") || ok && got.Name() != tc.want {
			t.Errorf("%s is compared with %s, want %s", tc.peer.Name(), got.Name(), tc.want)
		}
	}
	cases := AddVariants([]Case{{Peers: []Peer{{Kind: Daemon, Way: overUnix, Loops: 1}}}}, []*Variant{v})
	if got := cases[0].Peers; len(got) != 2 || got[1].Name() != "old+unix:1" {
		t.Errorf("%+v", got)
	}
}

func TestValidate(t *testing.T) {
	for _, kind := range Kinds {
		if w := Default(kind); w.Validate() != nil {
			t.Error(w.Validate())
		}
	}
	for _, w := range []Workload{
		{Kind: "nothing", Connections: 1, Window: 1},
		{Kind: Uncontended, Window: 1},
		{Kind: Uncontended, Connections: 1},
		{Kind: Contended, Connections: 1, Window: 1},
		{Kind: Contended, Connections: 1, Window: 1, Keys: 1, Zipf: 0.5},
		{Kind: Pipelined, Connections: 1, Window: 1, Pairs: maxPairs + 1},
		{Kind: Waiters, Connections: 1, Window: 1, Queue: 2},
		{Kind: Idle, Connections: 1, Window: 1, Rate: 1},
		{Kind: Timeouts, Connections: 1, Window: 1, Share: 2},
	} {
		if w.Validate() == nil {
			t.Errorf("%+v is valid", w)
		}
	}
}

func TestParseVariant(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]Variant{
		"old=" + program:               {Name: "old", Program: program},
		"slow=--tick 50ms":             {Name: "slow", Options: []string{"--tick", "50ms"}},
		"procs-4=GOMAXPROCS=4  GOGC=1": {Name: "procs-4", Environment: []string{"GOMAXPROCS=4", "GOGC=1"}},
		"all=A_1= " + program + " -x Y=2": {
			Name: "all", Environment: []string{"A_1="}, Program: program, Options: []string{"-x", "Y=2"},
		},
	} {
		if got, err := ParseVariant(text); err != nil || fmt.Sprint(*got) != fmt.Sprint(want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "old", "old=", "=" + program, "a b=" + program, "gnet=" + program, "old=/missing"} {
		if _, err := ParseVariant(bad); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A variant gets its variables and options, is listed after the daemon with as many loops, and is compared with it.
func TestCompareVariants(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "wrapped")
	text := "#!/bin/sh\necho \"$VARIANT $*\" >> " + filepath.Join(dir, "said") + "\nexec " + daemonProgram + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	v, err := ParseVariant("other=VARIANT=here " + script + " --tick 10ms")
	if err != nil {
		t.Fatal(err)
	}
	cases := AddVariants([]Case{{Workload: short(Uncontended), Peers: []Peer{peerDaemon1, peerEcho1}, Rounds: 1}}, []*Variant{v})
	c, err := Compare(t.Context(), &Peers{Daemon: daemonProgram}, cases, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, cell := range c.Cells {
		rows = append(rows, cell.Server+" to "+cell.RatiosTo)
	}
	if want := []string{"dreadlock:1 to gnet:1", "other:1 to dreadlock:1", "gnet:1 to gnet:1"}; !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
	if r := c.Cells[1].Ratios[Throughput]; r.Rounds != 1 || r.Median != c.Cells[1].Results[0].Throughput/c.Cells[0].Results[0].Throughput {
		t.Errorf("ratio %+v", r)
	}
	said, err := os.ReadFile(filepath.Join(dir, "said"))
	if line := string(said); err != nil || !strings.HasPrefix(line, "here --loops 1 ") || !strings.Contains(line, "--tick 10ms") {
		t.Errorf("the variant was started as %q, %v", line, err)
	}
}
