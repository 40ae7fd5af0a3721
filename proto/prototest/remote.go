package prototest

import (
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"dreadlock/proto/prototest/netns"
)

// Remote is another host, which can vanish without a word: a network namespace that is linked to this one. A process can
// have four at a time.
type Remote struct {
	// Address is the address of this host, as seen from there.
	Address string

	tb   testing.TB
	name string // of the namespace and of the link at its end
}

// remotes is the number of hosts that this process has made.
var remotes atomic.Int32

// NewRemote makes a remote host, or skips the test if that is not possible. The host is removed at the end of the test.
func NewRemote(tb testing.TB) *Remote {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("only root can make a network namespace")
	}
	// Addresses and names are made from the process id and a number, as tests of several packages, and of one, run at a time.
	id := os.Getpid()<<2 | int(remotes.Add(1)&3)
	subnet := fmt.Sprintf("198.%d.%d.", 18+id>>14&1, id>>6&255)
	r := &Remote{tb: tb, name: fmt.Sprintf("dlr%d", id), Address: fmt.Sprint(subnet, id<<2&255|1)}
	here, there := fmt.Sprintf("dlh%d", id), fmt.Sprint(subnet, id<<2&255|2)
	tb.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", here).Run()
		_ = exec.Command("ip", "netns", "del", r.name).Run()
	})
	for _, args := range [][]string{
		{"netns", "add", r.name},
		{"link", "add", here, "type", "veth", "peer", "name", r.name},
		{"link", "set", r.name, "netns", r.name},
		{"addr", "add", r.Address + "/30", "dev", here},
		{"link", "set", here, "up"},
		{"-n", r.name, "addr", "add", there + "/30", "dev", r.name},
		{"-n", r.name, "link", "set", r.name, "up"},
	} {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			tb.Skipf("cannot make a network namespace: ip %q: %v: %s", args, err, output)
		}
	}
	return r
}

// Do calls f on the remote host: sockets that f opens on its own goroutine are sockets of that host.
func (r *Remote) Do(f func()) {
	r.tb.Helper()
	host, err := netns.Open("/run/netns/" + r.name)
	if err == nil {
		defer func() { _ = host.Close() }()
		err = host.Do(func() error {
			f()
			return nil
		})
	}
	if err != nil {
		r.tb.Fatal(err)
	}
}

// Vanish takes the link of the remote host down: from then on it sends and receives nothing.
func (r *Remote) Vanish() {
	r.tb.Helper()
	if output, err := exec.Command("ip", "-n", r.name, "link", "set", r.name, "down").CombinedOutput(); err != nil {
		r.tb.Fatalf("take the link down: %v: %s", err, output)
	}
}
