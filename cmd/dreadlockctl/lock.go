package main

import (
	"context"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"dreadlock/proto/client"
)

// lockCommand runs a command while it holds a key.
type lockCommand struct {
	Key     string   `arg:"" help:"The key to lock: letters and digits."`
	Command []string `arg:"" optional:"" passthrough:"partial" help:"The command to run and its arguments, after -- so that their options are not taken for ours. Without a command the key is held until Ctrl-C."`

	Wait             *time.Duration `short:"w" placeholder:"DURATION" help:"Wait at most this long for the key: 30s, 5m, 2h. By default there is no limit." xor:"wait"`
	Try              bool           `help:"Do not wait: give up at once if the key is held." xor:"wait"`
	ConflictExitCode int            `short:"E" default:"${conflict}" placeholder:"N" help:"Exit status when the key was not obtained in time (${default})."`
	OnLost           string         `default:"stop" enum:"stop,warn" placeholder:"WHAT" help:"What to do if the connection, and with it the key, is lost while the command runs. stop: end the command and all that it has started; warn: print a warning and let it run (${default})."`
	Grace            time.Duration  `default:"${grace}" placeholder:"DURATION" help:"Time between SIGTERM and SIGKILL when the command is ended (${default})."`
	Quiet            bool           `short:"q" help:"Print nothing if the key was not obtained, for cron." xor:"voice"`
	Verbose          bool           `short:"v" help:"Print how long it waited, and how long it held the key." xor:"voice"`
}

// Help has examples and the details for scripts.
func (*lockCommand) Help() string {
	return `Examples:

  dreadlockctl lock nightly -- ./backup.sh /srv         wait as long as it takes, then run it
  dreadlockctl lock nightly --wait 30s -- ./backup.sh   give up after 30 seconds, with status 75
  dreadlockctl lock nightly --try -- ./backup.sh        give up at once
  dreadlockctl lock nightly --try -E 0 -q -- ./job.sh   in cron: no error if another host runs it
  dreadlockctl lock deploy -- sh -c 'a && b'            more than one command
  dreadlockctl lock maintenance                         keep everybody out until Ctrl-C
  dreadlockctl lock nightly --server tls://locks:6002 --tls-ca ca.pem -- ./backup.sh
  dreadlockctl lock nightly --server unix:///run/dreadlock/lock.sock -- ./backup.sh

The command inherits the terminal and all streams. DREADLOCK_KEY and DREADLOCK_SERVER are set in its environment, and
what TLS needs, so that it can run dreadlockctl itself. The key is released when the command has ended, without waiting for
processes that it left in the background.

SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are passed on to the command, unless the terminal has sent
them to it already. Signals that were ignored at the start stay ignored. If dreadlockctl is killed with SIGKILL, the command
is killed too, but not the processes that it has started: use SIGTERM.

The key is lost if the connection to the daemon ends, and somebody else may get it at once. With --on-lost=stop the command
and its descendants then get SIGTERM, and SIGKILL after --grace.

Exit status: that of the command, or 128+N if signal N ended it or the wait; 75 (or -E) if the key was not obtained in time;
69 if the daemon cannot be reached; 76 if the key was lost and the command was ended; 126 if the command cannot be run; 127
if it is not found; 2 for invalid options.`
}

const (
	// answerTimeout is how long after the end of a wait the daemon's answer may come: the daemon is at most 15 ms late, the
	// rest is for the network and for connecting.
	answerTimeout = 15 * time.Second
	// unlockTimeout bounds the wait for the confirmation of an unlock. The end of the process releases the key anyway.
	unlockTimeout = 5 * time.Second
)

// Run locks the key, runs the command and unlocks the key.
func (c *lockCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if err := c.check(); err != nil {
		return err
	}
	options, err := g.clientOptions()
	if err != nil {
		return err
	}
	var path string
	if len(c.Command) > 0 { // an unknown command is an error before the wait
		var err error
		if path, err = find(c.Command[0]); err != nil {
			return err
		}
	}
	signals, stop := passedSignals()
	defer stop()
	began := time.Now()
	lock, err := c.acquire(ctx, s, g, options, signals)
	if err != nil {
		return err
	}
	held := time.Now()
	c.verbose(s, "locked %s after %s", c.shortKey(), span(held.Sub(began).Seconds()))
	if len(c.Command) == 0 {
		err = c.hold(s, g, lock, signals)
	} else {
		err = c.run(s, g, lock, path, signals)
	}
	c.verbose(s, "held %s for %s", c.shortKey(), span(time.Since(held).Seconds()))
	return err
}

