// Dreadlock is a network lock daemon: it hands out named locks over TCP.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/rs/zerolog"

	"dreadlock/server"
	"dreadlock/server/admin"
)

// The exit statuses other than 0.
const (
	exitFailed = 1 // it cannot serve, or cannot go on
	exitUsage  = 2 // bad options
)

func main() {
	opts, err := parseOptions(os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		err = serve(opts)
	}
	switch {
	case err == nil:
	case opts == nil || errors.Is(err, server.ErrOption) || errors.Is(err, admin.ErrOption):
		fmt.Fprintf(os.Stderr, "dreadlock: %v (dreadlock --help lists the options)\n", err)
		os.Exit(exitUsage)
	default:
		fmt.Fprintf(os.Stderr, "dreadlock: %v%s\n", err, advice(err))
		os.Exit(exitFailed)
	}
}

// serve runs the daemon until it is told to stop.
func serve(opts *options) error {
	// A reader of the log that goes away must not take the daemon with it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, restore := stopSignals()
	defer restore()

	queue := newQueueWriter(logFormat(opts.LogFormat, os.Stderr))
	defer queue.close()
	level, err := zerolog.ParseLevel(opts.LogLevel)
	if err != nil {
		return err
	}
	log := zerolog.New(queue).Level(level).With().Timestamp().Logger()
	reporting, stop := context.WithCancel(ctx)
	requests := statusRequests()
	var status sync.WaitGroup
	status.Go(func() { reportStatus(reporting, log, requests) })
	defer status.Wait() // before the log is closed
	defer stop()
	srv, err := server.New(opts.config(log))
	if err != nil {
		return err
	}
	stopAdmin, err := opts.serveAdmin(ctx, srv, log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	return srv.Run(ctx)
}

// stopSignals returns a context that is done when somebody wants the daemon to stop. A second signal ends the process at
// once. The function ends both.
func stopSignals() (context.Context, context.CancelFunc) {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore)
	return ctx, restore
}

// serveAdmin shows the server's inside, if that is wanted, until stop is called or ctx is done. That it cannot go on does
// not stop the daemon.
func (o *options) serveAdmin(ctx context.Context, srv *server.Server, log zerolog.Logger) (stop func(), err error) {
	if o.Admin == "" {
		if o.AdminTokenFile != "" || o.Pprof {
			return nil, fmt.Errorf("%w: --admin-token-file and --pprof are of no use without --admin", admin.ErrOption)
		}
		return func() {}, nil
	}
	view, err := admin.Listen(ctx, admin.Config{
		Listen:    strings.TrimSuffix(strings.TrimPrefix(o.Admin, "http://"), "/"), // as dreadlockctl has it in the same variable
		TokenFile: o.AdminTokenFile,
		PProf:     o.Pprof,
		Source:    srv,
		Log:       log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := view.Serve(ctx); err != nil {
			log.Error().Err(err).Msg("the admin interface has ended: restart the daemon to have it back")
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}, nil
}

// advice says what to do about an error, as far as that is known.
func advice(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return ": stop what listens there (ss -ltnp shows it), or choose another port"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need root or CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": this machine has no such address (ip address shows them)"
	}
	return ""
}
