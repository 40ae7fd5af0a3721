package takeover

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// parent is the process of the predecessor.
type parent interface {
	// kill ends it at once, even if it is stopped, and nobody else.
	kill()
	// awaitDeath waits until it is dead and all its files are closed, for some time at most, and reports whether it is dead.
	awaitDeath(d time.Duration) bool
}

// parentProcess is the parent of this process, which may be dead.
type parentProcess struct {
	pid   int
	pidfd int // -1 if the parent was dead when it was looked for, or the kernel has none of these descriptors
}

// findParent returns the parent of this process.
func findParent() *parentProcess {
	parent := os.Getppid()
	pidfd, err := unix.PidfdOpen(parent, 0)
	if err != nil {
		return &parentProcess{parent, -1}
	}
	if os.Getppid() != parent { // it has died, and the number may be another one's
		_ = unix.Close(pidfd)
		return &parentProcess{parent, -1}
	}
	return &parentProcess{parent, pidfd}
}

func (p *parentProcess) kill() {
	if p.pidfd >= 0 {
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0) // fails if it is dead
	}
}

func (p *parentProcess) awaitDeath(d time.Duration) bool {
	if p.pidfd < 0 {
		return os.Getppid() != p.pid
	}
	until := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(until) {
		dead := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(dead, int(left.Milliseconds())+1); !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
	return false
}
