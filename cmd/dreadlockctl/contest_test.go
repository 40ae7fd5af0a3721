package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/proto/prototest/netns"
)

// contest is a daemon, and dreadlockctl processes that want one key for a writer each.
type contest struct {
	t       *testing.T
	network *network // nil if all are on one host
	dir     string
	path    string   // of the file that is written to
	starts  *os.File // a pipe, where each writer says that it starts
	lines   *bufio.Reader
	daemon  *viewed
	all     map[string]contestant // by label
	begun   int
	token   uint64         // of the last writer that has started
	heal    func()         // undoes the last cut
	lost    map[string]int // by the name of the loss
}

// contestant is a dreadlockctl on a host.
type contestant struct {
	*job
	host    *netns.Host // of its own; nil without a network
	address string      // of the host
}

// newContest makes a contest of three.
func newContest(t *testing.T, n *network) *contest {
	t.Helper()
	dir := t.TempDir()
	c := &contest{
		t: t, network: n, dir: dir, path: filepath.Join(dir, "tokens"),
		all: map[string]contestant{}, heal: func() {}, lost: map[string]int{},
	}
	pipe := filepath.Join(dir, "starts")
	if err := errors.Join(os.WriteFile(c.path, nil, 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.starts, err = os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.starts.Close() })
	c.lines = bufio.NewReader(c.starts)
	address := "127.0.0.1"
	if n != nil {
		address = n.address
	}
	c.serve(net.JoinHostPort(address, "0"))
	for range 3 {
		var by contestant
		if n != nil {
			by.host, by.address = n.join()
		}
		c.enter(by)
	}
	return c
}

// on calls f on a host, or just so without one.
func (c *contest) on(h *netns.Host, f func()) {
	c.t.Helper()
	if h == nil {
		f()
		return
	}
	c.network.on(h, f)
}

// serve starts the daemon.
func (c *contest) serve(address string) {
	c.t.Helper()
	var host *netns.Host
	if c.network != nil {
		host = c.network.host
	}
	c.on(host, func() {
		d := startDaemonAt(c.t, c.dir, address, "--lock-delay", lossDelay.String(), "--keepalive", lossKeepAlive.String())
		c.daemon = &viewed{daemon: d, tb: c.t, url: d.adminSocket(c.dir)}
	})
}

// enter starts a contestant, on the host that it has.
func (c *contest) enter(by contestant) {
	c.t.Helper()
	label := strconv.Itoa(c.begun)
	c.begun++
	c.on(by.host, func() {
		by.job = begin(c.t, []string{"DREADLOCK_SERVER=" + c.daemon.address},
			append([]string{"lock", "work", "--restart", "--grace", "1s"}, childCommand("write", c.path, c.starts.Name(), label)...)...)
	})
	c.all[label] = by
}

// next waits until a writer starts, and returns its label.
func (c *contest) next() string {
	c.t.Helper()
	if err := c.starts.SetReadDeadline(time.Now().Add(*lossDelay + prototest.Patience)); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.lines.ReadString('\n')
	if err != nil {
		for label, by := range c.all {
			c.t.Logf("contestant %s: %s", label, by.stderr)
		}
		c.t.Fatalf("nobody writes any more: %v; the daemon: %s", err, c.daemon.log)
	}
	token, label := parseToken(c.t, line)
	if token <= c.token {
		c.t.Errorf("writer %s has token %d after %d", label, token, c.token)
	}
	c.token = token
	return label
}

// parseToken parses a line of a writer.
func parseToken(t *testing.T, line string) (token uint64, label string) {
	t.Helper()
	if _, err := fmt.Sscan(line, &token, &label); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return token, label
}

// replace ends a contestant, and starts another in its place.
func (c *contest) replace(label string, s syscall.Signal) {
	c.t.Helper()
	by := c.all[label]
	by.signal(s)
	delete(c.all, label)
	c.enter(by)
}

// cut cuts a contestant off.
func (c *contest) cut(label, ways string) {
	c.t.Helper()
	n, address := c.network, c.all[label].address
	n.set(n.router.Cut, address, ways, netns.Drop)
	c.heal = func() { n.set(n.router.Heal, address, ways, netns.Drop) }
}

// run takes the key from one holder after another, until all losses were drawn.
func (c *contest) run(kinds []loss, drawn *atomic.Int64) {
	c.t.Helper()
	for {
		label := c.next()
		c.heal() // the next one has the key in spite of the cut
		c.heal = func() {}
		n := drawn.Add(1) - 1
		if n >= int64(*losses) {
			return
		}
		<-time.After(rand.N(holdTime)) // some time between two heartbeats
		l := kinds[n%int64(len(kinds))]
		l.take(c, label)
		c.lost[l.name]++
	}
}

// writers returns how many have written to the file, one after another.
func (c *contest) writers() (n int) {
	c.t.Helper()
	file, err := os.Open(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	greatest, last := uint64(0), ""
	violations := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if lines.Text() == last {
			continue
		}
		last = lines.Text()
		token, label := parseToken(c.t, last)
		switch {
		case token > greatest:
			n, greatest = n+1, token
		case token < greatest:
			if violations++; violations == 1 {
				c.t.Errorf("writer %s with token %d writes after token %d", label, token, greatest)
			}
		}
	}
	if violations > 0 {
		c.t.Errorf("%d times a former writer has written", violations)
	}
	return n
}
