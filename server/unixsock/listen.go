package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// MaxPath is the size of the longest path of a socket, in bytes: sun_path of unix(7) without the zero at its end.
	MaxPath = 107
	// backlog is the number of connections that wait to be accepted. The kernel takes less if net.core.somaxconn is less.
	backlog = 1<<16 - 1
)

// Error is an error of [Listen]. Its text says what to do about it.
type Error struct {
	Path string
	Err  error
}

// Error returns the text.
func (e *Error) Error() string { return "unix socket " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the reason: [syscall.EADDRINUSE] is wrapped if another process listens at the path.
func (e *Error) Unwrap() error { return e.Err }

// Listener is a socket that listens. Its methods are safe from any goroutine.
type Listener struct {
	*net.UnixListener
	path  string
	made  os.FileInfo // the socket at the path; nil if there was none when it was adopted
	lock  *os.File
	close func() error
	left  atomic.Bool // another process has it as well, and removes the files when it closes it
}

// Listen opens a socket at an absolute path, with a mode (whatever the umask) and a group. The group is a name or a number;
// empty leaves the group that the process gives to its files. Nobody can connect before mode and group are set.
// All errors are an [*Error].
func Listen(path string, mode fs.FileMode, group string) (*Listener, error) {
	l, err := listen(path, mode, group)
	if err != nil {
		return nil, &Error{Path: path, Err: err}
	}
	return l, nil
}

// Close stops listening and removes the socket and its lock. A socket that is not ours, because somebody has replaced it or
// because it is another process's by now, stays.
func (l *Listener) Close() error { return l.close() }

func listen(path string, mode fs.FileMode, group string) (*Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("want an absolute path")
	}
	if len(path) > MaxPath {
		return nil, fmt.Errorf("the path has %d bytes, at most %d are possible: choose a shorter one", len(path), MaxPath)
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	lock, err := acquire(path + lockSuffix)
	if err != nil {
		return nil, err
	}
	l, err := replace(path, mode, gid)
	if err != nil {
		_ = release(path+lockSuffix, lock) // the first error matters
		return nil, err
	}
	l.lock = lock
	l.close = sync.OnceValue(l.shut)
	return l, nil
}

// shut is Close, once. The lock goes last: until then nobody else makes anything at the path.
func (l *Listener) shut() error {
	if l.left.Load() {
		return errors.Join(l.UnixListener.Close(), l.lock.Close())
	}
	return errors.Join(l.UnixListener.Close(), removeSame(l.path, l.made), release(l.path+lockSuffix, l.lock))
}

// groupID returns the number of a group, -1 for an empty name.
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group %s: %w: getent group lists the groups", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// replace makes the socket, after it has removed a stale one. The caller has the lock.
func replace(path string, mode fs.FileMode, gid int) (*Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }() // the listener has a duplicate
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	l, err := open(file, path, mode, gid)
	if err != nil {
		_ = os.Remove(path)
		return nil, err
	}
	return l, nil
}

// open gives the bound socket its mode and group, and only then lets clients in: before listen(2) the kernel refuses them.
func open(file *os.File, path string, mode fs.FileMode, gid int) (*Listener, error) {
	if err := permit(path, mode, gid); err != nil {
		return nil, err
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(int(file.Fd()), backlog); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return &Listener{UnixListener: l.(*net.UnixListener), path: path, made: made}, nil
}

// permit gives the socket its mode and group.
func permit(path string, mode fs.FileMode, gid int) error {
	if gid >= 0 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return fmt.Errorf("group: %w: it must be one of this user's", err)
		}
	}
	return os.Chmod(path, mode.Perm())
}

// removeStale makes the path free if a stale socket is there.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is something that is no socket: remove it, or choose another path")
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	switch {
	case err == nil:
		_ = conn.Close()
		return errInUse
	case errors.Is(err, syscall.ECONNREFUSED): // whoever has made it is gone
		return os.Remove(path)
	case errors.Is(err, fs.ErrNotExist): // meanwhile removed
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EPROTOTYPE): // a full queue; a socket of another type
		return errInUse
	}
	return fmt.Errorf("cannot tell whether another process listens there: %w", err)
}
