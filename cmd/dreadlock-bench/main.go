// Dreadlock-bench measures lock servers: the daemon, redis, memcached, and echo servers, which show what is possible.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"dreadlock/bench"
	"dreadlock/bench/faults"
	"dreadlock/cmd/internal/cmdline"
)

// The exit statuses other than 0.
const (
	exitFailed = 1 // a server answered wrongly, or could not be measured
	exitUsage  = 2 // bad options
)

const description = `Measure lock servers from outside: throughput, latency, processor time per command, memory.

Every reply is checked. A wrong or lost reply, or a key that two connections hold, ends the run with exit status 1.`

// commandLine is the whole command line.
type commandLine struct {
	Run     runCommand     `cmd:"" help:"Measure one workload on one server."`
	Compare compareCommand `cmd:"" help:"Measure several servers in turns. Without a workload, check the goals of the daemon."`
	Profile profileCommand `cmd:"" set:"window=5s" help:"Show where the processor time of the daemon goes: a flame graph, and a table."`
	Faults  faultsCommand  `cmd:"" help:"Make everything fail that can, and check that the daemon keeps its promises. Needs root."`
	Soak    soakCommand    `cmd:"" help:"Load the daemon for a long time, with faults, and show what grows. Needs root."`
	Peer    peerCommand    `cmd:"" hidden:"" help:"Run an echo server until the input ends."`
	Relay   relayCommand   `cmd:"" hidden:"" help:"Be a client process of the fault suite until the input ends."`
	Between betweenCommand `cmd:"" hidden:"" help:"Start a relay between the two processes of a takeover, then be the successor."`
	Carry   carryCommand   `cmd:"" name:"carry-takeover" hidden:"" help:"Be that relay."`

	Version kong.VersionFlag `help:"Print the version and exit."`
}

// streams are the standard streams of a command.
type streams struct {
	stdin          io.Reader
	stdout, stderr *os.File
}

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	context.AfterFunc(ctx, restore) // a second signal ends the process at once

	var line commandLine
	parser, err := kong.New(&line,
		kong.Name("dreadlock-bench"),
		kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.Vars{"version": cmdline.Version("dreadlock-bench"), "kinds": kinds(), "window": "1s"},
	)
	if err != nil {
		fail(err, exitFailed)
	}
	parsed, err := cmdline.Parse(parser, os.Args[1:])
	if err != nil {
		fail(err, exitUsage)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(&streams{os.Stdin, os.Stdout, os.Stderr})
	switch {
	case err == nil:
	case errors.Is(err, bench.ErrWorkload), errors.Is(err, bench.ErrTarget), errors.Is(err, faults.ErrCase):
		fail(err, exitUsage)
	default:
		fail(err, exitFailed)
	}
}

func fail(err error, status int) {
	fmt.Fprintf(os.Stderr, "dreadlock-bench: %v\n", err)
	os.Exit(status)
}

// peerCommand is the command that the echo servers are started with.
type peerCommand struct {
	Kind  string `arg:"" enum:"gnet,epoll"`
	Loops int    `default:"1"`
	Port  int    `required:""`
}

// Run serves.
func (p *peerCommand) Run(s *streams) error {
	address := fmt.Sprintf("127.0.0.1:%d", p.Port)
	if p.Kind == bench.GnetEcho {
		return bench.ServeGnetEcho(s.stdin, address, p.Loops)
	}
	return bench.ServeEpollEcho(s.stdin, address, p.Loops)
}
