package server

import (
	"context"
	"fmt"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/api"
)

// answerTime bounds how long the loops may take to answer an operator.
const answerTime = 5 * time.Second

// errand is work that a goroutine outside the loops has done on one of them: to look at what only the loop may touch. It
// is done in steps, each a turn of the loop, with the clients of the loop having theirs in between.
type errand struct {
	message reactor.Message // Body: the errand
	step    func() (more bool)
	done    func()
}

// run does one step. It runs on the loop.
func (e *errand) run(sh *shard) {
	if e.step() {
		sh.loop.Post(sh.index, &e.message)
	} else {
		e.done()
	}
}

// visit runs step on each of the shards until it reports that there is no more to do. Each shard has a result of its own,
// which step fills in; visit returns those of the shards that have come to an end, in no order, and the number of those
// that have not when the context ended. A step must be short: it keeps the clients of the loop waiting. Safe from any
// goroutine; while the server does not serve, all shards are missing.
func visit[R any](ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool)) (done []*R, missing int) {
	results := make(chan *R, len(shards))
	stopped := srv.send(func() {
		for _, sh := range shards {
			result := new(R)
			e := &errand{
				step: func() bool { return step(sh, result) },
				done: func() { results <- result }, // has room for all
			}
			e.message.Body = e
			sh.loop.Send(&e.message)
		}
	})
	if stopped == nil {
		return nil, len(shards)
	}
	for len(done) < len(shards) {
		select {
		case r := <-results:
			done = append(done, r)
		case <-ctx.Done():
			return done, len(shards) - len(done)
		case <-stopped:
			return done, len(shards) - len(done)
		}
	}
	return done, 0
}

// send runs f, which sends messages to the loops, if there are any. It returns a channel that is closed when the loops
// are about to end, nil if they have. Safe from any goroutine.
func (srv *Server) send(f func()) <-chan struct{} {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.service == nil {
		return nil
	}
	f()
	return srv.service.stopped
}

// ask is [visit] for what an operator asks: on all shards, with an error if one does not answer in time.
func ask[R any](ctx context.Context, srv *Server, step func(sh *shard, result *R) (more bool)) ([]*R, error) {
	if !srv.Ready() { // before that there may be no shards
		return nil, errNotServing
	}
	return askSome(ctx, srv, srv.shards, step)
}

// errNotServing says that there are no loops to ask.
var errNotServing = fmt.Errorf("%w: it is starting or stopping", api.ErrUnavailable)

// askSome is ask for some of the shards.
func askSome[R any](
	ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool),
) ([]*R, error) {
	bounded, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	done, missing := visit(bounded, srv, shards, step)
	switch {
	case missing == 0:
		return done, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", api.ErrUnavailable, ctx.Err())
	case srv.Ready():
		return nil, fmt.Errorf("%w: %d of %d loops are too busy", api.ErrUnavailable, missing, len(shards))
	}
	return nil, errNotServing
}
