// Dreadlockctl is the command line client of dreadlock for people and scripts: it runs a command while it holds a key, and
// shows who holds what, who waits and for how long.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // net/http writes to it
	"os"
	"slices"

	"github.com/alecthomas/kong"

	"dreadlock/cmd/internal/cmdline"
)

// The exit statuses other than 0. Those of lock must not be confused with the status of the command that it runs, so they
// are numbers that commands rarely use: those of sysexits.h and of the shell.
const (
	exitFailed        = 1   // the daemon refuses, or there is no such key or connection
	exitUsage         = 2   // invalid options
	exitDeadlocks     = 3   // deadlocks: there are deadlocks
	exitUnreachable   = 69  // the daemon or its admin interface cannot be reached; EX_UNAVAILABLE
	exitConflict      = 75  // lock: the key was not obtained in time; EX_TEMPFAIL, and --conflict-exit-code changes it
	exitLost          = 76  // lock: the key was lost while it was held; EX_PROTOCOL, the nearest there is
	exitKicked        = 77  // lock: an operator has ended the wait; EX_NOPERM
	exitDeadlock      = 78  // lock: the daemon has ended the wait, as part of a deadlock; EX_CONFIG, for the keys are taken in two orders
	exitTables        = 79  // lock: the daemons are two lock tables, not a fleet
	exitNotExecutable = 126 // lock: the command cannot be run
	exitNotFound      = 127 // lock: there is no such command
	exitSignal        = 128 // lock: plus the number of the signal that ended the command or the wait
)

// exit is an error that ends the program with its status.
type exit struct {
	status int
	err    error // printed if it is not nil
}

// Error returns the text of the error, or the status.
func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap returns the error, which may be nil.
func (e *exit) Unwrap() error { return e.err }

// failed returns an exit with an error.
func failed(status int, format string, args ...any) *exit {
	return &exit{status, fmt.Errorf(format, args...)}
}

// streams are the standard streams of a command.
type streams struct {
	stdin, stdout, stderr *os.File
}

// warn prints a message to stderr.
func (s *streams) warn(format string, args ...any) {
	_, _ = fmt.Fprintf(s.stderr, "dreadlockctl: "+format+"\n", args...) // there is nowhere else to print it
}

func main() {
	log.SetOutput(io.Discard) // net/http has lines about what else may listen at an address, beside the error
	s := &streams{os.Stdin, os.Stdout, os.Stderr}
	err := run(s, os.Args[1:])
	var e *exit
	switch {
	case err == nil:
	case errors.As(err, &e):
		if e.err != nil {
			s.warn("%v", e.err)
		}
		os.Exit(e.status)
	default:
		s.warn("%v", err)
		os.Exit(exitFailed)
	}
}

// run runs the command line.
func run(s *streams, args []string) error {
	parser, line, err := newParser(s)
	if err != nil {
		return err
	}
	if keyMissing(parser, args) {
		return badOption("the key is missing before --: give one, as in dreadlockctl lock nightly -- ./backup.sh")
	}
	parsed, err := cmdline.Parse(parser, args)
	if err != nil {
		return &exit{exitUsage, fmt.Errorf("%w (dreadlockctl --help lists the commands and options)", err)}
	}
	if command := parsed.Selected(); command == nil || command.Name != "lock" && command.Name != "top" { // which catch signals themselves
		exitQuietly()
	}
	parsed.BindTo(context.Background(), (*context.Context)(nil))
	return parsed.Run(s, &line.globals)
}

// keyMissing reports whether the command line is lock -- COMMAND, as when a variable with the key is empty. The parser would take
// the command for the key.
func keyMissing(parser *kong.Kong, args []string) bool {
	dashes := slices.Index(args, "--")
	if dashes < 0 {
		return false
	}
	before, err := kong.Trace(parser, args[:dashes])
	if err != nil || before.Error != nil || before.Selected() == nil || before.Selected().Name != "lock" {
		return false
	}
	return !slices.ContainsFunc(before.Path, func(p *kong.Path) bool { return p.Positional != nil })
}
