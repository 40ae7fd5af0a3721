package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
)

// A listener goes to another process with its lock:
//
//	Lock, Leave ──► Adopt ──► Own
//
// The one that has it keeps the files at the path until Leave, and the other one removes them only after Own. In between nobody
// does.

// Lock returns the lock file. It stays the listener's.
func (l *Listener) Lock() *os.File { return l.lock }

// Leave says that the socket is another process's, which has it as well: Close leaves the files where they are.
func (l *Listener) Leave() { l.left.Store(true) }

// Adopt makes a listener of a socket that another process has opened by [Address.Listen] at the same path, perhaps with another mode or
// group, and of its lock. Both are the listener's then. Until Own nothing changes at the path, not even by Close. After an error, an
// [*Error], both are closed.
func (a Address) Adopt(socket net.Listener, lock *os.File) (*Listener, error) {
	l, err := a.adopt(socket, lock)
	if err != nil {
		_ = socket.Close()
		_ = lock.Close()
		return nil, &Error{Path: a.Path, Err: err}
	}
	return l, nil
}

func (a Address) adopt(socket net.Listener, lock *os.File) (*Listener, error) {
	unixSocket, ok := socket.(*net.UnixListener)
	if !ok || lock == nil {
		return nil, errors.New("what was passed is no Unix socket with its lock")
	}
	if _, err := groupID(a.Group); err != nil {
		return nil, err
	}
	l := &Listener{UnixListener: unixSocket, path: a.Path, lock: lock}
	if made, err := os.Lstat(a.Path); err == nil && made.Mode().Type() == fs.ModeSocket {
		l.made = made
	}
	l.close = sync.OnceValue(l.shut)
	l.left.Store(true)
	return l, nil
}

// Own says that the listener is this process's alone, and gives the socket the mode and the group of the address. After an error,
// an [*Error], it is owned all the same.
func (a Address) Own(l *Listener) error {
	l.left.Store(false)
	if l.made == nil {
		return nil
	}
	gid, err := groupID(a.Group)
	if err == nil {
		err = permit(a.Path, a.Mode, gid)
	}
	if err != nil {
		return &Error{Path: a.Path, Err: err}
	}
	return nil
}

// Disclaim closes a listener that was adopted and is wanted no more, with its files: it is this process's alone.
func (l *Listener) Disclaim() {
	l.left.Store(false)
	_ = l.Close() // there is nobody to tell
}
