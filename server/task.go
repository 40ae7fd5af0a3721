package server

import (
	"context"
	"fmt"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/api"
)

// queryTime bounds how long the loops may take to answer a query.
const queryTime = 5 * time.Second

// taskUnits is what a step of a task takes of a turn: so much that the loop looks at the clock after each.
const taskUnits = 64

// loopTask is work that a goroutine outside the loops has done on one of them, to see or change what only that loop may
// touch. It is done in steps, each in a turn of its own, so that the clients of the loop are served in between.
type loopTask struct {
	message reactor.Message // Body: the task
	step    func() (more bool)
	done    func()
}

// run does one step. It runs on the loop.
func (t *loopTask) run(sh *shard) {
	if t.step() {
		sh.loop.Post(sh.index, &t.message)
	} else {
		t.done()
	}
}

// eachShard runs step on the loop of each of the shards, again and again until it returns false. Each shard has a result of
// its own, which step fills in. eachShard returns the results of the shards that have finished, in no order, and the number
// of those that had not when the context ended; what they have been sent still runs. A step must be short, since it keeps
// the clients of the loop waiting. Safe from any goroutine; while the server does not serve, all shards are missing.
func eachShard[R any](
	ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool),
) (done []*R, missing int) {
	results := make(chan *R, len(shards))
	stopped := srv.send(func() {
		for _, sh := range shards {
			result := new(R)
			t := &loopTask{
				step: func() bool { return step(sh, result) },
				done: func() { results <- result }, // has room for all
			}
			t.message.Body = t
			sh.loop.Send(&t.message)
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

// send calls f, which sends messages to the loops, if they run. It returns a channel that is closed when the loops are about
// to end, or nil if they do not run. Safe from any goroutine.
func (srv *Server) send(f func()) <-chan struct{} {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.service == nil {
		return nil
	}
	f()
	return srv.service.stopped
}

// errNotServing says that there are no loops to query.
var errNotServing = fmt.Errorf("%w: it is starting or stopping", api.ErrUnavailable)

// queryAll is [query] of all shards.
func queryAll[R any](ctx context.Context, srv *Server, step func(sh *shard, result *R) (more bool)) ([]*R, error) {
	if !srv.serves() { // there may be no shards yet
		return nil, errNotServing
	}
	return query(ctx, srv, srv.shards, step)
}

// query is [eachShard] for an operator, who gets an error if one of the shards does not finish in time.
func query[R any](
	ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool),
) ([]*R, error) {
	bounded, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	done, missing := eachShard(bounded, srv, shards, step)
	switch {
	case missing == 0:
		return done, nil
	case ctx.Err() != nil:
		return nil, unavailable(ctx)
	case srv.serves():
		return nil, fmt.Errorf("%w: %d of %d loops are too busy", api.ErrUnavailable, missing, len(shards))
	}
	return nil, errNotServing
}

// unavailable says that ctx has ended before the server has answered.
func unavailable(ctx context.Context) error {
	return fmt.Errorf("%w: %w", api.ErrUnavailable, ctx.Err())
}
