package takeover

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"dreadlock/server/unixsock"
)

// AdminKey begins the keys of the listeners of the admin interface.
const AdminKey = "admin:"

// Listener is a listening socket that goes to the successor. The kernel's queue of connections goes with it.
type Listener struct {
	// Key says what it is: the successor takes those of which it has options with the same key.
	Key    string
	Socket *os.File
	// Lock is the lock file of a Unix socket, nil if there is none. It stays locked as long as one of the two processes has it open.
	Lock *os.File
}

// NewListener returns one with duplicates of a listener and of its lock file, which may be nil. They are to be closed.
func NewListener(key string, l net.Listener, lock *os.File) (*Listener, error) {
	socket, ok := l.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%s is a %T, which cannot be passed", key, l)
	}
	passed := &Listener{Key: key}
	var err error
	if passed.Socket, err = duplicate(key, socket); err != nil {
		return nil, err
	}
	if lock != nil {
		if passed.Lock, err = duplicate(lock.Name(), lock); err != nil {
			passed.Close()
			return nil, err
		}
	}
	return passed, nil
}

// duplicate leaves the original as it is, which File and Fd of the standard library do not: they let it block.
func duplicate(name string, original syscall.Conn) (*os.File, error) {
	raw, err := original.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	if failed := raw.Control(func(original uintptr) { fd, err = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 3) }); failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Listen returns a listener of the socket, and closes the file. The lock stays open.
func (l *Listener) Listen() (net.Listener, error) {
	listener, err := net.FileListener(l.Socket)
	_ = l.Socket.Close() // the listener has a duplicate
	if err != nil {
		return nil, fmt.Errorf("the passed socket %s: %w", l.Key, err)
	}
	return listener, nil
}

// Address returns the address of a TCP socket as host:port, empty for another one.
func (l *Listener) Address() string {
	name, err := unix.Getsockname(int(l.Socket.Fd()))
	if err != nil {
		return ""
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port)).String()
	}
	return ""
}

// Close closes both files.
func (l *Listener) Close() {
	_ = l.Socket.Close() // nothing was written; nil is an error and nothing else
	_ = l.Lock.Close()
}

// ListenUnix is Listen for a Unix socket with its lock: see [unixsock.Address.Adopt].
func (l *Listener) ListenUnix(address unixsock.Address) (*unixsock.Listener, error) {
	socket, err := l.Listen()
	if err != nil {
		_ = l.Lock.Close()
		return nil, err
	}
	return address.Adopt(socket, l.Lock)
}

// Discard closes a listener that is wanted no more, and removes the files of a Unix socket with a lock. The predecessor must not serve
// any more.
func (l *Listener) Discard() {
	if l.Lock == nil {
		l.Close()
		return
	}
	path := ""
	if name, err := unix.Getsockname(int(l.Socket.Fd())); err == nil {
		if name, ok := name.(*unix.SockaddrUnix); ok {
			path = name.Name
		}
	}
	if adopted, err := l.ListenUnix(unixsock.Address{Path: path}); err == nil {
		adopted.Disclaim()
	}
}

// descriptors returns what goes over, in the order in which hello announces it.
func descriptors(listeners []*Listener) (all []int) {
	for _, l := range listeners {
		all = append(all, int(l.Socket.Fd()))
		if l.Lock != nil {
			all = append(all, int(l.Lock.Fd()))
		}
	}
	return all
}

// announce adds the listeners to what the predecessor says first.
func (h *Hello) announce(listeners []*Listener) {
	for _, l := range listeners {
		h.Listeners = append(h.Listeners, l.Key)
		h.Locks = append(h.Locks, l.Lock != nil)
	}
}

// announced returns how many descriptors follow.
func (h *Hello) announced() (count int, err error) {
	if len(h.Locks) != len(h.Listeners) {
		return 0, fmt.Errorf("%d listeners, and %d of them with or without a lock", len(h.Listeners), len(h.Locks))
	}
	for _, locked := range h.Locks {
		count++
		if locked {
			count++
		}
	}
	return count, nil
}

// listeners joins the descriptors that come with what was announced.
func (h *Hello) listeners(next func() (fd int, err error)) (all []*Listener, err error) {
	file := func(name string) (f *os.File) {
		if err != nil {
			return nil
		}
		var fd int
		if fd, err = next(); err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return f
	}
	for i, key := range h.Listeners {
		l := &Listener{Key: key, Socket: file(key)}
		if h.Locks[i] {
			l.Lock = file(key + ".lock")
		}
		all = append(all, l)
	}
	if err != nil {
		for _, l := range all {
			l.Close()
		}
		return nil, err
	}
	return all, nil
}
