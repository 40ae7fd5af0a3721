// Dreadlock is a network lock daemon: it hands out named locks over TCP.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rs/zerolog"

	"dreadlock/server"
	"dreadlock/server/admin"
	"dreadlock/server/certs"
	"dreadlock/server/fleet/etcd"
	"dreadlock/server/takeover"
	"dreadlock/server/unixsock"
)

// The exit statuses other than 0.
const (
	exitFailed = 1 // it cannot serve, or cannot continue
	exitUsage  = 2 // invalid options
)

func main() {
	// First, since by default these signals end the process.
	signals := requests{status: statusRequests(), reload: reloadRequests(), takeover: takeoverRequests()}
	opts, err := parseAndServe(signals)
	switch {
	case err == nil:
	case opts == nil || isOption(err):
		fmt.Fprintf(os.Stderr, "dreadlock: %s (dreadlock --help lists the options)\n", plain(err))
		os.Exit(exitUsage)
	default:
		fmt.Fprintf(os.Stderr, "dreadlock: %s%s\n", plain(err), advice(err))
		os.Exit(exitFailed)
	}
}

// requests are the signals that ask a daemon that serves for something: for its status, for reading again what can be read again, and
// for handing over to another process.
type requests struct{ status, reload, takeover <-chan os.Signal }

// parseAndServe parses the options and runs the daemon. A process that was started to take over tells its predecessor why it does not.
func parseAndServe(signals requests) (*options, error) {
	command, err := takeover.ThisCommand()
	if err != nil {
		return nil, err
	}
	predecessor, err := takeover.Inherit(context.Background())
	if err != nil {
		return &options{}, err
	}
	opts, err := parseOptions(os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		err = serve(opts, signals, command, predecessor)
	}
	if err != nil {
		predecessor.Refuse(errors.New(plain(err) + advice(err)))
	}
	return opts, err
}

// serve runs the daemon until a signal stops it, or a drain is over, or another process has taken over.
func serve(opts *options, signals requests, command *takeover.Command, predecessor *takeover.Predecessor) error {
	// The daemon must survive the reader of its log.
	signal.Ignore(syscall.SIGPIPE)
	caught := catchStops()

	queue := newQueueWriter(logFormat(opts.LogFormat, os.Stderr))
	defer queue.close()
	level, err := zerolog.ParseLevel(opts.LogLevel)
	if err != nil {
		return err
	}
	log := zerolog.New(queue).Level(level).With().Timestamp().Logger()
	warn(opts.unknown, log)
	ctx, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	defer helpers.Wait() // before the log is closed
	defer stop()
	notify, err := newNotifier(log, predecessor)
	if err != nil {
		return err
	}
	certificates, err := opts.certificates(log)
	if err != nil {
		return err
	}
	sockets := inheritSockets(predecessor)
	cfg := opts.config(sockets, certificates, log)
	port, serving := make(chan int, 1), make(chan struct{})
	heirs := &succession{command: command, notify: notify, handed: make(chan *takeover.Successor, 1)}
	if predecessor == nil { // otherwise process 1 has not started this one
		heirs.end = findEnd()
	}
	if cfg.Fleet, err = opts.store(func() int { return heirs.Port() }, log); err != nil {
		return err
	}
	cfg.Ready = func(address string) {
		notify.serving(address)
		sockets.closeRest(log)
		port <- heirs.Port()
		close(serving)
	}
	cfg.Draining = notify.draining
	heirs.configure(&cfg, predecessor)
	if heirs.Server, err = server.New(cfg); err != nil {
		return err
	}
	stops := &stops{caught: caught, stop: stop}
	if opts.Drain > 0 {
		stops.drain = func() error { return heirs.BeginDrain(&opts.Drain) }
	}
	helpers.Go(func() { stops.handle(ctx) })
	helpers.Go(func() { reportStatus(ctx, log, signals.status, heirs.LogHolders) })
	var again []reloadable
	if certificates != nil {
		again = append(again, reloadable{"TLS certificates", certificates.Reload})
		helpers.Go(func() { certificates.Watch(ctx) })
	}
	tuneRuntime(&cfg, opts.Pprof)
	helpers.Go(func() { tuneCollector(ctx) })
	view, stopAdmin, err := opts.serveAdmin(ctx, heirs, predecessor, certificates, port, serving, log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	heirs.view = view
	if view != nil && view.HasToken() {
		again = append(again, reloadable{"admin token", view.ReloadToken})
	}
	helpers.Go(func() { notify.run(ctx, heirs, signals.reload, func() { reload(log, again) }) })
	helpers.Go(func() { heirs.handleRequests(ctx, signals.takeover) })
	over := make(chan error, 1)
	go func() { over <- heirs.Run(ctx) }()
	select {
	case err := <-over:
		return err
	case successor := <-heirs.handed: // Run does not return any more
		stopAdmin()
		stops.passOn(successor, log)
		queue.flush()
		os.Exit(0) //nolint:gocritic // without undoing anything
		return nil
	}
}

// tuneRuntime sets what the Go runtime would choose for a program of another kind. GOMEMLIMIT of the environment goes first.
func tuneRuntime(cfg *server.Config, profiles bool) {
	runtime.GOMAXPROCS(cfg.Procs())
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(cfg.RuntimeMemory())
	}
	if !profiles {
		runtime.MemProfileRate = 0 // its records would take a megabyte
	}
}

// isOption reports whether an error is about the options.
func isOption(err error) bool {
	return errors.Is(err, server.ErrOption) || errors.Is(err, admin.ErrOption) || errors.Is(err, certs.ErrOption) ||
		errors.Is(err, etcd.ErrOption)
}

// catchStops returns a channel that receives the signals to stop.
func catchStops() chan os.Signal {
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM)
	return caught
}

// stops are the signals to stop.
type stops struct {
	caught chan os.Signal
	drain  func() error // begins a drain, if there is to be one: nil otherwise, and fails if no clients are served yet
	stop   func()       // stops the daemon
	seen   atomic.Bool
}

// handle takes the signals until ctx is done. The first one begins a drain, the next one, or the first one without a drain, stops the
// daemon. One more ends the process at once.
func (s *stops) handle(ctx context.Context) {
	for signals := 1; ; signals++ {
		select {
		case <-s.caught:
			s.seen.Store(true)
		case <-ctx.Done():
			return
		}
		if signals > 1 || s.drain == nil || s.drain() != nil {
			signal.Stop(s.caught)
			s.stop()
			return
		}
	}
}

// passOn sends a signal that has come while a successor took over to that one: whoever has sent it wants the daemon to stop.
func (s *stops) passOn(successor *takeover.Successor, log zerolog.Logger) {
	if !s.seen.Load() && len(s.caught) == 0 {
		return
	}
	log.Info().Int("pid", successor.PID()).Msg("this process was told to stop while another one took over, and passes that on")
	_ = successor.Signal(syscall.SIGTERM) // fails if it has ended
}

// plain returns the text of an error without what is for developers: the name of a package, and that of a sentinel that the
// exit status already tells.
func plain(err error) string {
	text := err.Error()
	for _, prefix := range []string{"reactor: ", server.ErrOption.Error() + ": ", admin.ErrOption.Error() + ": "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// advice says what to do about an error; it is empty for unknown ones.
func advice(err error) string {
	var socket *unixsock.Error
	switch {
	case errors.As(err, &socket): // says it itself
	case errors.Is(err, syscall.EADDRINUSE):
		return ": stop what listens there (ss -ltnp shows it), or choose another port"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need root or CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this machine has no such address (ip address shows them)"
	}
	return ""
}
