package main

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"dreadlock/proto/client"
)

// lockCommand runs a command while it holds a key.
type lockCommand struct {
	Key     string   `arg:"" help:"The key to lock: letters and digits."`
	Command []string `arg:"" optional:"" passthrough:"partial" help:"The command to run and its arguments, after -- so that their options are not taken for ours. Without a command the key is held until Ctrl-C."`

	Shell            *string   `short:"c" aliases:"command" placeholder:"COMMAND" help:"Run this by sh -c, instead of a command after --."`
	Wait             *duration `short:"w" aliases:"timeout" placeholder:"DURATION" help:"Wait at most this long for the key: 30s, 5m, 2h, or a number of seconds. By default there is no limit." xor:"wait"`
	Try              bool      `short:"n" aliases:"nonblock,nb" help:"Do not wait: give up at once if the key is held." xor:"wait"`
	ConnectTimeout   duration  `default:"${connect_timeout}" placeholder:"DURATION" help:"Limit for one attempt to connect, and for all that --try does (${default})."`
	ConflictExitCode int       `short:"E" default:"${conflict}" placeholder:"N" help:"Exit status when the key was not obtained in time (${default})."`
	AtLeast          duration  `placeholder:"DURATION" help:"Hold the key for this time in all, also when the command is done sooner, so that a host whose clock is behind does not run it again."`
	OnLost           string    `default:"stop" enum:"stop,warn" placeholder:"WHAT" help:"What to do if the connection, and with it the key, is lost while the command runs. stop: end the command and all that it has started; warn: print a warning and let it run (${default})."`
	Restart          bool      `help:"When the key is lost, end the command, wait for the key and start the command again: for a service that runs on one host at a time."`
	Grace            *duration `placeholder:"DURATION" help:"Time between SIGTERM and SIGKILL when the command is ended (${grace}); less if the daemon is silent, and would give the key to another before."`
	KeepAlive        duration  `name:"keepalive" default:"${keepalive}" placeholder:"DURATION" help:"While the key is held, ask the daemon whether it is there in every DURATION; after twice that without an answer the key is lost (${default}, or a quarter of the daemon's own patience if that is less)."`
	Heartbeat        duration  `placeholder:"DURATION" env:"DREADLOCK_HEARTBEAT" help:"Ask more often than --keepalive demands: for proxies on the way that close idle connections, at less than half of their time."`
	WaitChildren     bool      `help:"Keep the key until all that the command has started has ended by itself, as flock does."`
	Orphans          string    `default:"end" enum:"end,leave" placeholder:"WHAT" help:"What to do with processes that the command leaves behind. end: end them, and only then give the key back; leave: let them run on without the key (${default})."`
	Name             string    `placeholder:"NAME" help:"The name by which the daemon shows this client: one word, such as nightly@db1. By default user@host:pid:command." env:"DREADLOCK_NAME"`
	Quiet            bool      `short:"q" help:"Print nothing if the key was not obtained, for cron." xor:"voice"`
	Verbose          bool      `short:"v" help:"Print how long it waited, and how long it held the key." xor:"voice"`
}

