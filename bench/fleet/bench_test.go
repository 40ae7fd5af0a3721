package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dreadlock/bench"
)

func TestBench(t *testing.T) {
	dir := programs(t)
	t.Run("figures", func(t *testing.T) { benchFigures(t, dir) })
	t.Run("usage", func(t *testing.T) { benchUsage(t, dir) })
	t.Run("failure", func(t *testing.T) { benchFails(t, dir) })
}

// runBench runs the bench command of the program in a directory.
func runBench(t *testing.T, dir string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, failed bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "fleet"), append([]string{"bench"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &failed
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), failed.String()
}

// A round with real members, real daemons and real Mutexes has all tables and goals. Whether these are met is another question.
func benchFigures(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "all.json")
	status, stdout, stderr := runBench(t, dir, "--rounds", "1", "--clients", "9", "--window", "150ms", "--json", file)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
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
		if !strings.Contains(stdout, g.What) {
			t.Errorf("%s is not in the table:\n%s", g.What, stdout)
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
func benchUsage(t *testing.T, dir string) {
	t.Helper()
	for _, test := range []struct{ args, want string }{
		{"--rounds 0", "--rounds"},
		{"--clients 2", "one for each daemon"},
		{"--window 0s", "--window"},
		{"--only 9", "no goal"},
		{"--daemon /missing", "/missing"},
	} {
		status, stdout, stderr := runBench(t, dir, strings.Fields(test.args)...)
		if status == 0 || !strings.Contains(stderr, test.want) || stdout != "" {
			t.Errorf("%s: status %d, %q, %q", test.args, status, stdout, stderr)
		}
	}
}

// A daemon that cannot serve ends the run.
func benchFails(t *testing.T, dir string) {
	t.Helper()
	status, _, stderr := runBench(t, dir, "--daemon", "/bin/false", "--only", "2")
	if status == 0 || !strings.Contains(stderr, "it exited") {
		t.Errorf("status %d, %q", status, stderr)
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
