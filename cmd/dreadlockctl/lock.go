package main

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dreadlock/proto/client"
)

// lockCommand runs a command while it holds a key.
type lockCommand struct {
	Key     string   `arg:"" help:"The key to lock: letters and digits."`
	Command []string `arg:"" optional:"" passthrough:"partial" help:"The command to run, and its arguments; behind -- to keep their options apart. Without it the key is held until an interrupt."`

	Wait             *time.Duration `short:"w" placeholder:"DURATION" help:"Wait at most so long for the key: 30s, 5m, 2h. By default it waits for ever." xor:"wait"`
	Try              bool           `help:"Do not wait at all." xor:"wait"`
	ConflictExitCode int            `short:"E" default:"${conflict}" placeholder:"N" help:"Exit status when the key was not obtained in time (${default})."`
	OnLost           string         `default:"stop" enum:"stop,warn" placeholder:"WHAT" help:"What to do when the connection, and with it the key, is lost while the command runs: stop ends the command and all it has started, warn says so and lets it run (${default})."`
	Grace            time.Duration  `default:"${grace}" placeholder:"DURATION" help:"Time between TERM and KILL when the command is ended (${default})."`
	Quiet            bool           `short:"q" help:"Say nothing when the key was not obtained, for cron." xor:"voice"`
	Verbose          bool           `short:"v" help:"Say how long it waited, and how long it held the key." xor:"voice"`
}

// Help has examples, and what a script must know.
func (*lockCommand) Help() string {
	return `Examples:

  dreadlockctl lock nightly -- ./backup.sh /srv         wait for ever, then run it
  dreadlockctl lock nightly --wait 30s -- ./backup.sh   give up after 30 seconds, with status 75
  dreadlockctl lock nightly --try -- ./backup.sh        give up at once
  dreadlockctl lock nightly --try -E 0 -q -- ./job.sh   in cron: it is no fault that another host runs it
  dreadlockctl lock deploy -- sh -c 'a && b'            more than one command
  dreadlockctl lock maintenance                         keep everybody out until Ctrl-C

The command has the terminal and all streams, and DREADLOCK_KEY and DREADLOCK_SERVER are set for it. The key is given up
when the command has ended; what it left in the background is not waited for.

Signals to dreadlockctl are passed on to the command: INT, TERM, HUP, QUIT, USR1, USR2, WINCH. Those that the keyboard
sends reach the command without it. If dreadlockctl itself is killed (KILL) the command is killed too, but not what it has
started: use TERM.

The key is lost when the connection to the daemon ends, and somebody else may get it at once. With --on-lost=stop the
command and its descendants then get TERM, and after --grace KILL.

Exit status: that of the command, or 128+N if signal N ended it or the wait; 75 (or -E) if the key was not obtained; 69 if
the daemon cannot be reached; 76 if the key was lost and the command stopped; 126 if the command cannot be run; 127 if
there is none of that name; 2 for bad options.`
}

const (
	// answerPatience is how much later than the end of a wait the daemon may say so: it is 15 ms late at most, the rest
	// is for the network, and for connecting.
	answerPatience = 15 * time.Second
	// unlockPatience is how long to wait until the daemon confirms an unlock. The end of the process unlocks as well.
	unlockPatience = 5 * time.Second
)

// Run locks, runs, unlocks.
func (c *lockCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if err := c.check(g); err != nil {
		return err
	}
	var path string
	if len(c.Command) > 0 { // a wrong name is told before anybody waits
		var err error
		if path, err = find(c.Command[0]); err != nil {
			return err
		}
	}
	signals, stop := passedSignals()
	defer stop()
	began := time.Now()
	lock, err := c.acquire(ctx, s, g, signals)
	if err != nil {
		return err
	}
	held := time.Now()
	c.tell(s, "locked %s after %s", c.shown(), span(held.Sub(began).Seconds()))
	if len(c.Command) == 0 {
		err = c.hold(s, g, lock, signals)
	} else {
		err = c.run(s, g, lock, path, signals)
	}
	c.tell(s, "held %s for %s", c.shown(), span(time.Since(held).Seconds()))
	return err
}

// check finds fault with the options that kong takes.
func (c *lockCommand) check(g *globals) error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		if c.Command = c.Command[1:]; len(c.Command) == 0 {
			return badOption("there is no command behind --: leave both out to hold the key until an interrupt")
		}
	}
	if _, _, err := net.SplitHostPort(g.Server); err != nil {
		return badOption("--server %s: want HOST:PORT, like localhost:6001", g.Server)
	}
	switch {
	case c.Wait != nil && *c.Wait < 0:
		return badOption("--wait %s: want a duration of 0 or more; without --wait it waits for ever", *c.Wait)
	case c.ConflictExitCode < 0 || c.ConflictExitCode > math.MaxUint8:
		return badOption("--conflict-exit-code %d: want 0 to %d", c.ConflictExitCode, math.MaxUint8)
	case c.Grace < 0:
		return badOption("--grace %s: want a duration of 0 or more", c.Grace)
	}
	return nil
}

