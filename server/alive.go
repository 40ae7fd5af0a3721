package server

import (
	"context"
	"fmt"

	"dreadlock/server/api"
)

// Alive returns nil once every loop has answered. It is for a watchdog: a loop that hangs, or that is busy for longer than
// ctx lasts, makes it fail. The error wraps [api.ErrUnavailable], also while the server does not serve yet or has begun to
// end its loops. Safe from any goroutine.
func (srv *Server) Alive(ctx context.Context) error {
	if srv.now() == nil { // there may be no shards yet
		return errNotServing
	}
	_, missing := eachShard(ctx, srv, srv.shards, func(*shard, *struct{}) (more bool) { return false })
	switch {
	case missing == 0:
		return nil
	case srv.now() == nil:
		return errNotServing
	}
	return fmt.Errorf("%w: %d of %d loops do not answer", api.ErrUnavailable, missing, len(srv.shards))
}
