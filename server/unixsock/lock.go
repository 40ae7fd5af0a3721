package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// errInUse is the error if another process listens at the path.
var errInUse = fmt.Errorf("%w: stop the process that listens there (ss -lxp shows it), or choose another path", syscall.EADDRINUSE)

// lockSuffix makes the name of the lock file from that of the socket.
const lockSuffix = ".lock"

// acquire makes the lock file and locks it. A holder removes the file, so what was locked may be no longer what has the
// name:
//
//  1. A has the lock; B opens the file.
//  2. A removes the file and releases it.
//  3. B locks what it has opened, while C makes a new file of the name and locks that.
//
// Therefore B looks whether its file still has the name, and begins again if not.
func acquire(name string) (*os.File, error) {
	for {
		file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, cannotMake(name, err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errInUse
			}
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		opened, err := file.Stat()
		if err != nil {
			_ = file.Close()
			return nil, err
		}
		if named, err := os.Lstat(name); err == nil && os.SameFile(opened, named) {
			return file, nil
		}
		_ = file.Close()
	}
}

// release removes the lock file while it is still locked, then unlocks it.
func release(name string, file *os.File) error {
	opened, err := file.Stat()
	if err == nil {
		err = removeSame(name, opened)
	}
	return errors.Join(err, file.Close())
}

// removeSame removes a file, unless it is gone or has been replaced by another one.
func removeSame(name string, file os.FileInfo) error {
	if file == nil {
		return nil
	}
	if named, err := os.Lstat(name); err != nil || !os.SameFile(named, file) {
		return nil //nolint:nilerr // it is gone
	}
	return os.Remove(name)
}

// cannotMake says what keeps a file from being made.
func cannotMake(name string, err error) error {
	dir := filepath.Dir(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s: create it (%w)", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not make files in %s, or %s is another user's (%w)", dir, filepath.Base(name), err)
	}
	return err
}
