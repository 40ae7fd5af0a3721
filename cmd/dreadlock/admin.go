package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"dreadlock/server"
	"dreadlock/server/admin"
	"dreadlock/server/certs"
)

// adminAddresses returns the addresses of the admin interface, and whether the default socket is wanted beside them. It is
// unless one of the addresses is empty.
func (o *options) adminAddresses() (addresses []string, socket bool) {
	addresses = slices.DeleteFunc(slices.Clone(o.Admin), func(text string) bool { return text == "" })
	return addresses, len(addresses) == len(o.Admin)
}

// serveAdmin serves the admin interface, if there is to be one, until stop is called or ctx is done. The port is that of the
// daemon, and comes when the daemon listens. An error while it serves does not stop the daemon.
func (o *options) serveAdmin(
	ctx context.Context, srv *server.Server, certificates *certs.Store, port <-chan int, log zerolog.Logger,
) (stop func(), err error) {
	addresses, socket := o.adminAddresses()
	if !socket {
		port = nil
	}
	if len(addresses) == 0 && !socket {
		if o.Pprof {
			return nil, fmt.Errorf("%w: --pprof has no effect with --admin ''", admin.ErrOption)
		}
		return func() {}, nil
	}
	if len(o.Admin) == 0 && os.Getenv("DREADLOCK_ADMIN") != "" {
		log.Info().Msg("DREADLOCK_ADMIN says where dreadlockctl asks; the daemon listens at --admin or DREADLOCK_ADMIN_LISTEN")
	}
	cfg := admin.Config{
		Listen:    addresses,
		Ready:     port,
		TokenFile: o.AdminTokenFile,
		PProf:     o.Pprof,
		Source:    srv,
		Log:       log,
	}
	if certificates != nil {
		cfg.Certificates = certificates
	}
	view, err := admin.Listen(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { view.Serve(ctx) })
	return func() {
		cancel()
		serving.Wait()
	}, nil
}
