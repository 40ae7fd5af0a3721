package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the command that runs while a key is held.
//
// It runs in our own process group, as under flock(1). So the terminal treats both as one job: the command may read from
// it, Ctrl-Z stops both and fg continues both, and a pipeline around dreadlockctl keeps its terminal. A group of its own
// would make it easy to signal the command and all it has started, but the terminal would have to be handed to that
// group, and every other member of a pipeline (dreadlockctl lock k -- make | less) would be stopped when it reads a key.
//
// What the command has started is found in another way: we are the subreaper (prctl(2)), so whoever loses its parent
// becomes our child, and the tree under us is all that came of the command, daemons included.
type process struct {
	handle *os.Process
	ended  chan syscall.WaitStatus // the end of the command itself; has room for it
	gone   chan struct{}           // closed when nothing of the tree is left
}

// find looks for the program of a command.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrDot):
		return "", failed(exitNotExecutable, "%s is in the current directory: say ./%s to run it", name, name)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		if !strings.Contains(name, "/") {
			return "", failed(exitNotFound, "there is no command %s in PATH", name)
		}
		return "", failed(exitNotFound, "there is no command %s", name)
	case errors.Is(err, fs.ErrPermission):
		return "", failed(exitNotExecutable, "%s cannot be run: permission denied (chmod +x makes a script executable)", name)
	}
	return "", failed(exitNotExecutable, "%s cannot be run: %w", name, err)
}

// startProcess starts the command. The end of our process, whatever ends it, kills the command.
func startProcess(path string, argv []string, s *streams) (*process, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the subreaper: %w", err)
	}
	p := &process{ended: make(chan syscall.WaitStatus, 1), gone: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal comes when the thread ends that has started the command, so this one must last.
		runtime.LockOSThread()
		var err error
		p.handle, err = os.StartProcess(path, argv, &os.ProcAttr{
			Files: []*os.File{s.stdin, s.stdout, s.stderr},
			// KILL: the connection ends with us, so the next holder of the key may be at work already.
			Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
		})
		started <- err
		if err == nil {
			p.reap()
		}
	}()
	switch err := <-started; {
	case err == nil:
		return p, nil
	case errors.Is(err, syscall.ENOEXEC):
		return nil, failed(exitNotExecutable, "%s cannot be run: if it is a script, its first line must say by whom, like #!/bin/sh", argv[0])
	case errors.Is(err, fs.ErrNotExist):
		return nil, failed(exitNotFound, "%s cannot be run: does the program in its first line exist? (%w)", argv[0], err)
	default:
		return nil, failed(exitNotExecutable, "%s cannot be run: %w", argv[0], err)
	}
}

// reap waits for the command and for whoever else became our child, until nobody is left.
func (p *process) reap() {
	defer close(p.gone)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD: no children
			return
		case pid == p.handle.Pid:
			p.ended <- status
		}
	}
}

// passedSignals returns the channel of the signals that a command should see, and what ends that. Those that were
// ignored when we started, as nohup does, stay ignored, by the command as well.
func passedSignals() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, notIgnored(
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)...)
	// A reader of our warnings that goes away must not take us, and so the command, with it. Ignored, the signal would be
	// so for the command too; caught and forgotten it is not.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return signals, func() {
		signal.Stop(signals)
		signal.Stop(broken)
	}
}

// notIgnored returns the signals that were not ignored when this process started. nohup ignores hang-ups, and a shell
// without job control the interrupts of what it starts in the background: whoever catches them undoes that.
func notIgnored(signals ...os.Signal) []os.Signal { return slices.DeleteFunc(signals, signal.Ignored) }

// pass passes a signal on to the command.
//
// The terminal sends its signals to every process of the foreground group, so the command has them already, and many
// programs take a second interrupt for impatience. Who sent a signal is not known here, but if we are in the foreground
// it was in all likelihood the terminal. The price: kill -INT of a dreadlockctl that is in the foreground of a terminal
// has no effect, where kill (TERM) has. A hang-up is always passed on: two do what one does.
func (p *process) pass(s syscall.Signal) {
	switch s {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		if foreground() {
			return
		}
	}
	_ = p.handle.Signal(s) // it fails if the command has ended
}

// foreground reports whether we are in the foreground of our terminal.
func foreground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // there is none
	}
	defer func() { _ = unix.Close(fd) }()
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

const (
	// killPatience is how long killed processes may take to end; only the kernel keeps them longer, or another owner.
	killPatience = 5 * time.Second
	// killPeriod is the time after which those are killed that were forked in the meantime.
	killPeriod = 20 * time.Millisecond
	// freezeRounds bounds how often we look for processes that were forked while we stopped others; a round stops a
	// generation at least, and processes of other users cannot be stopped at all.
	freezeRounds = 50
)

// end ends the command and all that came of it: TERM, and after the grace KILL.
func (p *process) end(s *streams, grace time.Duration, signals <-chan os.Signal) {
	p.terminate()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for waiting := true; waiting; {
		select {
		case <-p.gone:
			return
		case caught := <-signals:
			p.pass(caught.(syscall.Signal))
		case <-timer.C:
			waiting = false
		}
	}
	s.warn("the command has not ended after %s: killing it", grace)
	again := time.NewTicker(killPeriod)
	defer again.Stop()
	for deadline := time.Now().Add(killPatience); time.Now().Before(deadline); {
		p.signalTree(syscall.SIGKILL, descendants())
		select {
		case <-p.gone:
			return
		case <-again.C:
		}
	}
	s.warn("these processes cannot be killed from here, and go on without the key: %v", descendants())
}

// terminate sends TERM to all that came of the command, and to nobody twice, nor to those that are started to tidy up.
//
// A list of processes is old when it has been read:
//
//  1. we read that a shell has no children;
//  2. the shell starts a command;
//  3. we end the shell, and the command becomes our child and runs on.
//
// So all are stopped first, again and again until a list has nobody new: who is stopped starts nobody, and a fork that
// was under way when the signal came has either been done before the next list, or is not done.
func (p *process) terminate() {
	stopped := map[int]bool{}
	var all []int
	for fresh, rounds := true, 0; fresh && rounds < freezeRounds; rounds++ {
		fresh = false
		all = descendants()
		for _, pid := range all {
			if !stopped[pid] {
				stopped[pid], fresh = true, true
				_ = syscall.Kill(pid, syscall.SIGSTOP) // it fails if that has ended, or is another user's
			}
		}
	}
	p.signalTree(syscall.SIGTERM, all)
	p.signalTree(syscall.SIGCONT, all)
}

// signalTree sends a signal to processes, parents first: a shell must not see its command end and go on with the next.
func (p *process) signalTree(s syscall.Signal, pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
	if len(pids) == 0 { // there is no /proc
		_ = p.handle.Signal(s)
	}
}
