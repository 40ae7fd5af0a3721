package main

import (
	"os"
	"syscall"
	"time"

	"dreadlock/proto/client"
)

// leftoverTime is how long after the end of the command what it left may take to end by itself: the reader of a pipe takes
// what is still in it, as tee does in a script with > >(tee log).
const leftoverTime = 200 * time.Millisecond

// work is the command while the key is held.
type work struct {
	*lockCommand
	s       *streams
	lock    *client.Lock
	held    time.Time // since when
	p       *process
	signals <-chan os.Signal
	lost    <-chan struct{} // nil after the warning
}

// run runs the command while the key is held, since the time held, and gives the key back when the command and all that it
// started have ended, but not before --at-least is over.
func (c *lockCommand) run(
	s *streams, g *globals, e surroundings, lock *client.Lock, held time.Time, path string, signals <-chan os.Signal,
) error {
	if err := c.setEnvironment(g, e); err != nil {
		return err
	}
	p, err := startProcess(path, c.Command, s)
	if err != nil {
		c.unlock(s, lock)
		return err
	}
	w := &work{c, s, lock, held, p, signals, lock.Lost()}
	status, ended := w.command()
	if !ended {
		if p.stopped || !p.isGone() { // the user has ended it, or what is left would run beside the next one
			return &exit{exitLost, nil}
		}
		return errLost
	}
	if !w.leftovers(status.Signaled()) {
		return &exit{exitLost, nil}
	}
	if w.lost != nil && w.rest() {
		c.unlock(s, lock)
	}
	return exitOf(status)
}

// command waits for the end of the command, and returns its status. It returns false if the key was lost, and all was ended.
func (w *work) command() (syscall.WaitStatus, bool) {
	for {
		select {
		case status := <-w.p.ended:
			w.p.over = true
			return status, true
		case caught := <-w.signals:
			w.p.pass(caught.(syscall.Signal))
			continue
		case <-w.lost:
			if len(w.p.ended) > 0 {
				continue // both at once: the command has ended by itself
			}
		}
		if w.endLost() {
			return 0, false
		}
	}
}

// rest waits until the key has been held for --at-least, unless the user has ended the command, or ends the wait. It returns
// false if the key was lost. Nothing works under it any more, so that is no error.
func (w *work) rest() bool {
	more := time.Duration(w.AtLeast) - time.Since(w.held)
	if more <= 0 || w.p.stopped {
		return true
	}
	w.verbose(w.s, "the command has ended: keeping %s for another %s", w.shortKey(), span(more.Seconds()))
	timer := time.NewTimer(more)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-w.lost:
			w.s.warn("%s, before it was held for %s: somebody else may hold it now", w.loss(w.lock), w.AtLeast)
			return false
		case caught := <-w.signals:
			switch caught {
			case syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH:
			default:
				return true
			}
		}
	}
}

// endLost ends all that runs because the key was lost. With --on-lost=warn it prints a warning instead and returns false.
func (w *work) endLost() bool {
	if w.OnLost == "warn" {
		w.s.warn("%s: somebody else may hold it now; the command keeps running", w.loss(w.lock))
		w.lost = nil
		return false
	}
	w.s.warn("%s: ending the command", w.loss(w.lock))
	w.p.end(w.s, w.killTime, w.signals, w.lost)
	return true
}

// leftovers deals with what the command has left. It returns false if the key was lost before all that had ended. A command
// that a signal ended did not choose to leave anything, so no warning says so.
func (w *work) leftovers(signaled bool) bool {
	if w.Orphans == "leave" || w.p.isGone() {
		return true
	}
	var patience <-chan time.Time // without a limit
	if !w.WaitChildren {
		timer := time.NewTimer(leftoverTime)
		defer timer.Stop()
		patience = timer.C
	}
	for {
		select {
		case <-w.p.gone:
			return true
		case caught := <-w.signals:
			w.p.pass(caught.(syscall.Signal))
		case <-w.lost:
			if w.endLost() {
				return false
			}
		case <-patience:
			if !signaled {
				w.s.warn("the command has ended, but not all that it has started: ending processes %v before the key is given back "+
					"(--wait-children waits for them, --orphans=leave lets them run)", descendants())
			}
			w.p.end(w.s, w.killTime, w.signals, w.lost)
			return !w.isLost()
		}
	}
}

// isLost reports whether the key was lost, and nothing was said about it yet; it says it.
func (w *work) isLost() bool {
	if w.lost == nil || !isClosed(w.lost) {
		return false
	}
	w.s.warn("%s, before all that the command left had ended", w.loss(w.lock))
	return true
}

// exitOf returns the exit status of a command, as a shell does.
func exitOf(status syscall.WaitStatus) error {
	switch {
	case status.Signaled():
		return &exit{exitSignal + int(status.Signal()), nil}
	case status.ExitStatus() != 0:
		return &exit{status.ExitStatus(), nil}
	}
	return nil
}
