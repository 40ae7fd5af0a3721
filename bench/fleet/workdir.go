package main

import (
	"os"
	"path/filepath"
	"syscall"
)

// workDirs is the pattern of the names of directories for data and logs, in that for temporary files.
const workDirs = "dreadlock-fleetrun-*"

// workDir is a directory for the data and the logs of a fleet. It is locked as long as the fleet runs, so that the next one can remove
// what a fleet has left that was killed.
type workDir struct {
	path string
	file *os.File // the directory, with the lock
}

// newWorkDir makes a directory, and removes those that nobody uses any more.
func newWorkDir() (*workDir, error) {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), workDirs)) // the pattern is right
	for _, path := range left {
		if old, err := lockDir(path); err == nil {
			old.remove()
		}
	}
	path, err := os.MkdirTemp("", workDirs)
	if err != nil {
		return nil, err
	}
	return lockDir(path)
}

// lockDir locks a directory.
func lockDir(path string) (*workDir, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close() // it was only to be locked
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return &workDir{path, file}, nil
}

// remove removes the directory with all that is in it.
func (d *workDir) remove() {
	_ = os.RemoveAll(d.path) // what cannot be removed now is tried again by the next fleet
	_ = d.file.Close()
}
