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
	"syscall"

	"github.com/rs/zerolog"

	"dreadlock/server"
	"dreadlock/server/admin"
	"dreadlock/server/certs"
	"dreadlock/server/fleet/etcd"
	"dreadlock/server/unixsock"
)

// The exit statuses other than 0.
const (
	exitFailed = 1 // it cannot serve, or cannot continue
	exitUsage  = 2 // invalid options
)

func main() {
	requests, reloads := statusRequests(), reloadRequests() // first, since by default these signals end the process
	opts, err := parseOptions(os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		err = serve(opts, requests, reloads)
	}
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

// serve runs the daemon until a signal stops it, or a drain is over. The requests are for its status, the reloads for reading
// again what can be read again.
func serve(opts *options, requests, reloads <-chan os.Signal) error {
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
	ctx, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	defer helpers.Wait() // before the log is closed
	defer stop()
	notify, err := newNotifier(log)
	if err != nil {
		return err
	}
	certificates, err := opts.certificates(log)
	if err != nil {
		return err
	}
	sockets := inheritSockets()
	cfg := opts.config(sockets, certificates, log)
	port := make(chan int, 1)
	var srv *server.Server
	if cfg.Fleet, err = opts.store(func() int { return srv.Port() }, log); err != nil {
		return err
	}
	cfg.Ready = func(address string) {
		notify.serving(address)
		sockets.closeRest(log)
		port <- srv.Port()
	}
	cfg.Draining = notify.draining
	if srv, err = server.New(cfg); err != nil {
		return err
	}
	var drain func() error
	if opts.Drain > 0 {
		drain = func() error { return srv.BeginDrain(&opts.Drain) }
	}
	helpers.Go(func() { handleStops(ctx, caught, drain, stop) })
	helpers.Go(func() { reportStatus(ctx, log, requests, srv.LogHolders) })
	var again []reloadable
	if certificates != nil {
		again = append(again, reloadable{"TLS certificates", certificates.Reload})
		helpers.Go(func() { certificates.Watch(ctx) })
	}
	tuneRuntime(&cfg, opts.Pprof)
	helpers.Go(func() { tuneCollector(ctx) })
	view, stopAdmin, err := opts.serveAdmin(ctx, srv, certificates, port, log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	if view != nil && view.HasToken() {
		again = append(again, reloadable{"admin token", view.ReloadToken})
	}
	helpers.Go(func() { notify.run(ctx, srv, reloads, func() { reload(log, again) }) })
	return srv.Run(ctx)
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

// handleStops takes the signals to stop, until ctx is done. The first one begins a drain, if there is to be one: drain is nil
// otherwise, and fails if no clients are served yet. The next one stops the daemon. One more ends the process at once.
func handleStops(ctx context.Context, caught chan os.Signal, drain func() error, stop func()) {
	for signals := 1; ; signals++ {
		select {
		case <-caught:
		case <-ctx.Done():
			return
		}
		if signals > 1 || drain == nil || drain() != nil {
			signal.Stop(caught)
			stop()
			return
		}
	}
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
