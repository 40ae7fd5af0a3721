package server

import (
	"context"
	"fmt"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/api"
)

const (
	// queryTime bounds how long the loops may take to answer a query.
	queryTime = 5 * time.Second
	// maxWalks is the number of queries at a time that look at all keys, or at all connections; more of them wait. Each makes a
	// step in every turn of a loop, so what the clients notice is the length of that many steps.
	maxWalks = 1
	// restPerStep is how long a query leaves a loop alone after a step, as a multiple of the time that the step has taken. Loops that
	// work without a rest leave the processors to nobody else, and then the kernel makes them wait for many steps at a time.
	restPerStep = 2
)

// taskUnits is what a step of a task takes of a turn: so much that the loop looks at the clock after each.
const taskUnits = 64

// loopTask is work that a goroutine outside the loops has done on one of them, to see or change what only that loop may
// touch. It is done in steps, each in a turn of its own, so that the clients of the loop are served in between.
type loopTask struct {
	message reactor.Message // Body: the task
	step    func() (more bool)
	done    func()
	// rest, unless it is nil, has the next step done after some time.
	rest func(d time.Duration, sh *shard, t *loopTask)
}

// run does one step. It runs on the loop.
func (t *loopTask) run(sh *shard) {
	began := time.Now()
	switch more := t.step(); {
	case !more:
		t.done()
	case t.rest == nil:
		sh.loop.Post(sh.index, &t.message)
	default:
		t.rest(restPerStep*time.Since(began), sh, t)
	}
}

// rest has the next step of a task done after some time, unless the loops end before.
func (srv *Server) rest(d time.Duration, sh *shard, t *loopTask) {
	time.AfterFunc(d, func() {
		srv.send(func() { sh.loop.Send(&t.message) })
	})
}

// eachShard runs step on the loop of each of the shards, again and again until it returns false. Each shard has a result of
// its own, which step fills in. eachShard returns the results of the shards that have finished, in no order, and the number
// of those that had not when the context ended; what they have been sent still runs. A step must be short, since it keeps
// the clients of the loop waiting. Safe from any goroutine; while the server does not serve, all shards are missing.
func eachShard[R any](
	ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool),
) (done []*R, missing int) {
	return runTasks(ctx, srv, shards, nil, step)
}

// runTasks is eachShard with a rest between the steps, if there is to be one.
func runTasks[R any](
	ctx context.Context, srv *Server, shards []*shard, rest func(time.Duration, *shard, *loopTask),
	step func(sh *shard, result *R) (more bool),
) (done []*R, missing int) {
	results := make(chan *R, len(shards))
	stopped := srv.send(func() {
		for _, sh := range shards {
			result := new(R)
			t := &loopTask{
				step: func() bool { return step(sh, result) },
				done: func() { results <- result }, // has room for all
				rest: rest,
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

// beginWalk waits until a query may look at all keys, or at all connections. It is over when end is called.
func (srv *Server) beginWalk(ctx context.Context) (end func(), err error) {
	select {
	case srv.walks <- struct{}{}:
		return func() { <-srv.walks }, nil
	case <-ctx.Done():
		return nil, unavailable(ctx)
	}
}

// query is [eachShard] for an operator, who gets an error if one of the shards does not finish in time. What has not finished
// ends then. It is in no hurry: the loops rest between its steps.
func query[R any](
	ctx context.Context, srv *Server, shards []*shard, step func(sh *shard, result *R) (more bool),
) ([]*R, error) {
	bounded, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	done, missing := runTasks(bounded, srv, shards, srv.rest, func(sh *shard, result *R) (more bool) {
		return bounded.Err() == nil && step(sh, result)
	})
	switch {
	case missing == 0 && bounded.Err() == nil: // otherwise the results may be partial
		return done, nil
	case ctx.Err() != nil:
		return nil, unavailable(ctx)
	case srv.serves():
		return nil, fmt.Errorf("%w: the loops are too busy", api.ErrUnavailable)
	}
	return nil, errNotServing
}

// unavailable says that ctx has ended before the server has answered.
func unavailable(ctx context.Context) error {
	return fmt.Errorf("%w: %w", api.ErrUnavailable, ctx.Err())
}