// Help has examples and the details for scripts.
func (*lockCommand) Help() string {
	return `Examples:

  dreadlockctl lock nightly -- ./backup.sh /srv         wait as long as it takes, then run it
  dreadlockctl lock nightly --wait 30s -- ./backup.sh   give up after 30 seconds, with status 75
  dreadlockctl lock nightly --try -- ./backup.sh        give up at once
  dreadlockctl lock nightly --try -E 0 -q --at-least 1m -- ./job.sh
                                                        in cron: one host runs it, and for the others that is no error
  dreadlockctl lock deploy -c 'a && b'                  more than one command
  dreadlockctl lock scheduler --restart -- ./scheduler  a service that exactly one host runs
  dreadlockctl lock maintenance                         keep everybody out until Ctrl-C
  dreadlockctl lock nightly --server tls://locks:6002 --tls-ca ca.pem -- ./backup.sh
  dreadlockctl lock nightly --server unix:///run/dreadlock/lock.sock -- ./backup.sh
  dreadlockctl lock nightly --server a:6001,b:6001,c:6001 -- ./backup.sh
                                                        any daemon of a fleet

The command inherits the terminal and all streams. DREADLOCK_SERVER is set in its environment, and what TLS needs, so that it
can run dreadlockctl itself; DREADLOCK_KEY is the key, or the list of nested keys, the outermost first, and DREADLOCK_FENCE
the fencing token. A key inside itself is refused. DREADLOCK_OWNER tells a dreadlockctl below the command that they belong
together, so that the daemon sees deadlocks between nested ones. The key is given back when the command has ended with all that it
has started: what it leaves behind gets SIGTERM, and SIGKILL after --grace. With --wait-children it has all the time that
it takes, and with --orphans=leave it runs on without the key. --at-least keeps the key for longer; a signal ends that.

SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGABRT and the other signals of a fault are passed on to the
command, unless the terminal has sent them to it already; once it has ended, to what it left. Signals that were ignored at
the start stay ignored. If dreadlockctl is killed with SIGKILL, the command is killed too, but not the processes that it
has started: use SIGTERM.

While the daemon cannot be reached or has no room, the wait goes on, without --wait for ever: it is asked again after pauses of
up to 5 seconds. One line says when that begins, and one when it ends; the place in the line is then a new one. --try is one
attempt. Of several daemons a random one is used that answers, and another one when that is gone.

The key is lost if the connection to the daemon ends, and somebody else may get it at once. With --on-lost=stop the command
and its descendants then get SIGTERM, and SIGKILL after --grace. With --restart it waits for the key again, and runs the
command again, until the command ends by itself or by a signal.

The key is also lost if the daemon is silent for half of the time after which it would give the key to another: twice its own
--keepalive. The command has ended before that time is over. --keepalive makes it sooner. Through a proxy that closes idle
connections, --heartbeat must be less than half of the time after which it does.

Exit status: that of the command, or 128+N if signal N ended it or the wait; 75 (or -E) if the key was not obtained in time;
69 if the daemon could not be reached in time; 76 if the key was lost and the command was ended; 77 if an operator has ended the wait; 78 if the daemon has ended it,
because it was part of a deadlock; 79 if the daemons are two lock tables, not a fleet; 126 if the command cannot be run; 127
if it is not found; 2 for invalid options.`
}

// unlockTimeout bounds the wait for the confirmation of an unlock. The end of the process releases the key anyway.
const unlockTimeout = 5 * time.Second

// Run locks the key, runs the command and unlocks the key.
func (c *lockCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if err := c.check(); err != nil {
		return err
	}
	options, err := g.clientOptions()
	if err != nil {
		return err
	}
	if options.Name, err = c.connectionName(); err != nil {
		return err
	}
	outer := heldAround()
	if pid := outer.holder(c.Key, g.Server); pid != 0 {
		return badOption("%s is held by the dreadlockctl around this command (process %d), which waits for its end: it cannot be had "+
			"again inside itself", c.shortKey(), pid)
	}
	var path string
	if len(c.Command) > 0 { // an unknown command is an error before the wait
		var err error
		if path, err = find(c.Command[0]); err != nil {
			return err
		}
	}
	if options.Owner, err = outer.owner(); err != nil {
		return err
	}
	options.First = outer.endpoint(g.Server)
	signals, stop := passedSignals()
	defer stop()
	for {
		began := time.Now()
		lock, err := c.acquire(ctx, s, g, options, signals)
		if err != nil {
			return err
		}
		held := time.Now()
		c.warnOfSilence(s, lock)
		c.verbose(s, "locked %s%s after %s", c.shortKey(), g.at(lock), span(held.Sub(began).Seconds()))
		if len(c.Command) == 0 {
			err = c.hold(s, lock, signals)
		} else {
			err = c.run(s, g, surroundings{outer, options.Owner, lock.Server(), lock.Token()}, lock, held, path, signals)
		}
		c.verbose(s, "held %s for %s", c.shortKey(), span(time.Since(held).Seconds()))
		if isClosed(lock.Lost()) {
			_ = lock.Unlock(ctx) // if the daemon was only silent, it need not keep the key any longer; the error is the loss
		}
		if !c.Restart || !errors.Is(err, errLost) {
			return err
		}
		s.warn("waiting for %s again", c.shortKey())
		options.Owner = rand.Text() // to the daemon, the lost connection may still hold the key
	}
}

