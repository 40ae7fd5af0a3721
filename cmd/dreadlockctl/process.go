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
// It runs in our process group, as under flock(1), so the terminal treats both as one job: the command can read from it,
// Ctrl-Z stops both, fg continues both, and a pipeline with dreadlockctl keeps its terminal. A group of its own would make it
// easy to signal the command and all that it has started. But the terminal would have to be handed to that group, and every
// other member of a pipeline (dreadlockctl lock k -- make | less) would be stopped when it reads a key.
//
// What the command has started is found in another way: we are the subreaper (prctl(2)), so a process whose parent ends
// becomes our child. The tree below us is all that the command has started, daemons included.
type process struct {
	handle *os.Process
	ended  chan syscall.WaitStatus // the status of the command itself; it has room for it
	gone   chan struct{}           // closed when no process of the tree is left; before the status is sent, if it ends the last

	// Of the goroutine that receives the status and passes signals on:
	over    bool // the status was received, so signals go to what is left
	stopped bool // a signal came by which users end a program
}

// find returns the path of a command.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrDot):
		return "", failed(exitNotExecutable, "%s is in the current directory: use ./%s to run it", name, name)
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

// startProcess starts the command. When our process ends, for whatever reason, the command is killed.
func startProcess(path string, argv []string, s *streams) (*process, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the subreaper: %w", err)
	}
	p := &process{ended: make(chan syscall.WaitStatus, 1), gone: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal is sent when the thread that started the command ends, so this thread must last.
		runtime.LockOSThread()
		var err error
		p.handle, err = os.StartProcess(path, argv, &os.ProcAttr{
			Files: []*os.File{s.stdin, s.stdout, s.stderr},
			// SIGKILL: the connection ends with us, so the next holder of the key may be at work already.
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
		return nil, failed(exitNotExecutable, "%s cannot be run: if it is a script, its first line must name the interpreter, "+
			"like #!/bin/sh", argv[0])
	case errors.Is(err, fs.ErrNotExist):
		return nil, failed(exitNotFound, "%s cannot be run: does the program in its first line exist? (%w)", argv[0], err)
	default:
		return nil, failed(exitNotExecutable, "%s cannot be run: %w", argv[0], err)
	}
}

// reap waits for the command and for all other processes that became our children, until none is left.
func (p *process) reap() {
	var command *syscall.WaitStatus // received and not yet sent
	for {
		options := 0
		if command != nil {
			options = syscall.WNOHANG
		}
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, options, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD: no children
			close(p.gone)
			if command != nil {
				p.ended <- *command
			}
			return
		case pid == p.handle.Pid:
			command = &status
		case pid == 0: // others are left
			p.ended <- *command
			command = nil
		}
	}
}

// isGone reports whether no process of the tree is left.
func (p *process) isGone() bool { return isClosed(p.gone) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// dumping are the signals, besides SIGQUIT, at which Go's runtime prints the stacks of all goroutines and ends the program,
// unless they are caught. A fault of this program itself is not caught by that.
var dumping = []os.Signal{
	syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGSEGV, syscall.SIGSTKFLT, syscall.SIGSYS, syscall.SIGTRAP,
}

// exitQuietly ends the program with 128+N, as a shell would report it, at each signal that would print stacks.
func exitQuietly() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, notIgnored(append([]os.Signal{syscall.SIGQUIT}, dumping...)...)...)
	go func() { os.Exit(exitSignal + int((<-signals).(syscall.Signal))) }()
}

// passedSignals returns a channel of the signals to pass on to the command, and a function that stops it. Signals that were
// ignored when we started stay ignored, by the command as well.
func passedSignals() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, notIgnored(append([]os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}, dumping...)...)...)
	// We, and so the command, must survive the reader of our warnings. The command would inherit an ignored SIGPIPE, but not
	// one that is caught.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	return signals, func() {
		signal.Stop(signals)
		signal.Stop(broken)
	}
}

// notIgnored returns the signals that were not ignored when this process started. Under nohup hang-ups are ignored, and in the
// background of a script interrupts are: catching them would undo that.
func notIgnored(signals ...os.Signal) []os.Signal { return slices.DeleteFunc(signals, signal.Ignored) }

