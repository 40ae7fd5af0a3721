package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"dreadlock/cmd/internal/cmdline"
	"dreadlock/server"
	"dreadlock/server/certs"
	"dreadlock/server/fleet/etcd"
)

const description = `A network lock daemon.

A client connects and sends "lock KEY TIMEOUT" or "unlock KEY", each line ended by CR LF. Waiters get a key in the order in
which they asked. The timeout is in milliseconds. When a connection ends, all its keys are released.
Try it: nc -C localhost ${port}

Every option can also be set by the environment variable shown after it, in the environment or in the file of --options-file, which
goes before that; the command line takes precedence over both.

Exit status: 0 when it was stopped or drained, or another process has taken over, 1 if it cannot serve, 2 for invalid options.

Signals: SIGINT and SIGTERM stop it, with --drain when nobody holds a key any more. SIGUSR2 starts the program again, which takes
over without losing a lock. SIGHUP makes it read the files of TLS and of the admin token again. SIGUSR1 logs who holds what.`

// options are the command line. Defaults come from the server.
type options struct {
	Port *int `arg:"" optional:"" help:"Port to listen on, on all addresses: short for --listen :PORT."`

	Listen         addresses     `sep:"none" placeholder:"ADDR" help:"Address to listen on (${listen}): HOST:PORT or :PORT for all addresses, tls://HOST:PORT, unix:///PATH?mode=0660&group=NAME, or fd://NAME for sockets from systemd. For TCP, ?allow=CIDR,CIDR lets in nobody else, and ?proxy=CIDR,CIDR wants a PROXY header from there. May be given several times; blanks separate addresses in the environment." env:"DREADLOCK_LISTEN"`
	TLSCert        string        `name:"tls-cert" placeholder:"FILE" help:"Certificate for TLS, PEM, with those of the authorities between it and the root. It is read again when it changes, and on SIGHUP; so are the next two." env:"DREADLOCK_LISTEN_TLS_CERT"`
	TLSKey         string        `name:"tls-key" placeholder:"FILE" help:"Private key of the certificate, PEM." env:"DREADLOCK_LISTEN_TLS_KEY"`
	TLSClientCA    string        `name:"tls-client-ca" placeholder:"FILE" help:"Certificates of authorities, PEM: over TLS only clients with a certificate of theirs come in." env:"DREADLOCK_LISTEN_TLS_CLIENT_CA"`
	Loops          int           `default:"${loops}" placeholder:"N" help:"Number of event loops; by default one for each processor this process may use (${default})." env:"DREADLOCK_LOOPS"`
	MaxConnections int           `default:"0" placeholder:"N" help:"Maximum number of connections; more are refused. 0: as many as the limit on open files allows (${default})." env:"DREADLOCK_MAX_CONNECTIONS"`
	MaxPerAddress  int           `name:"max-connections-per-address" default:"0" placeholder:"N" help:"Maximum number of connections from one IP address, behind a proxy that of the client; more are refused. Clients on this machine do not count. 0: no limit (${default})." env:"DREADLOCK_MAX_CONNECTIONS_PER_ADDRESS"`
	IdleTimeout    time.Duration `default:"0s" placeholder:"DURATION" help:"Drop clients that have sent no command at all for this long since they connected; 1m is sensible. 0: never (${default})." env:"DREADLOCK_IDLE_TIMEOUT"`
	MaxPipeline    size          `default:"${max_pipeline}" placeholder:"BYTES" help:"Input kept for a client that keeps sending while it waits; beyond that, TCP holds the client back (${default})." env:"DREADLOCK_MAX_PIPELINE"`
	MaxOutput      size          `default:"${max_output}" placeholder:"BYTES" help:"Output kept for a client that does not read; beyond that, TCP holds the client back (${default})." env:"DREADLOCK_MAX_OUTPUT"`
	MaxKeys        int           `default:"${max_keys}" placeholder:"N" help:"Maximum number of keys that one connection may hold; a lock beyond that is answered \"e too many keys\" (${default})." env:"DREADLOCK_MAX_KEYS"`
	MaxKeyBytes    size          `default:"${max_key_bytes}" placeholder:"BYTES" help:"Memory that the keys of one connection may take, at least 144 bytes each; a lock beyond that is answered \"e too many keys\" (${default})." env:"DREADLOCK_MAX_KEY_BYTES"`
	MaxMemory      size          `default:"0" placeholder:"BYTES" help:"Memory for all clients together, like 512MiB: keys, connections, input and output. At the limit, locks are answered \"e out of memory\", connections are refused and clients held back, until some is free. 0: half of what the process may use, by its cgroup, the machine or ulimit -v (${default})." env:"DREADLOCK_MAX_MEMORY"`
	Keepalive      time.Duration `name:"keepalive" default:"${keepalive}" placeholder:"DURATION" help:"Silence after which a client's host is probed; after twice that its connection is closed (${default})." env:"DREADLOCK_KEEPALIVE"`
	Tick           time.Duration `default:"${tick}" placeholder:"DURATION" help:"Resolution of timeouts, which end up to one tick late (${default})." env:"DREADLOCK_TICK"`
	Drain          time.Duration `default:"0s" placeholder:"DURATION" help:"Time that SIGINT or SIGTERM leaves to those who hold or wait for a key, while nobody else is served. 0s: stop at once (${default})." env:"DREADLOCK_DRAIN"`
	LockDelay      time.Duration `default:"0s" placeholder:"DURATION" help:"Time that a key is kept from the next whose holder's connection has ended without an unlock, so that its work can stop; after a start nothing is granted for as long. 0s: not at all (${default})." env:"DREADLOCK_LOCK_DELAY"`
	fleetOptions
	BreakDeadlocks bool             `help:"Answer the youngest wait of a deadlock with an error. By default a deadlock is only reported." env:"DREADLOCK_BREAK_DEADLOCKS"`
	Events         int              `default:"${events}" placeholder:"N" help:"Number of events to keep in memory: who was granted a key, gave it up, lost it, waited in vain, was kicked or refused. 200 bytes each. 0: none (${default})." env:"DREADLOCK_EVENTS"`
	LogEvents      bool             `help:"Log every event, up to 500 a second." env:"DREADLOCK_LOG_EVENTS"`
	Admin          addresses        `sep:"none" placeholder:"ADDR" help:"Serve metrics, a status page and an API over HTTP on this address too: HOST:PORT like localhost:${admin_port}, https://HOST:PORT, or unix:///PATH?mode=0660&group=NAME. May be given several times. Without it only on a Unix socket in /run/dreadlock, or in a directory of its user, which off turns off." env:"DREADLOCK_ADMIN_LISTEN"`
	AdminTokenFile string           `placeholder:"FILE" help:"File with the token that requests to the admin interface by TCP must carry; required for addresses that are not loopback." env:"DREADLOCK_ADMIN_TOKEN_FILE"`
	Pprof          bool             `help:"Serve profiles of the process on the admin interface." env:"DREADLOCK_PPROF"`
	LogLevel       string           `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Minimum log level: debug, info, warn or error (${default})." env:"DREADLOCK_LOG_LEVEL"`
	OptionsFile    optionsFile      `placeholder:"FILE" help:"File with options, a DREADLOCK_...=VALUE a line, which go before the environment. It is read at the start, and by the process that takes over (SIGUSR2). After a dash it may be missing: -/etc/default/dreadlock." env:"DREADLOCK_OPTIONS_FILE"`
	LogFormat      string           `default:"auto" enum:"auto,console,json" placeholder:"FORMAT" help:"console for people, json for machines; auto is console on a terminal and json elsewhere (${default})." env:"DREADLOCK_LOG_FORMAT"`
	Version        kong.VersionFlag `help:"Print the version and exit."`
	Man            manFlag          `hidden:"" help:"Print the manual page and exit."`

	unknown []unknownVariable // that have no effect
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

// newParser returns a parser that fills in the options, of which it keeps those of a file. Its texts show loops as the default of --loops.
func newParser(opts *options, file *fileOptions, stdout, stderr io.Writer, loops string) (*kong.Kong, error) {
	defaults := server.DefaultConfig()
	return kong.New(opts,
		kong.Bind(file),
		kong.Resolvers(file),
		kong.Name("dreadlock"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.Vars{
			"version":       cmdline.Version("dreadlock"),
			"port":          strconv.Itoa(server.DefaultPort),
			"listen":        defaults.Listen[0],
			"admin_port":    strconv.Itoa(server.DefaultPort + 1),
			"loops":         loops,
			"max_pipeline":  humanize.IBytes(uint64(defaults.MaxPipeline)),
			"max_output":    humanize.IBytes(uint64(defaults.MaxOutput)),
			"max_keys":      strconv.Itoa(defaults.MaxKeys),
			"max_key_bytes": humanize.IBytes(uint64(defaults.MaxKeyBytes)),
			"keepalive":     defaults.KeepAlive.String(),
			"tick":          defaults.Tick.String(),
			"events":        strconv.Itoa(defaults.Events),
			"fleet_prefix":  etcd.DefaultPrefix,
			"fleet_ttl":     etcd.DefaultTTL.String(),
		})
}

// parseOptions parses the command line and the environment. For --help and --version it exits the process.
func parseOptions(args []string, stdout, stderr io.Writer) (*options, error) {
	var opts options
	var file fileOptions
	parser, err := newParser(&opts, &file, stdout, stderr, strconv.Itoa(server.DefaultConfig().Loops))
	if err != nil {
		return nil, err
	}
	parsed, err := cmdline.Parse(parser, args)
	if err != nil {
		return nil, err
	}
	opts.unknown = append(unknownInEnvironment(os.Environ(), variablesOf(parser.Model)), file.unknown...)
	if opts.Port == nil {
		return &opts, nil
	}
	for _, element := range parsed.Path {
		if element.Flag != nil && element.Flag.Name == "listen" && !element.Resolved {
			return nil, fmt.Errorf("port %d and --listen %s: give one of them", *opts.Port, strings.Join(opts.Listen, " "))
		}
	}
	if *opts.Port < 0 || *opts.Port > 65535 {
		return nil, fmt.Errorf("port %d: want 0 to 65535", *opts.Port)
	}
	opts.Listen = addresses{":" + strconv.Itoa(*opts.Port)}
	return &opts, nil
}

// manFlag prints the manual page. It is hidden, since those who have the program by a package have the page too.
type manFlag bool

// BeforeReset prints the page of a machine with any number of processors and ends the program.
func (manFlag) BeforeReset(app *kong.Kong) error {
	general, err := newParser(new(options), new(fileOptions), app.Stdout, app.Stderr, "2 where there are two")
	if err != nil {
		return err
	}
	err = cmdline.WriteMan(app.Stdout, general.Model, cmdline.Page{
		Section: 8, Summary: "network lock daemon", SeeAlso: "dreadlockctl(1), nc(1), systemd.socket(5)",
	})
	if err == nil {
		app.Exit(0)
	}
	return err
}

// listen returns the ways in. If none was asked for, they are the sockets that were passed, or else the default.
func (o *options) listen(sockets *passedSockets) []string {
	given := slices.DeleteFunc(slices.Clone(o.Listen), func(text string) bool { return text == "" })
	switch {
	case len(given) > 0:
		return given
	case sockets.passed():
		return []string{"fd://"}
	}
	return server.DefaultConfig().Listen
}

// certificates reads those for TLS; there is nil without them.
func (o *options) certificates(log zerolog.Logger) (*certs.Store, error) {
	files := certs.Files{Cert: o.TLSCert, Key: o.TLSKey, ClientCA: o.TLSClientCA}
	if files == (certs.Files{}) {
		return nil, nil
	}
	return certs.Load(files, log)
}

// config returns the options for the server.
func (o *options) config(sockets *passedSockets, certificates *certs.Store, log zerolog.Logger) server.Config {
	return server.Config{
		Listen:         o.listen(sockets),
		Certificates:   certificates,
		Activated:      sockets.listeners,
		Loops:          o.Loops,
		MaxConnections: o.MaxConnections,
		MaxPerAddress:  o.MaxPerAddress,
		IdleTimeout:    o.IdleTimeout,
		MaxPipeline:    int(o.MaxPipeline),
		MaxOutput:      int(o.MaxOutput),
		MaxKeys:        o.MaxKeys,
		MaxKeyBytes:    int(o.MaxKeyBytes),
		MaxMemory:      int(o.MaxMemory),
		KeepAlive:      o.Keepalive,
		Tick:           o.Tick,
		Drain:          o.Drain,
		LockDelay:      o.LockDelay,
		BreakDeadlocks: o.BreakDeadlocks,
		Events:         o.Events,
		LogEvents:      o.LogEvents,
		Version:        cmdline.ShortVersion(),
		Log:            log,
	}
}
