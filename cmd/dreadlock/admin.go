package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"dreadlock/server/admin"
	"dreadlock/server/certs"
	"dreadlock/server/takeover"
)

// adminOff as an address of the admin interface turns its default socket off; so does an empty one.
const adminOff = "off"

// adminAddresses returns the addresses of the admin interface, and whether the default socket is wanted beside them.
func (o *options) adminAddresses() (addresses []string, socket bool) {
	addresses = slices.DeleteFunc(slices.Clone(o.Admin), func(text string) bool { return text == "" || text == adminOff })
	return addresses, len(addresses) == len(o.Admin)
}

// serveAdmin serves the admin interface until stop is called or ctx is done; view is nil if there is to be none. The port is that of the
// daemon, and comes when the daemon listens; serving is closed then. After a predecessor nothing is answered before: until then, who asks
// is answered by that, or waits. An error while it serves does not stop
// the daemon.
func (o *options) serveAdmin(
	ctx context.Context, srv admin.Source, predecessor *takeover.Predecessor, certificates *certs.Store, port <-chan int,
	serving <-chan struct{}, log zerolog.Logger,
) (view *admin.Server, stop func(), err error) {
	addresses, socket := o.adminAddresses()
	if !socket {
		port = nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	stop = func() {
		cancel()
		helpers.Wait()
	}
	if len(addresses) == 0 && !socket {
		if o.Pprof {
			return nil, nil, fmt.Errorf("%w: --pprof has no effect with --admin off", admin.ErrOption)
		}
		helpers.Go(func() {
			if isAlone(ctx, predecessor, serving) {
				admin.DiscardPassed(predecessor)
			}
		})
		return nil, stop, nil
	}
	if len(o.Admin) == 0 && strings.TrimSpace(os.Getenv("DREADLOCK_ADMIN")) != "" {
		log.Info().Msg("DREADLOCK_ADMIN says where dreadlockctl asks; the daemon listens at --admin or DREADLOCK_ADMIN_LISTEN")
	}
	cfg := admin.Config{
		Listen:    addresses,
		Ready:     port,
		TokenFile: o.AdminTokenFile,
		PProf:     o.Pprof,
		Source:    srv,
		Log:       log,

		Predecessor: predecessor,
	}
	if certificates != nil {
		cfg.Certificates = certificates
	}
	if view, err = admin.Listen(ctx, cfg); err != nil {
		return nil, nil, err
	}
	helpers.Go(func() {
		if isAlone(ctx, predecessor, serving) {
			view.Serve(ctx)
		} else {
			_ = view.Close() // nobody was served
		}
	})
	return view, stop, nil
}

// isAlone waits until the daemon serves in place of its predecessor, and reports false if ctx is done before.
func isAlone(ctx context.Context, predecessor *takeover.Predecessor, serving <-chan struct{}) bool {
	if predecessor == nil {
		return true
	}
	select {
	case <-serving:
		return true
	case <-ctx.Done():
		return false
	}
}