// pass passes a signal on to the command, or once that has ended to all that it has left.
//
// The terminal sends its signals to every process of the foreground group, so the command has got them already, and to many
// programs a second interrupt means more than one. We do not know who sent a signal, but if we are in the foreground it was
// in all likelihood the terminal. The price: kill -INT of a dreadlockctl in the foreground of a terminal has no effect, but
// kill (SIGTERM) has. A hang-up is always passed on: two have the effect of one.
func (p *process) pass(s syscall.Signal) {
	switch s {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT:
		p.stopped = true
	}
	switch s {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		if foreground() {
			return
		}
	}
	if p.over || p.handle.Signal(s) != nil { // which fails if the command has just ended
		p.signalTree(s, descendants())
	}
}

// foreground reports whether we are in the foreground of our terminal.
func foreground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // there is no terminal
	}
	defer func() { _ = unix.Close(fd) }()
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

const (
	// killTimeout is how long killed processes may take to end. Only those that are stuck in the kernel, or that belong to
	// another user, take longer.
	killTimeout = 5 * time.Second
	// killPeriod is the interval at which processes that were forked in the meantime are killed.
	killPeriod = 20 * time.Millisecond
	// freezeRounds bounds the search for processes that were forked while others were being stopped. Each round stops at
	// least one generation, but processes of other users cannot be stopped at all.
	freezeRounds = 50
)

// end ends the command and all that it has started: SIGTERM, and SIGKILL at the time that killTime returns for the beginning,
// which is asked again when the key is lost. While the key is held, it returns only when nothing is left that could do the work
// of a holder. lost is closed when the key is lost, or nil if it was.
func (p *process) end(s *streams, killTime func(began time.Time) time.Time, signals <-chan os.Signal, lost <-chan struct{}) {
	began := time.Now()
	p.terminate(killTime(began))
	timer := time.NewTimer(time.Until(killTime(began)))
	defer timer.Stop()
	losing := lost
	for waiting := true; waiting; {
		select {
		case <-p.gone:
			return
		case caught := <-signals:
			p.pass(caught.(syscall.Signal))
		case <-losing:
			losing = nil
			timer.Reset(time.Until(killTime(began)))
		case <-timer.C:
			waiting = false
		}
	}
	what := "the command"
	if p.over {
		what = "what the command left"
	}
	s.warn("%s has not ended after %s: killing it", what, killTime(began).Sub(began).Round(time.Millisecond))
	if p.kill() {
		return
	}
	if lost != nil && !isClosed(lost) {
		s.warn("these processes cannot be killed, so the key is kept until they end: %v", descendants())
		select {
		case <-p.gone:
			return
		case <-lost:
		}
	}
	s.warn("these processes cannot be killed, and continue without the key: %v", descendants())
}

// kill kills the command and all that it has started, and reports whether nothing is left.
func (p *process) kill() bool {
	again := time.NewTicker(killPeriod)
	defer again.Stop()
	for deadline := time.Now().Add(killTimeout); time.Now().Before(deadline); {
		p.signalTree(syscall.SIGKILL, descendants())
		select {
		case <-p.gone:
			return true
		case <-again.C:
		}
	}
	return false
}

// terminate sends SIGTERM to the command and all that it has started: once to each process, and not to those that are started
// later, to clean up.
//
// A list of processes is out of date as soon as it has been read:
//
//  1. we read that a shell has no children;
//  2. the shell starts a command;
//  3. we end the shell, and the command becomes our child and keeps running.
//
// So all are stopped first, repeatedly, until the list has no new process. A stopped process starts no others, and a fork
// that was in progress when the signal came is either done before the next list is read, or does not happen. There is no time
// for more of that when all are to be killed.
func (p *process) terminate(limit time.Time) {
	stopped := map[int]bool{}
	var all []int
	for fresh, rounds := true, 0; fresh && rounds < freezeRounds && (rounds == 0 || time.Now().Before(limit)); rounds++ {
		fresh = false
		all = descendants()
		for _, pid := range all {
			if !stopped[pid] {
				stopped[pid], fresh = true, true
				_ = syscall.Kill(pid, syscall.SIGSTOP) // fails if it has ended, or is another user's
			}
		}
	}
	p.signalTree(syscall.SIGTERM, all)
	p.signalTree(syscall.SIGCONT, all)
}

// signalTree sends a signal to processes, parents first: a shell must not see its command end and start the next one.
func (p *process) signalTree(s syscall.Signal, pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
	if len(pids) == 0 { // /proc is not mounted
		_ = p.handle.Signal(s)
	}
}
