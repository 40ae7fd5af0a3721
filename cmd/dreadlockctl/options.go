package main

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"dreadlock/server/api"
)

const description = `Run commands under locks of a dreadlock daemon, and see what the daemon does.

  dreadlockctl lock nightly -- ./backup.sh        one at a time, the others wait their turn
  dreadlockctl lock nightly --try -- ./backup.sh  or leave at once with status 75
  dreadlockctl locks --sort wait                  which keys are waited for, and since when
  dreadlockctl waiters nightly                    who holds the key, and the line behind it

The lock command talks to the daemon's port (--server); the others read its admin interface (--admin), which is off
unless the daemon was started with one.

Exit status: 0 if all went well, 1 if not, 2 for bad options, 69 if the daemon cannot be reached. The lock command has
that of its COMMAND, and more: see dreadlockctl lock --help.`

// commandLine is the whole command line.
type commandLine struct {
	Lock        lockCommand        `cmd:"" help:"Run a command while holding a key."`
	Status      statusCommand      `cmd:"" help:"Show what the daemon is, and what it has counted."`
	Locks       locksCommand       `cmd:"" help:"List the held keys."`
	Waiters     waitersCommand     `cmd:"" help:"Show who holds a key, and who waits for it."`
	Connections connectionsCommand `cmd:"" help:"List the connections of clients."`
	Deadlocks   deadlocksCommand   `cmd:"" help:"List clients that wait for each other in a circle."`
	Kick        kickCommand        `cmd:"" help:"Disconnect clients; what they hold is free at once."`
	Top         topCommand         `cmd:"" help:"Watch the daemon: rates, hottest keys, longest waits."`
	Completion  completionCommand  `cmd:"" help:"Print the script that teaches a shell to complete dreadlockctl."`
	Complete    completeCommand    `cmd:"" name:"__complete" hidden:"" passthrough:"" help:"Complete a command line, for these scripts."`

	globals
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// globals are the options of all commands.
type globals struct {
	Server         string `default:"localhost:6001" placeholder:"ADDR" help:"The daemon, HOST:PORT (${default})." env:"DREADLOCK_SERVER" group:"daemon"`
	Admin          string `default:"http://localhost:6002" placeholder:"URL" help:"The daemon's admin interface (${default})." env:"DREADLOCK_ADMIN" group:"daemon"`
	AdminTokenFile string `placeholder:"FILE" help:"File with the token that the admin interface asks for." env:"DREADLOCK_ADMIN_TOKEN_FILE" group:"daemon"`
}

// jsonOption is an option of all commands that show something.
type jsonOption struct {
	JSON bool `name:"json" help:"Print JSON, as the admin interface has it."`
}

// newParser makes the parser of a command line, and what it fills in.
func newParser(s *streams) (*kong.Kong, *commandLine, error) {
	var line commandLine
	parser, err := kong.New(&line,
		kong.Name("dreadlockctl"),
		kong.Description(description),
		kong.Writers(s.stdout, s.stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, Compact: true}),
		kong.ExplicitGroups([]kong.Group{{Key: "daemon", Title: "Which daemon:"}}),
		kong.Vars{
			"version":       version(),
			"conflict":      strconv.Itoa(exitConflict),
			"grace":         defaultGrace.String(),
			"default_limit": strconv.Itoa(api.DefaultLimit),
			"interval":      defaultInterval.String(),
			"least":         leastInterval.String(),
		})
	if err != nil {
		return nil, nil, fmt.Errorf("command line: %w", err)
	}
	return parser, &line, nil
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "dreadlockctl (devel)"
	}
	return "dreadlockctl " + info.Main.Version
}

// badOption is an error about an option, in the words of the others.
func badOption(format string, args ...any) error { return failed(exitUsage, format, args...) }

const (
	// defaultGrace is long enough for a command that tidies up, and short enough for the next holder, who already runs.
	defaultGrace = 10 * time.Second
	// defaultInterval is what top takes for one look at the daemon, and leastInterval keeps it from being a load.
	defaultInterval = 2 * time.Second
	leastInterval   = 100 * time.Millisecond
)
