package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/proto/prototest/netns"
	"dreadlock/server/api"
)

// network is a daemon's host and those of its clients, joined by a router that can be cut at each.
type network struct {
	tb      testing.TB
	router  *netns.Router
	host    *netns.Host // of the daemons
	address string      // of that
	program string      // dreadlockctl without the race detector, which multiplies the time that it needs
	keys    int
}

// newNetwork makes the network. It returns an error if that is not possible here.
func newNetwork(tb testing.TB) (*network, error) {
	tb.Helper()
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("cannot make links between network namespaces: %w", err)
	}
	router, err := netns.NewRouter()
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { router.Close() })
	n := &network{tb: tb, router: router}
	n.host, n.address = n.join()
	return n, nil
}

// build builds the program.
func (n *network) build() {
	n.tb.Helper()
	n.program = filepath.Join(n.tb.TempDir(), "dreadlockctl")
	if output, err := exec.Command("go", "build", "-o", n.program, ".").CombinedOutput(); err != nil {
		n.tb.Fatalf("build: %v\n%s", err, output)
	}
}

func (n *network) join() (*netns.Host, string) {
	n.tb.Helper()
	h, address, err := n.router.Join()
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { h.Close() })
	return h, address
}

// on calls f on a host.
func (n *network) on(h *netns.Host, f func()) {
	n.tb.Helper()
	if err := h.Do(func() error { f(); return nil }); err != nil {
		n.tb.Fatal(err)
	}
}

// start starts a daemon, at the port 6000 and the seconds of its keepalive.
func (n *network) start(keepAlive time.Duration) (d *daemon, address string) {
	n.tb.Helper()
	address = net.JoinHostPort(n.address, fmt.Sprint(6000+int(keepAlive.Seconds())))
	n.on(n.host, func() { d = startDaemon(n.tb, "--keepalive", keepAlive.String(), "--listen", address) })
	return d, address
}

// set cuts the host with an address off, or undoes that. The ways are those of a [cutOff].
func (n *network) set(change func(from, to, how string) error, address, ways, how string) {
	n.tb.Helper()
	var out, in error
	if ways != "in" {
		out = change(address, n.address, how)
	}
	if ways != "out" {
		in = change(n.address, address, how)
	}
	if err := errors.Join(out, in); err != nil {
		n.tb.Error(err)
	}
}

// near connects to a daemon on its own host.
func (n *network) near(d *daemon) (c *prototest.Client) {
	n.tb.Helper()
	n.on(n.host, func() { c = d.dial(n.tb) })
	return c
}

// A cutOff is a way to cut the host of a holder off.
type cutOff struct {
	keepAlive time.Duration // of the daemon
	ways      string        // out: from the holder to the daemon; in: the other one; both
	how       string        // netns.Drop or netns.Reject
	what      string        // what else there is: see cuts
}

// cuts are all that the test does.
func cuts() (all []cutOff) {
	// With a second the margin is 0.7 s, and a busy machine misses that.
	for _, keepAlive := range []time.Duration{2 * time.Second, 3 * time.Second, 5 * time.Second} {
		for _, ways := range []string{"both", "out", "in"} {
			all = append(all, cutOff{keepAlive, ways, netns.Drop, "ignores SIGTERM"}, cutOff{keepAlive, ways, netns.Reject, "ignores SIGTERM"})
		}
		all = append(all,
			cutOff{keepAlive, "both", netns.Drop, "ends at SIGTERM"},
			cutOff{keepAlive, "out", netns.Drop, "granted late"}, // the holder has waited until then
			cutOff{keepAlive, "in", netns.Drop, "healed"},        // when the command is being ended
		)
	}
	return all
}

func (c cutOff) String() string {
	return fmt.Sprintf("keepalive %s, %s, %s, %s", c.keepAlive, c.ways, c.how, c.what)
}

// silence is the time after which the daemon takes a silent host for lost.
func (c cutOff) silence() time.Duration { return 2 * c.keepAlive }

// Whatever is cut, the command of the holder has ended before the daemon tells the next one that he has the key.
func TestCommandEndsBeforeNextIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	n, err := newNetwork(t)
	if err != nil {
		t.Skip(err)
	}
	n.build()
	daemons, addresses := map[time.Duration]*daemon{}, map[time.Duration]string{}
	var all sync.WaitGroup
	for _, c := range cuts() {
		if daemons[c.keepAlive] == nil {
			daemons[c.keepAlive], addresses[c.keepAlive] = n.start(c.keepAlive)
		}
		h := n.newHolding(c, daemons[c.keepAlive], addresses[c.keepAlive])
		all.Go(h.run)
	}
	all.Wait()
}

