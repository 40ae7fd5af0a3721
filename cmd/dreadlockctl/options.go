package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"dreadlock/cmd/internal/cmdline"
	"dreadlock/proto/client"
	"dreadlock/server/api"
)

const description = `Run commands under locks of a dreadlock daemon, and look at what the daemon does.

  dreadlockctl lock nightly -- ./backup.sh        one at a time; the others wait their turn
  dreadlockctl lock nightly --try -- ./backup.sh  or give up at once, with status 75
  dreadlockctl locks --sort wait                  held keys, those with the longest waits first
  dreadlockctl waiters nightly                    who holds the key, and who waits for it

The lock command connects to the daemon's port (--server). The others use its admin interface (--admin). On the machine of
the daemon they find that by themselves, as root or as the user of the daemon.

Exit status: 0 on success, 1 on failure, 2 for invalid options, 69 if the daemon cannot be reached. The lock command has
the status of its COMMAND, and more: see dreadlockctl lock --help.`

// commandLine is the whole command line.
type commandLine struct {
	Lock        lockCommand        `cmd:"" help:"Run a command while holding a key."`
	Health      healthCommand      `cmd:"" help:"Check whether the daemon works."`
	Status      statusCommand      `cmd:"" help:"Show the version, the sizes and the counters of the daemon."`
	Locks       locksCommand       `cmd:"" help:"List the held keys."`
	Waiters     waitersCommand     `cmd:"" help:"Show the holder of a key, and its queue."`
	Connections connectionsCommand `cmd:"" help:"List the connections of clients."`
	Deadlocks   deadlocksCommand   `cmd:"" help:"List deadlocks: clients that wait for one another."`
	Kick        kickCommand        `cmd:"" help:"Disconnect clients; their keys are released at once."`
	Release     releaseCommand     `cmd:"" help:"Take a key from its holder, whose connection stays open."`
	Drain       drainCommand       `cmd:"" help:"End the daemon when nobody holds a key any more."`
	Takeover    takeoverCommand    `cmd:"" help:"Restart the daemon, without losing a lock: its program starts again and takes over."`
	History     historyCommand     `cmd:"" help:"List what has happened to a key, or to all: grants, releases, losses, timeouts, kicks."`
	Watch       watchCommand       `cmd:"" help:"Show what happens, as it happens."`
	Top         topCommand         `cmd:"" help:"Watch the daemon: rates, hottest keys, longest waits."`
	Completion  completionCommand  `cmd:"" help:"Print the completion script for a shell."`
	Complete    completeCommand    `cmd:"" name:"__complete" hidden:"" passthrough:"" help:"Complete a command line; called by the completion scripts."`

	globals
	Version kong.VersionFlag `help:"Print the version and exit."`
	Man     manFlag          `hidden:"" help:"Print the manual page and exit."`
}

// globals are the options of all commands.
type globals struct {
	Server         string     `default:"${server}" placeholder:"ADDR" help:"The daemon: HOST:PORT, tls://HOST:PORT or unix:///PATH; of a fleet several, with commas in between (${default})." env:"DREADLOCK_SERVER" group:"daemon"`
	Admin          string     `placeholder:"URL" help:"The daemon's admin interface: http://HOST:PORT, https://HOST:PORT or unix:///PATH. By default the socket of a daemon on this machine; of several, the one with the port of --server. Of a fleet it is one daemon that answers." env:"DREADLOCK_ADMIN" group:"daemon"`
	AdminTokenFile string     `placeholder:"FILE" help:"File with the token for the admin interface." env:"DREADLOCK_ADMIN_TOKEN_FILE" group:"daemon"`
	TLS            tlsOptions `embed:""`
}

// defaultServer is where a daemon listens by default.
const defaultServer = "localhost:6001"

// naming returns the options with which dreadlockctl asks the same daemon, for hints: each after a blank, none if it is the
// one that is asked anyway.
func (g *globals) naming() string {
	switch {
	case g.Admin != "":
		return " --admin " + g.Admin
	case g.Server != defaultServer:
		return " --server " + g.Server
	}
	return ""
}

// jsonOption is the option of all commands that show something.
type jsonOption struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// newParser returns a parser and the command line that it fills in.
func newParser(s *streams) (*kong.Kong, *commandLine, error) {
	var line commandLine
	parser, err := kong.New(&line,
		kong.Name("dreadlockctl"),
		kong.Description(description),
		kong.Writers(s.stdout, s.stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, Compact: true}),
		kong.ExplicitGroups([]kong.Group{{Key: "daemon", Title: "Which daemon:"}}),
		kong.Vars{
			"server":          defaultServer,
			"version":         cmdline.Version("dreadlockctl"),
			"conflict":        strconv.Itoa(exitConflict),
			"grace":           defaultGrace.String(),
			"connect_timeout": defaultConnectTimeout.String(),
			"keepalive":       client.DefaultKeepAlive.String(),
			"default_limit":   strconv.Itoa(api.DefaultLimit),
			"interval":        defaultInterval.String(),
			"min_interval":    minInterval.String(),
		})
	if err != nil {
		return nil, nil, fmt.Errorf("command line: %w", err)
	}
	return parser, &line, nil
}

// manFlag prints the manual page. It is hidden, since those who have the program by a package have the page too.
type manFlag bool

// BeforeReset prints the page and ends the program.
func (manFlag) BeforeReset(app *kong.Kong) error {
	err := cmdline.WriteMan(app.Stdout, app.Model, cmdline.Page{
		Section: 1, Summary: "run commands under locks of dreadlock, and look at what the daemon does", SeeAlso: "dreadlock(8), flock(1), jq(1)",
	})
	if err == nil {
		app.Exit(0)
	}
	return err
}

// badOption is an error about an option, in the style of those of the parser.
func badOption(format string, args ...any) error { return failed(exitUsage, format, args...) }

const (
	// defaultGrace is long enough for a command to clean up. It should be short, since the next holder runs already.
	defaultGrace = 10 * time.Second
	// defaultConnectTimeout lets a lost packet of the handshake be sent again, and --try in a script not wait for long.
	defaultConnectTimeout = 2 * time.Second
	// top asks the daemon at this interval; the minimum keeps it from being a load.
	defaultInterval = 2 * time.Second
	minInterval     = 100 * time.Millisecond
)