// check returns an error for invalid options that the parser accepts.
func (c *lockCommand) check() error {
	if err := checkKey(c.Key); err != nil {
		return err
	}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		if c.Command = c.Command[1:]; len(c.Command) == 0 {
			return badOption("there is no command after --: leave out -- to hold the key until Ctrl-C")
		}
	}
	switch {
	case c.Wait != nil && *c.Wait < 0:
		return badOption("--wait %s: want a duration of 0 or more; without --wait there is no limit", *c.Wait)
	case c.ConflictExitCode < 0 || c.ConflictExitCode > math.MaxUint8:
		return badOption("--conflict-exit-code %d: want 0 to %d", c.ConflictExitCode, math.MaxUint8)
	case c.Grace < 0:
		return badOption("--grace %s: want a duration of 0 or more", c.Grace)
	}
	return nil
}

// clientOptions returns the options of the Go client that reach the daemon.
func (g *globals) clientOptions() (client.Options, error) {
	o := client.Options{MaxIdle: -1}
	address, err := client.ParseAddress(g.Server)
	switch {
	case err != nil:
		return o, badOption("--server: %s", describe(err))
	case address.TLS:
		o.TLS, err = g.TLS.config()
		return o, err
	case address.Network == "tcp" && g.TLS.given():
		return o, badOption("--server %s: a connection there is not encrypted: give tls://%s, or leave --tls-ca, --tls-cert and --tls-key "+
			"and their variables DREADLOCK_TLS_* out", g.Server, address.Address)
	}
	return o, nil
}

// acquire waits for the key. A signal ends the wait at once.
func (c *lockCommand) acquire(
	ctx context.Context, s *streams, g *globals, options client.Options, signals <-chan os.Signal,
) (*client.Lock, error) {
	wait := time.Duration(-1)
	switch {
	case c.Try:
		wait = 0
		options.Attempts = 1 // trying again would be waiting
	case c.Wait != nil:
		wait = *c.Wait
	}
	limit := time.Duration(math.MaxInt64)
	if wait >= 0 {
		limit = wait + min(answerTimeout, limit-wait) // the daemon may not answer at all
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // it also ends the context of the lock, which is not used here
	c.verbose(s, "locking %s at %s", c.shortKey(), g.Server)

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
			<-done // the client has left the queue; if it was granted the key, the end of the process releases it
			return nil, &exit{exitSignal + int(caught.(syscall.Signal)), nil}
		}
	}
}

// run runs the command while the key is held.
func (c *lockCommand) run(s *streams, g *globals, lock *client.Lock, path string, signals <-chan os.Signal) error {
	if err := c.setEnvironment(g); err != nil {
		return err
	}
	p, err := startProcess(path, c.Command, s)
	if err != nil {
		c.unlock(s, lock)
		return err
	}
	lost := lock.Lost() // nil after the warning
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
				continue // both at once: the command has ended by itself
			}
		}
		if c.OnLost == "warn" {
			s.warn("lost the connection to %s, and with it the key %s: somebody else may hold it now; the command keeps running",
				g.Server, c.shortKey())
			lost = nil
			continue
		}
		s.warn("lost the connection to %s, and with it the key %s: ending the command", g.Server, c.shortKey())
		p.end(s, c.Grace, signals)
		return &exit{exitLost, nil}
	}
}

// setEnvironment tells the command which key is held and how to reach the daemon, so that it can lock another key.
func (c *lockCommand) setEnvironment(g *globals) error {
	variables, err := g.TLS.environment()
	if err != nil {
		return err
	}
	variables["DREADLOCK_KEY"], variables["DREADLOCK_SERVER"] = c.Key, g.Server
	for name, value := range variables {
		if value == "" {
			err = os.Unsetenv(name)
		} else {
			err = os.Setenv(name, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// hold holds the key until a signal ends it, or until the key is lost.
func (c *lockCommand) hold(s *streams, g *globals, lock *client.Lock, signals <-chan os.Signal) error {
	end := "Ctrl-C"
	if signal.Ignored(os.Interrupt) { // as in the background of a script
		end = "SIGTERM"
	}
	s.warn("holding %s; %s releases it", c.shortKey(), end)
	for {
		select {
		case <-lock.Lost():
			return failed(exitLost, "lost the connection to %s, and with it the key %s: somebody else may hold it now", g.Server, c.shortKey())
		case caught := <-signals:
			switch caught {
			case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
				c.unlock(s, lock)
				return nil
			}
		}
	}
}

// unlock releases the key, which the end of the process would do as well.
func (c *lockCommand) unlock(s *streams, lock *client.Lock) {
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if err := lock.Unlock(ctx); err != nil {
		s.warn("the daemon has not confirmed the unlock of %s: %s", c.shortKey(), describe(err))
	}
}

// verbose prints a message with --verbose.
func (c *lockCommand) verbose(s *streams, format string, args ...any) {
	if c.Verbose {
		s.warn(format, args...)
	}
}

// shortKey returns the key, shortened if it is long.
func (c *lockCommand) shortKey() string { return cell(c.Key, maxCell) }
