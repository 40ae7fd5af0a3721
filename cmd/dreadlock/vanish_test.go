package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// remote is another host: a network namespace, with a link to this one.
type remote struct {
	t       *testing.T
	name    string // of the namespace and of the link at its end
	address string // of this host, as seen from there
}

// newRemote makes a remote host, or skips the test where that is not possible.
func newRemote(t *testing.T) *remote {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	pid := os.Getpid()
	r := &remote{t: t, name: fmt.Sprintf("dlr%d", pid), address: fmt.Sprintf("198.18.%d.%d", pid>>6&255, pid<<2&255|1)}
	here, there := fmt.Sprintf("dlh%d", pid), fmt.Sprintf("198.18.%d.%d", pid>>6&255, pid<<2&255|2)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", here).Run()
		_ = exec.Command("ip", "netns", "del", r.name).Run()
	})
	for _, args := range [][]string{
		{"netns", "add", r.name},
		{"link", "add", here, "type", "veth", "peer", "name", r.name},
		{"link", "set", r.name, "netns", r.name},
		{"addr", "add", r.address + "/30", "dev", here},
		{"link", "set", here, "up"},
		{"-n", r.name, "addr", "add", there + "/30", "dev", r.name},
		{"-n", r.name, "link", "set", r.name, "up"},
	} {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("cannot make a network namespace: ip %q: %v: %s", args, err, output)
		}
	}
	return r
}

// dial connects to the daemon from the remote host.
func (r *remote) dial(d *daemon) *prototest.Client {
	r.t.Helper()
	clients := make(chan *prototest.Client)
	go func() {
		defer close(clients)
		runtime.LockOSThread() // until it is back here
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			r.t.Error(err)
			return
		}
		defer home.Close()
		file, err := os.Open("/run/netns/" + r.name)
		if err != nil {
			r.t.Error(err)
			return
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			r.t.Error(err)
			return
		}
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread() // else it ends with the goroutine
			}
		}()
		clients <- d.dial()
	}()
	c := <-clients
	if c == nil {
		r.t.Fatal("cannot connect from the remote host")
	}
	return c
}

// vanish pulls the plug of the remote host.
func (r *remote) vanish() {
	r.t.Helper()
	if output, err := exec.Command("ip", "-n", r.name, "link", "set", r.name, "down").CombinedOutput(); err != nil {
		r.t.Fatalf("take the link down: %v: %s", err, output)
	}
}

// stuff sends commands until the daemon takes no more, because its answers are not read.
func stuff(t *testing.T, c *prototest.Client) {
	t.Helper()
	var commands []byte
	for range 1000 {
		commands = append(commands, "unlock nobodys\r\n"...)
	}
	if err := c.Conn().SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	for total := 0; ; {
		if err := c.Conn().SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Conn().Write(commands)
		if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		commands = append(commands[n:], commands[:n]...) // from where it stopped
		if total += n; total > 256<<20 {
			t.Fatal("it takes commands without end")
		}
	}
}

// A host that vanishes says nothing, ever. Its clients lose their locks all the same, and the next in line get them:
// those that were silent, and those that were granted a key after that. Who is there and silent loses nothing.
func TestHostVanishes(t *testing.T) {
	d, r := startForRemote(t)
	silent, waiting, here := r.dial(d), r.dial(d), d.dial()
	silent.Do("lock silent 0", "l locked")
	here.Do("lock here 0", "l locked")
	here.Do("lock granted 0", "l locked")
	waiting.Send("unlock nobodys", "lock granted 600000")
	waiting.Expect("e not locked")
	for range 8 { // one of them through the loop of that client: it is in the queue
		d.dial().Do("unlock granted", "e not owner")
	}
	r.vanish()
	here.Do("unlock granted", "u unlocked")
	awaitFree(t, d, "silent", "granted")
	d.dial().Do("lock here 0", "t timeout")
}

// The same for a client that had answers to read: the keepalive of the kernel does not look after such a connection.
func TestHostVanishesUnread(t *testing.T) {
	d, r := startForRemote(t)
	unread := r.dial(d)
	unread.Do("lock unread 0", "l locked")
	stuff(t, unread)
	r.vanish()
	awaitFree(t, d, "unread")
}

func startForRemote(t *testing.T) (*daemon, *remote) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := newRemote(t)
	return startWith(t, launch{}, "--listen", net.JoinHostPort(r.address, "0"), "--loops", "2", "--keepalive", "1s"), r
}

// awaitFree takes keys whose holders are gone.
func awaitFree(t *testing.T, d *daemon, keys ...string) {
	t.Helper()
	began := time.Now()
	for _, key := range keys {
		d.dial().Do("lock "+key+" 60000", "l locked")
		t.Logf("key %s is free after %s", key, time.Since(began).Round(time.Millisecond))
	}
}

// A client that does not read its answers loses nothing as long as its host is there: here they fit into the buffers of
// the kernel, which would give the connection up if it was told to.
func TestSlowReader(t *testing.T) {
	d := start(t, "--keepalive", "1s")
	slow := d.dial()
	if err := slow.Conn().SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	slow.Do("lock a 0", "l locked")
	slow.Write(bytes.Repeat([]byte("unlock nobodys\r\n"), 2000))
	d.dial().Do("lock a 9000", "t timeout") // more than twice the time after which a host is lost
	for range 2000 {
		slow.Expect("e not locked")
	}
}
