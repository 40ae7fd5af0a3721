package reactor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// gnet has no call that pauses reading, and its input buffer grows without bound. This file reaches around it: it finds the
// epoll instance of a loop and changes what that watches a connection for. It also finds the eventfd by which gnet wakes
// the loop: see wake.go. Everything that depends on how gnet uses epoll stands here, and poll_test.go fails when a new gnet
// does it differently.

// interest is what an epoll instance watches a connection for. Errors and a hang-up of both sides are always reported.
type interest uint32

const (
	// watchInput is gnet's own mask of a connection that has nothing to write.
	watchInput interest = unix.EPOLLIN | unix.EPOLLPRI
	// watchHangup reads nothing and still learns that the peer has ended: gnet closes the connection then.
	watchHangup interest = unix.EPOLLRDHUP
	// watchNothing is for a peer that has output to read first.
	watchNothing interest = 0
)

// setInterest changes what the epoll instance watches the descriptor for.
func setInterest(epoll, fd int, want interest) error {
	ev := unix.EpollEvent{Events: uint32(want), Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_MOD, fd, &ev))
}

// unwatch takes a socket out of an epoll instance. gnet does so itself when it closes one, but ignores an error, and the instance
// would go on to report a socket that lives on as a duplicate, under a number that is another's by then.
func unwatch(epoll, fd int) error {
	if epoll < 0 {
		return nil // there is nothing to do it with
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil))
}

// findEpoll returns the descriptor of the epoll instance that watches fd. The kernel lists, for every epoll instance of
// the process, the descriptors that it watches.
func findEpoll(fd int) (int, error) {
	infos, err := os.ReadDir(fdinfo)
	if err != nil {
		return -1, fmt.Errorf("find the epoll instance of a loop: %w", err)
	}
	for _, info := range infos {
		text, err := os.ReadFile(filepath.Join(fdinfo, info.Name()))
		if err != nil {
			continue // closed since the directory was read
		}
		if slices.Contains(watchedBy(text), fd) {
			return strconv.Atoi(info.Name())
		}
	}
	return -1, fmt.Errorf("find the epoll instance of a loop: none in %s watches descriptor %d", fdinfo, fd)
}

// findEventfd returns the descriptor of the eventfd that an epoll instance of gnet's watches, by which gnet wakes the loop.
func findEventfd(epoll int) (int, error) {
	text, err := os.ReadFile(filepath.Join(fdinfo, strconv.Itoa(epoll)))
	if err != nil {
		return -1, fmt.Errorf("find the eventfd of a loop: %w", err)
	}
	for _, fd := range watchedBy(text) {
		if kind, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && kind == "anon_inode:[eventfd]" {
			return fd, nil
		}
	}
	return -1, fmt.Errorf("find the eventfd of a loop: its epoll instance, descriptor %d, watches none", epoll)
}

// fdinfo is where the kernel says what it knows of the descriptors of this process.
const fdinfo = "/proc/self/fdinfo"

// watchedBy returns the descriptors that an epoll instance watches, by the text of its fdinfo file: lines
// "tfd: 12 events: 19 ...".
func watchedBy(text []byte) (fds []int) {
	for line := range bytes.Lines(text) {
		target, found := bytes.CutPrefix(line, []byte("tfd:"))
		if !found {
			continue
		}
		if fields := bytes.Fields(target); len(fields) > 0 {
			if fd, err := strconv.Atoi(string(fields[0])); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	return fds
}