// acquire waits for the key, and leaves the queue at once when a signal comes.
func (c *lockCommand) acquire(ctx context.Context, s *streams, g *globals, signals <-chan os.Signal) (*client.Lock, error) {
	options := client.Options{MaxIdle: -1}
	wait := time.Duration(-1)
	switch {
	case c.Try:
		wait = 0
		options.Attempts = 1 // at once is at once
	case c.Wait != nil:
		wait = *c.Wait
	}
	limit := time.Duration(math.MaxInt64)
	if wait >= 0 {
		limit = wait + min(answerPatience, limit-wait) // a daemon that says nothing
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // it ends the context of the lock as well, which is not used here
	c.tell(s, "locking %s at %s", c.shown(), g.Server)

	type outcome struct {
		lock *client.Lock
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		lock, err := client.New(g.Server, options).Lock(ctx, c.Key, wait)
		done <- outcome{lock, err}
	}()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return nil, c.refusal(g, o.err)
			}
			return o.lock, nil
		case caught := <-signals:
			if caught == syscall.SIGWINCH {
				continue
			}
			cancel()
			<-done // it has left the queue; what it may have been granted ends with the process
			return nil, &exit{exitSignal + int(caught.(syscall.Signal)), nil}
		}
	}
}

// refusal says why there is no lock, and what to do.
func (c *lockCommand) refusal(g *globals, err error) error {
	var server *client.ServerError
	var unknown *net.DNSError
	switch {
	case errors.Is(err, client.ErrTimeout):
		if c.Quiet {
			return &exit{c.ConflictExitCode, nil}
		}
		return failed(c.ConflictExitCode, "somebody else holds %s; dreadlockctl waiters %s shows who", c.shown(), c.shown())
	case errors.As(err, &server):
		return failed(exitUnreachable, "the daemon at %s refuses: %s", g.Server, server.Text)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(exitUnreachable, "nothing listens at %s: start dreadlock there, or say where it is with --server ADDR or "+
			"DREADLOCK_SERVER (%w)", g.Server, err)
	case errors.As(err, &unknown):
		return failed(exitUnreachable, "there is no such host: --server ADDR or DREADLOCK_SERVER says where the daemon is (%w)", err)
	case errors.Is(err, client.ErrProtocol):
		return failed(exitUnreachable, "what listens at %s is no lock daemon: is --server right? (%w)", g.Server, err)
	case errors.Is(err, context.DeadlineExceeded):
		return failed(exitUnreachable, "the daemon at %s does not answer; it may have been stopped, or a firewall is between (%w)", g.Server, err)
	}
	return failed(exitUnreachable, "the daemon at %s: %w", g.Server, err)
}

// run runs the command while the key is held.
func (c *lockCommand) run(s *streams, g *globals, lock *client.Lock, path string, signals <-chan os.Signal) error {
	for name, value := range map[string]string{"DREADLOCK_KEY": c.Key, "DREADLOCK_SERVER": g.Server} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	p, err := startProcess(path, c.Command, s)
	if err != nil {
		c.unlock(s, lock)
		return err
	}
	lost := lock.Lost() // nil once that has been said
	for {
		select {
		case status := <-p.ended:
			if lost != nil {
				c.unlock(s, lock)
			}
			return exitOf(status)
		case caught := <-signals:
			p.pass(caught.(syscall.Signal))
			continue
		case <-lost:
			if len(p.ended) > 0 {
				continue // both at a time: it ended by itself
			}
		}
		if c.OnLost == "warn" {
			s.warn("lost the connection to %s, and with it %s: somebody else may hold it now, and the command runs on", g.Server, c.shown())
			lost = nil
			continue
		}
		s.warn("lost the connection to %s, and with it %s: ending the command", g.Server, c.shown())
		p.end(s, c.Grace, signals)
		return &exit{exitLost, nil}
	}
}

// exitOf is the end of a command, as a shell has it.
func exitOf(status syscall.WaitStatus) error {
	switch {
	case status.Signaled():
		return &exit{exitSignal + int(status.Signal()), nil}
	case status.ExitStatus() != 0:
		return &exit{status.ExitStatus(), nil}
	}
	return nil
}

// hold holds the key until somebody wants an end, or it is lost.
func (c *lockCommand) hold(s *streams, g *globals, lock *client.Lock, signals <-chan os.Signal) error {
	end := "Ctrl-C"
	if signal.Ignored(os.Interrupt) { // a script has started us in the background
		end = "SIGTERM"
	}
	s.warn("holding %s; %s releases it", c.shown(), end)
	for {
		select {
		case <-lock.Lost():
			return failed(exitLost, "lost the connection to %s, and with it %s: somebody else may hold it now", g.Server, c.shown())
		case caught := <-signals:
			switch caught {
			case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
				c.unlock(s, lock)
				return nil
			}
		}
	}
}

// unlock gives the key up, which the end of the process does in any case.
func (c *lockCommand) unlock(s *streams, lock *client.Lock) {
	ctx, cancel := context.WithTimeout(context.Background(), unlockPatience)
	defer cancel()
	if err := lock.Unlock(ctx); err != nil {
		s.warn("the daemon has not confirmed that %s is free: %v", c.shown(), err)
	}
}

// tell is for who wants to know.
func (c *lockCommand) tell(s *streams, format string, args ...any) {
	if c.Verbose {
		s.warn(format, args...)
	}
}

// shown is the key for people.
func (c *lockCommand) shown() string { return cell(c.Key, maxCell) }
