// Fleet is for trials and tests of fleets on one machine. Its member command is an etcd that needs no installation, and its run command
// a whole fleet. It is a program of its own, so that the daemon does not link the server of etcd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commandLine is the whole command line.
type commandLine struct {
	Run    runCommand    `cmd:"" default:"withargs" help:"Run three daemons on three members of etcd until a signal ends it."`
	Member memberCommand `cmd:"" help:"Run one member of etcd until a signal ends it."`
	Bench  benchCommand  `cmd:"" help:"Compare a fleet with clients that lock with etcd alone."`
	Mutex  mutexCommand  `cmd:"" hidden:"" help:"Be clients that lock with etcd alone."`
}

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer restore()
	context.AfterFunc(ctx, restore) // a second signal ends the process at once

	var line commandLine
	parsed := kong.Parse(&line,
		kong.Name("fleet"),
		kong.Description("Try and test fleets of daemons on one machine."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	parsed.FatalIfErrorf(parsed.Run())
}
