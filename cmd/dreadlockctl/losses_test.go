package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// losses is how often TestLosses takes the key from its holder.
var losses = flag.Int("losses", 8, "number of times that TestLosses takes the key from its holder")

const (
	// lossDelay is the lock delay of TestLosses: many times what a writer takes to stop.
	lossDelay = 3 * time.Second
	// stopTime is how long a writer goes on after it was told to stop.
	stopTime = 200 * time.Millisecond
)

// writeToken is a child that appends lines with its fencing token and a label to a file, after one to a pipe. Told to stop, it
// takes its time.
func writeToken(path, starts, label string) int {
	caught := notified(syscall.SIGTERM)
	line := fmt.Sprintf("%s %s\n", os.Getenv("DREADLOCK_FENCE"), label)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		defer file.Close()
		err = os.WriteFile(starts, []byte(line), 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var end <-chan time.Time
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := file.WriteString(line); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		select {
		case <-tick.C:
		case <-caught:
			end = time.After(stopTime)
		case <-end:
			return 0
		}
	}
}

// contest is a daemon, and dreadlockctl processes that want one key for a writer each.
type contest struct {
	t       *testing.T
	path    string   // of the file that is written to
	starts  *os.File // a pipe, where each writer says that it starts
	address string
	daemon  *viewed
	jobs    map[string]*job // by label
	begun   int
}

// enter adds a contestant.
func (c *contest) enter() {
	c.t.Helper()
	label := strconv.Itoa(c.begun)
	c.begun++
	c.jobs[label] = begin(c.t, []string{"DREADLOCK_SERVER=" + c.address},
		append([]string{"lock", "work", "--restart", "--grace", "1s"}, childCommand("write", c.path, c.starts.Name(), label)...)...)
}

// serve starts the daemon.
func (c *contest) serve(address string) {
	c.t.Helper()
	c.daemon = startViewed(c.t, "--listen", address, "--lock-delay", lossDelay.String())
	c.address = c.daemon.address
}

// next waits until a writer starts, and returns its token and its label.
func (c *contest) next() (token uint64, label string) {
	c.t.Helper()
	if err := c.starts.SetReadDeadline(time.Now().Add(lossDelay + prototest.Patience)); err != nil {
		c.t.Fatal(err)
	}
	var line [64]byte
	n, err := c.starts.Read(line[:])
	if err != nil {
		c.t.Fatalf("nobody writes any more: %v", err)
	}
	return parseToken(c.t, string(line[:n]))
}

// parseToken parses a line of a writer.
func parseToken(t *testing.T, line string) (token uint64, label string) {
	t.Helper()
	if _, err := fmt.Sscan(line, &token, &label); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return token, label
}

// lose takes the key from its holder, the contestant with that label, in one of several ways.
func (c *contest) lose(way int, label string) string {
	c.t.Helper()
	replace := func(s syscall.Signal) {
		c.jobs[label].signal(s)
		delete(c.jobs, label)
		c.enter()
	}
	switch way % 5 {
	case 0:
		got := c.daemon.ctl("kick", "--holder-of", "work", "--yes")
		if got.status != 0 {
			c.t.Errorf("kick: %+v", got)
		}
		return "kick"
	case 1:
		c.daemon.kill()
		c.serve(c.address)
		return "daemon killed"
	case 2:
		replace(syscall.SIGKILL)
		return "killed"
	case 3:
		_ = c.daemon.cmd.Process.Signal(syscall.SIGTERM)
		_ = c.daemon.cmd.Wait()
		c.serve(c.address)
		return "daemon restarted"
	default:
		replace(syscall.SIGTERM)
		return "signal"
	}
}

// However a key is lost, the writer that has it next writes after the last line of the one before: of the tokens in the file none
// is smaller than the one before it. Each writer goes on for a moment when it is told to stop.
func TestLosses(t *testing.T) {
	if testing.Short() {
		t.Skip("each loss takes some seconds")
	}
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	c := &contest{t: t, path: filepath.Join(dir, "tokens"), jobs: map[string]*job{}}
	pipe := filepath.Join(dir, "starts")
	if err := errors.Join(os.WriteFile(c.path, nil, 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.starts, err = os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.starts.Close() })
	c.serve("127.0.0.1:0")
	for range 3 {
		c.enter()
	}
	ways := map[string]int{}
	for way := range *losses {
		_, label := c.next()
		ways[c.lose(way, label)]++
	}
	c.next()

	file, err := os.Open(c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	writers, greatest := 0, uint64(0)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		token, label := parseToken(t, lines.Text())
		switch {
		case token < greatest:
			t.Fatalf("writer %s with token %d writes after token %d", label, token, greatest)
		case token > greatest:
			writers, greatest = writers+1, token
		}
	}
	t.Logf("%d writers, one after another; lost by %v", writers, ways)
	if writers < *losses {
		t.Errorf("%d writers in %d losses", writers, *losses)
	}
}
