package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A long run takes seven minutes: go test ./cmd/dreadlockctl -run TestLosses -v -timeout 30m -losses 200 -lock-delay 15s.
var (
	losses    = flag.Int("losses", 8, "number of times that TestLosses takes a key from its holder")
	lossDelay = flag.Duration("lock-delay", 3*time.Second, "lock delay of TestLosses: many times what a writer takes to stop")
)

const (
	// maxContests is how many contests there are at a time, at most. Each waits for its lock delay most of the time.
	maxContests = 8
	// stopTime is how long a writer goes on after it was told to stop.
	stopTime = 200 * time.Millisecond
	// holdTime is the longest time for which a writer has the key. It is more than that between two heartbeats.
	holdTime = time.Second
	// lossKeepAlive is that of the daemons. It bounds how long a cut takes, and is long for a busy machine.
	lossKeepAlive = 2 * time.Second
)

// writeToken is a child that appends lines with its fencing token and a label to a file, and says so once in a pipe. Told to
// stop, it takes its time.
func writeToken(path, starts, label string) int {
	caught := notified(syscall.SIGTERM)
	line := fmt.Sprintf("%s %s\n", os.Getenv("DREADLOCK_FENCE"), label)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		defer file.Close()
		_, err = file.WriteString(line)
	}
	if err := errors.Join(err, os.WriteFile(starts, []byte(line), 0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var end <-chan time.Time
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-caught:
			end = time.After(stopTime)
		case <-end:
			return 0
		}
		if _, err := file.WriteString(line); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// A loss is a way to take the key from its holder, the contestant with a label.
type loss struct {
	name string
	take func(c *contest, label string)
}

// lossesHere are those that need no network, and cutLosses the others.
var (
	lossesHere = []loss{
		{"kick", func(c *contest, _ string) {
			c.daemon.eventually("kick --holder-of work --yes", func(o outcome) bool { return o.status == 0 })
		}},
		{"daemon killed", func(c *contest, _ string) {
			c.daemon.kill()
			c.serve(c.daemon.address)
		}},
		{"killed", func(c *contest, label string) { c.replace(label, syscall.SIGKILL) }},
		{"daemon restarted", func(c *contest, _ string) {
			_ = c.daemon.cmd.Process.Signal(syscall.SIGTERM)
			_ = c.daemon.cmd.Wait()
			c.serve(c.daemon.address)
		}},
		{"signal", func(c *contest, label string) { c.replace(label, syscall.SIGTERM) }},
	}
	cutLosses = []loss{
		{"cut both ways", func(c *contest, label string) { c.cut(label, "both") }},
		{"cut to the daemon", func(c *contest, label string) { c.cut(label, "out") }},
		{"cut from the daemon", func(c *contest, label string) { c.cut(label, "in") }},
	}
)

// However a key is lost, the writer that has it next writes after the last line of the one before: of the tokens in the file none
// is smaller than the one before it. Each writer goes on for a moment when it is told to stop.
func TestLosses(t *testing.T) {
	if testing.Short() {
		t.Skip("each loss takes some seconds")
	}
	t.Parallel() // it mostly waits
	began := time.Now()
	kinds := lossesHere
	n, err := newNetwork(t)
	if err == nil {
		kinds = append(kinds[:len(kinds):len(kinds)], cutLosses...)
	} else {
		t.Logf("without cuts of the network: %v", err)
	}
	var (
		contests []*contest
		drawn    atomic.Int64
		running  sync.WaitGroup
	)
	for range max(1, min(*losses/2, maxContests)) {
		c := newContest(t, n)
		contests = append(contests, c)
		running.Go(func() { c.run(kinds, &drawn) })
	}
	running.Wait()
	writers, total, lost := 0, 0, map[string]int{}
	for _, c := range contests {
		writers += c.writers()
		for name, n := range c.lost {
			total, lost[name] = total+n, lost[name]+n
		}
	}
	t.Logf("%d losses in %d contests and %s: %v; %d writers", total, len(contests), time.Since(began).Round(time.Second), lost, writers)
	if total != *losses || writers < total+len(contests) {
		t.Errorf("%d losses and %d writers, want %d and at least %d", total, writers, *losses, *losses+len(contests))
	}
}
