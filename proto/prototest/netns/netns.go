// Package netns makes hosts out of network namespaces of the kernel: each has its own interfaces, addresses and connections,
// and nothing of it is left when the process ends, however it ends. It needs root.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Host is a network namespace. Its methods are safe from any goroutine.
type Host struct {
	file *os.File // keeps the namespace alive
}

// New makes a host that has no interface but its loopback, which is up. The namespace has no name, so it ends with the last
// that uses it: this Host, a socket, a process.
func New() (*Host, error) {
	var h *Host
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", os.NewSyscallError("unshare", err))
		}
		h, err = Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := h.IP("link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Open returns the host whose namespace a file stands for, such as /run/netns/NAME.
func Open(path string) (*Host, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	return &Host{file}, nil
}

// Close gives the host up. Its sockets and processes stay.
func (h *Host) Close() error { return h.file.Close() }

// Do calls f on the host: the sockets that f opens on its own goroutine, and the processes that it starts, are of that host.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", os.NewSyscallError("setns", err))
		}
		return f()
	})
}

// IP runs ip(8) on the host.
func (h *Host) IP(args ...string) error {
	return h.Do(func() error {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %q: %w: %s", args, err, output)
		}
		return nil
	})
}

// path returns a file that stands for the namespace while this process has it open.
func (h *Host) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.file.Fd()) }

// errNotReturned is the error of a function that has ended its goroutine, as a failed test does.
var errNotReturned = errors.New("the function on the host has ended its goroutine")

// onThread calls f on a thread that may change its namespace. The thread is brought home afterwards; one that cannot be
// brought home ends.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errNotReturned
		defer func() { done <- err }()
		runtime.LockOSThread() // until the thread is back home
		home, openErr := os.Open("/proc/thread-self/ns/net")
		if openErr != nil {
			runtime.UnlockOSThread()
			err = openErr
			return
		}
		defer home.Close() //nolint:errcheck // it was only read
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("leave a network namespace: %w", os.NewSyscallError("setns", back)))
		} else {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}
