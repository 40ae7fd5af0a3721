package client

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
	"dreadlock/server"
)

// remote is another host, from which the server's can vanish: a network namespace with a link to this one.
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
	r := &remote{t: t, name: fmt.Sprintf("dcr%d", pid), address: fmt.Sprintf("198.19.%d.%d", pid>>6&255, pid<<2&255|1)}
	here, there := fmt.Sprintf("dch%d", pid), fmt.Sprintf("198.19.%d.%d", pid>>6&255, pid<<2&255|2)
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

// do calls f on the remote host: the sockets that it makes on its goroutine are there.
func (r *remote) do(f func()) {
	r.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // until it is back here
		err := func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			away, err := os.Open("/run/netns/" + r.name)
			if err != nil {
				return err
			}
			defer away.Close()
			if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			f()
			return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
		}()
		if err == nil {
			runtime.UnlockOSThread() // else it ends with the goroutine
		}
		done <- err
	}()
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// A server whose host vanishes says nothing, ever. The holder learns that he is none all the same, and so does
// one who unlocks: his command is on its way for ever, and the keepalive does not look after that.
func TestServerHostVanishes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := newRemote(t)
	address, _ := startServer(t, func(cfg *server.Config) { cfg.Listen = net.JoinHostPort(r.address, "0") })
	c := newClient(t, address, Options{KeepAlive: time.Second})
	var silent, unlocking *Lock
	r.do(func() { silent, unlocking = mustLock(t, c, "silent"), mustLock(t, c, "unlocking") })
	limit := c.options.silence() + c.options.probeInterval() + 2*time.Second // what a busy machine may add

	if output, err := exec.Command("ip", "-n", r.name, "link", "set", r.name, "down").CombinedOutput(); err != nil {
		t.Fatalf("take the link down: %v: %s", err, output)
	}
	began := time.Now()
	unlocked := make(chan error, 1)
	go func() { unlocked <- unlocking.Unlock(patient(t)) }()
	wantErr(t, <-unlocked, ErrConnectionLost, syscall.ETIMEDOUT)
	t.Logf("the unlock ended after %s", time.Since(began).Round(time.Millisecond))
	wantLost(t, silent, syscall.ETIMEDOUT)
	took := time.Since(began)
	t.Logf("the loss was known after %s", took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("the loss was known after %s, want %s", took, limit)
	}
}

// What the kernel has been told about a silent host, and about the room for a command.
func TestSocketOptions(t *testing.T) {
	for _, tc := range []struct {
		keepAlive            time.Duration
		idle, interval, user int // s, s, ms
	}{
		{0, 15, 5, 30_000},
		{time.Second, 1, 1, 4_000},
		{time.Minute, 60, 20, 120_000},
		{1 << 62, 32767, 10923, 65_534_000},
	} {
		address, _ := startServer(t, nil)
		l := mustLock(t, newClient(t, address, Options{KeepAlive: tc.keepAlive}), "a")
		raw, err := l.conn.sock.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			// The kernel doubles what it was told, for its own needs.
			if got, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); got != 8*proto.MaxCommand || err != nil {
				t.Errorf("the buffer has %d bytes, %v", got, err)
			}
			for option, want := range map[int]int{
				unix.TCP_KEEPIDLE:     tc.idle,
				unix.TCP_KEEPINTVL:    tc.interval,
				unix.TCP_KEEPCNT:      keepAliveProbes,
				unix.TCP_USER_TIMEOUT: tc.user,
			} {
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); got != want || err != nil {
					t.Errorf("keepalive %s: option %d is %d, %v, want %d", tc.keepAlive, option, got, err, want)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, l)
	}
}
