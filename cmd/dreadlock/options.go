package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"dreadlock/server"
)

const description = `A network lock daemon.

A client connects and sends "lock KEY TIMEOUT" or "unlock KEY", each line ended by CR LF. Waiters get a key in the order in
which they asked. The timeout is in milliseconds. When a connection ends, all its keys are released.
Try it: nc -C localhost ${port}

Every option can also be set by the environment variable shown after it; the command line takes precedence.`

// options are the command line. Defaults come from the server.
type options struct {
	Port *int `arg:"" optional:"" help:"Port to listen on, on all addresses: short for --listen :PORT."`

	Listen         string           `placeholder:"ADDR" help:"Address to listen on, HOST:PORT or :PORT for all addresses (${listen})." env:"DREADLOCK_LISTEN"`
	Loops          int              `default:"${loops}" placeholder:"N" help:"Number of event loops; by default one for each processor this process may use (${default})." env:"DREADLOCK_LOOPS"`
	MaxConnections int              `default:"0" placeholder:"N" help:"Maximum number of connections; more are refused. 0: as many as the limit on open files allows (${default})." env:"DREADLOCK_MAX_CONNECTIONS"`
	MaxPipeline    size             `default:"${max_pipeline}" placeholder:"BYTES" help:"Input kept for a client that keeps sending while it waits; beyond that, TCP holds the client back (${default})." env:"DREADLOCK_MAX_PIPELINE"`
	MaxOutput      size             `default:"${max_output}" placeholder:"BYTES" help:"Output kept for a client that does not read; beyond that, TCP holds the client back (${default})." env:"DREADLOCK_MAX_OUTPUT"`
	Keepalive      time.Duration    `name:"keepalive" default:"${keepalive}" placeholder:"DURATION" help:"Silence after which a client's host is probed; after twice that its connection is closed (${default})." env:"DREADLOCK_KEEPALIVE"`
	Tick           time.Duration    `default:"${tick}" placeholder:"DURATION" help:"Resolution of timeouts, which end up to one tick late (${default})." env:"DREADLOCK_TICK"`
	Drain          time.Duration    `default:"0s" placeholder:"DURATION" help:"Time that SIGINT or SIGTERM leaves to those who hold or wait for a key, while nobody else is served. 0s: stop at once (${default})." env:"DREADLOCK_DRAIN"`
	BreakDeadlocks bool             `help:"Answer the youngest wait of a deadlock with an error. By default a deadlock is only reported." env:"DREADLOCK_BREAK_DEADLOCKS"`
	Admin          addresses        `sep:"none" placeholder:"ADDR" help:"Serve metrics, a status page and an API over HTTP on this address too: HOST:PORT like localhost:${admin_port}, https://HOST:PORT, or unix:///PATH?mode=0660&group=NAME. May be given several times. Without it only on a Unix socket in /run/dreadlock or $$XDG_RUNTIME_DIR, which an empty ADDR turns off." env:"DREADLOCK_ADMIN_LISTEN"`
	AdminTokenFile string           `placeholder:"FILE" help:"File with the token that requests to the admin interface by TCP must carry; required for addresses that are not loopback." env:"DREADLOCK_ADMIN_TOKEN_FILE"`
	Pprof          bool             `help:"Serve profiles of the process on the admin interface." env:"DREADLOCK_PPROF"`
	LogLevel       string           `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Minimum log level: debug, info, warn or error (${default})." env:"DREADLOCK_LOG_LEVEL"`
	LogFormat      string           `default:"auto" enum:"auto,console,json" placeholder:"FORMAT" help:"console for people, json for machines; auto is console on a terminal and json elsewhere (${default})." env:"DREADLOCK_LOG_FORMAT"`
	Version        kong.VersionFlag `help:"Print the version and exit."`
}

// size is a number of bytes: 262144, 256KiB, 1MB.
type size int

// UnmarshalText parses a size.
func (s *size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<40 {
		return fmt.Errorf("invalid size %q: want bytes, like 262144 or 256KiB", text)
	}
	*s = size(n)
	return nil
}

// parseOptions parses the command line and the environment. For --help and --version it exits the process.
func parseOptions(args []string, stdout, stderr io.Writer) (*options, error) {
	defaults := server.DefaultConfig()
	var opts options
	parser, err := kong.New(&opts,
		kong.Name("dreadlock"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.Vars{
			"version":      version(),
			"port":         strconv.Itoa(server.DefaultPort),
			"listen":       defaults.Listen,
			"admin_port":   strconv.Itoa(server.DefaultPort + 1),
			"loops":        strconv.Itoa(defaults.Loops),
			"max_pipeline": humanize.IBytes(uint64(defaults.MaxPipeline)),
			"max_output":   humanize.IBytes(uint64(defaults.MaxOutput)),
			"keepalive":    defaults.KeepAlive.String(),
			"tick":         defaults.Tick.String(),
		})
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, err
	}
	if opts.Port == nil {
		if opts.Listen == "" {
			opts.Listen = defaults.Listen
		}
		return &opts, nil
	}
	for _, element := range parsed.Path {
		if element.Flag != nil && element.Flag.Name == "listen" {
			return nil, fmt.Errorf("port %d and --listen %s: give one of them", *opts.Port, opts.Listen)
		}
	}
	opts.Listen = ":" + strconv.Itoa(*opts.Port)
	return &opts, nil
}

// config returns the options for the server.
func (o *options) config(log zerolog.Logger) server.Config {
	return server.Config{
		Listen:         o.Listen,
		Loops:          o.Loops,
		MaxConnections: o.MaxConnections,
		MaxPipeline:    int(o.MaxPipeline),
		MaxOutput:      int(o.MaxOutput),
		KeepAlive:      o.Keepalive,
		Tick:           o.Tick,
		Drain:          o.Drain,
		BreakDeadlocks: o.BreakDeadlocks,
		Version:        shortVersion(),
		Log:            log,
	}
}