// errLost ends the program because the key was lost, unless it is to wait for it again. It has been reported.
var errLost = &exit{exitLost, nil}

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
	if c.Shell != nil {
		if len(c.Command) > 0 {
			return badOption("--shell and a command can't be used together")
		}
		c.Command = []string{"sh", "-c", *c.Shell}
	}
	switch {
	case c.Wait != nil && *c.Wait < 0:
		return badOption("--wait %s: want a duration of 0 or more; without --wait there is no limit", *c.Wait)
	case c.ConnectTimeout <= 0:
		return badOption("--connect-timeout %s: want a duration of more than 0", c.ConnectTimeout)
	case c.ConflictExitCode < 0 || c.ConflictExitCode > math.MaxUint8:
		return badOption("--conflict-exit-code %d: want 0 to %d", c.ConflictExitCode, math.MaxUint8)
	case c.Restart && (c.Try || c.OnLost != "stop"):
		return badOption("--restart waits for the key and starts the command again: it can't be used with --try or --on-lost=%s", c.OnLost)
	case c.WaitChildren && c.Orphans == "leave":
		return badOption("--wait-children and --orphans=leave can't be used together")
	case c.AtLeast < 0:
		return badOption("--at-least %s: want a duration of 0 or more", c.AtLeast)
	case c.AtLeast > 0 && len(c.Command) == 0:
		return badOption("--at-least is for a command, and there is none: without one the key is held until Ctrl-C")
	case c.Grace != nil && *c.Grace < 0:
		return badOption("--grace %s: want a duration of 0 or more", *c.Grace)
	case c.KeepAlive <= 0:
		return badOption("--keepalive %s: want a duration of more than 0", c.KeepAlive)
	case c.Heartbeat < 0:
		return badOption("--heartbeat %s: want a duration of more than 0; without --heartbeat, --keepalive says how often", c.Heartbeat)
	}
	return nil
}

// clientOptions returns the options of the Go client that reach the daemon.
func (g *globals) clientOptions() (client.Options, error) {
	o := client.Options{MaxIdle: -1, TryFence: true}
	addresses, err := client.ParseAddresses(g.Server)
	if err != nil {
		return o, badOption("--server: %s", describe(err))
	}
	for _, address := range addresses {
		switch {
		case !g.TLS.given():
		case address.TLS && o.TLS == nil:
			if o.TLS, err = g.TLS.config(); err != nil {
				return o, err
			}
		case address.Network == "tcp" && !address.TLS:
			return o, badOption("--server %s: a connection there is not encrypted: give tls://%s, or leave --tls-ca, --tls-cert and "+
				"--tls-key and their variables DREADLOCK_TLS_* out", address.Address, address.Address)
		}
	}
	return o, nil
}

// several reports whether --server names more than one daemon.
func (g *globals) several() bool { return strings.Contains(g.Server, ",") }

// using returns the options with one daemon of several, for messages about that; as they are, if it is not known.
func (g *globals) using(server string) *globals {
	if !g.several() || server == "" {
		return g
	}
	one := *g
	one.Server = server
	return &one
}

// at says in a sentence where a lock is, unless the options leave no doubt.
func (g *globals) at(lock *client.Lock) string {
	if lock.Server() == g.Server {
		return ""
	}
	return " at " + lock.Server()
}

// hold holds the key until a signal ends it, or until the key is lost.
func (c *lockCommand) hold(s *streams, lock *client.Lock, signals <-chan os.Signal) error {
	end := "Ctrl-C"
	if signal.Ignored(os.Interrupt) { // as in the background of a script
		end = "SIGTERM"
	}
	s.warn("holding %s; %s releases it", c.shortKey(), end)
	for {
		select {
		case <-lock.Lost():
			s.warn("%s: somebody else may hold it now", c.loss(lock))
			return errLost
		case caught := <-signals:
			switch caught {
			case syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH:
				continue
			}
			c.unlock(s, lock)
			switch caught {
			case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
				return nil
			}
			return &exit{exitSignal + int(caught.(syscall.Signal)), nil}
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
