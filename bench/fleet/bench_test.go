package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreadlock/bench"
)

// A round with real members, real daemons and real Mutexes has all tables and goals. Whether these are met is another question.
func TestBench(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.json")
	o := runProgram(t, "bench", "--daemon", daemonProgram, "--rounds", "1", "--clients", "9", "--window", "150ms", "--json", file)
	if o.status != 0 {
		t.Fatalf("status %d: %s", o.status, o.stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c bench.Comparison
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Goals) != 7 {
		t.Errorf("%d goals, want 7", len(c.Goals))
	}
	for _, g := range c.Goals {
		if !g.Measured || g.Got.Median <= 0 {
			t.Errorf("%s was not measured: %+v", g.What, g)
		}
		if !strings.Contains(o.stdout, g.What) {
			t.Errorf("%s is not in the table:\n%s", g.What, o.stdout)
		}
	}
	for _, of := range []struct {
		workload string
		servers  []string
	}{
		{"uncontended/9", []string{serverFleet, serverMutex, serverMemory}},
		{"groups/9x1", []string{serverFleet, serverMutex}},
		{"contended/9x10", []string{serverFleet, serverMutex}},
		{"groups/9x3", []string{serverFleet, serverMutex}},
		{"fresh/9", []string{serverFleet, serverMutex}},
		{"groups/9x9", []string{serverFleet, serverLeadless}},
	} {
		for _, server := range of.servers {
			if cell := c.Cell(of.workload, server); cell == nil || len(cell.Results) != 1 || cell.Results[0].Latency == nil {
				t.Errorf("%s on %s: %+v", of.workload, server, cell)
			}
		}
	}
	if cell := c.Cell("groups/9x9", serverLeadless); cell != nil && cell.Results[0].Elapsed < leaderless*150*time.Millisecond {
		t.Errorf("the time without a leader was %s", cell.Results[0].Elapsed)
	}
}

// Options that cannot be used are refused before anything is started.
func TestBenchUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--rounds 0", "--rounds"},
		{"--clients 2", "one for each daemon"},
		{"--window 0s", "--window"},
		{"--only 9", "no goal"},
		{"--daemon /missing", "/missing"},
	} {
		o := runProgram(t, append([]string{"bench"}, strings.Fields(test.args)...)...)
		if o.status == 0 || !strings.Contains(o.stderr, test.want) || o.stdout != "" {
			t.Errorf("%s: status %d, %q, %q", test.args, o.status, o.stdout, o.stderr)
		}
	}
}

// A daemon that cannot serve ends the run.
func TestBenchFails(t *testing.T) {
	o := runProgram(t, "bench", "--daemon", "/bin/false", "--only", "2")
	if o.status == 0 || !strings.Contains(o.stderr, "it exited") {
		t.Errorf("status %d, %q", o.status, o.stderr)
	}
}

// The keys of the Mutexes are those that the generator of the workload would choose.
func TestMutexKeys(t *testing.T) {
	for kind, want := range map[bench.Kind][]string{
		bench.Uncontended: {"0", "1", "2", "3", "4", "5"},
		bench.Groups:      {"0", "0", "0", "1", "1", "1"},
		bench.Fresh:       {"0.7", "1.7", "2.7", "3.7", "4.7", "5.7"},
	} {
		m := &mutexes{workload: bench.Workload{Kind: kind, Connections: 6, Keys: 2}}
		for client, key := range want {
			if got := m.key(client, 7); got != key {
				t.Errorf("%s: client %d has key %s, want %s", kind, client, got, key)
			}
		}
	}
	m := &mutexes{workload: bench.Workload{Kind: bench.Contended, Connections: 6, Keys: 2}}
	seen := make(map[string]bool)
	for range 100 {
		seen[m.key(0, 0)] = true
	}
	if len(seen) != 2 || !seen["0"] || !seen["1"] {
		t.Errorf("keys %v", seen)
	}
}