// holding is a holder of which the host is cut off.
type holding struct {
	cutOff
	*network
	d       *daemon
	host    *netns.Host
	address string // of the host
	key     string
	server  string // address of the daemon
	guard   *os.File
	file    string // locked by the command while it runs
}

func (n *network) newHolding(c cutOff, d *daemon, server string) *holding {
	n.tb.Helper()
	n.keys++
	h := &holding{cutOff: c, network: n, d: d, server: server, key: fmt.Sprintf("k%d", n.keys)}
	h.host, h.address = n.join()
	h.file = filepath.Join(n.tb.TempDir(), h.key)
	var err error
	if h.guard, err = os.Create(h.file); err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { h.guard.Close() })
	return h
}

// lock starts dreadlockctl on the host.
func (h *holding) lock() (j *job) {
	role := "guard"
	if h.what == "ends at SIGTERM" {
		role = "guard-until-term"
	}
	args := append([]string{"lock", h.key, "--server", h.server}, childCommand(role, h.file)...)
	// As fast as the machine can: what is tested are times, and as a rule each of these processes has the machine for itself.
	h.on(h.host, func() {
		j = beginCommand(h.tb, nil, exec.Command("nice", append([]string{"-n", "-20", h.program}, args...)...))
	})
	return j
}

func (h *holding) run() {
	if h.what == "granted late" {
		h.grantLate()
		return
	}
	j := h.lock()
	j.stdout.await(h.tb, "ready\n")
	next := h.near(h.d)
	next.Send("lock " + h.key + " 600000")
	<-time.After(rand.N(4 * time.Second)) // some time between two heartbeats, and not all at a time
	began := time.Now()
	h.set(h.router.Cut, h.address, h.ways, h.how)
	var healing sync.WaitGroup
	defer healing.Wait() // the router is closed at the end of the test
	if h.what == "healed" {
		healing.Go(func() {
			j.stderr.await(h.tb, "ending the command")
			h.set(h.router.Heal, h.address, h.ways, h.how)
		})
	}
	ended := make(chan time.Time, 1)
	go func() {
		_ = syscall.Flock(int(h.guard.Fd()), syscall.LOCK_SH)
		ended <- time.Now()
	}()
	next.Expect("l locked")
	told := time.Now()
	after := told.Sub(began).Round(time.Millisecond)
	if h.runs() {
		h.tb.Errorf("%s: told after %s, and the command still runs", h, after)
	}
	select {
	case at := <-ended:
		h.tb.Logf("%s: told after %s, the command had ended %s before", h, after, told.Sub(at).Round(time.Millisecond))
	case <-time.After(2 * prototest.Patience):
		h.tb.Errorf("%s: the command has not ended for a long time", h)
	}
}

// runs reports whether the command runs.
func (h *holding) runs() bool {
	file, err := os.Open(h.file)
	if err != nil {
		h.tb.Error(err)
		return false
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// grantLate cuts the way to the daemon while the holder waits, and lets the daemon grant it the key when its time is nearly
// half over. The holder never runs its command: it finds out that the daemon does not hear it.
func (h *holding) grantLate() {
	first := h.near(h.d)
	first.Do("lock "+h.key+" 0", "l locked")
	j := h.lock()
	h.awaitWaiters(1)
	next := h.near(h.d)
	next.Send("lock " + h.key + " 600000")
	h.awaitWaiters(2)
	began := time.Now()
	h.set(h.router.Cut, h.address, h.ways, h.how)
	<-time.After(h.silence() * 2 / 5)
	first.Do("unlock "+h.key, "u unlocked")
	next.Expect("l locked")
	h.tb.Logf("%s: told after %s", h, time.Since(began).Round(time.Millisecond))
	j.stderr.await(h.tb, "trying again")
	if h.runs() || j.stdout.len() > 0 {
		h.tb.Errorf("%s: the command has run", h)
	}
}

// awaitWaiters waits until the key has so many waiters.
func (h *holding) awaitWaiters(want int) {
	socket := h.d.adminSocket(runtimeDir)
	eventually(h.tb, func() (bool, any) {
		got := runs(h.tb, "waiters", h.key, "--json", "--admin", socket)
		var key api.Key
		err := json.Unmarshal([]byte(got.stdout), &key)
		return err == nil && key.Waiters == want, got
	})
}
