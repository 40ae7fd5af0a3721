package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// churnScript locks and unlocks the connection's own key once and closes the connection.
type churnScript struct{}

func (churnScript) begin(c *conn, since int64) {
	c.stage = locking
	c.send(&c.lock, since)
}

func (churnScript) replied(c *conn, _ int, now int64) {
	if c.stage == locking {
		c.stage = unlocking
		c.send(&c.unlock, c.since) // latency counts from the connect
		return
	}
	c.loop.count(1, c.since, now)
	c.closing = true
}

// churn measures Churn.
func (r *runner) churn(ctx context.Context) error {
	conns := r.add(r.workload.Connections, churnScript{})
	ownKeys(r.target.Dialect, r.prefix, conns)
	var stopping atomic.Bool
	due := arrivals(r.workload.Rate, r.now)
	group, dialing := errgroup.WithContext(ctx)
	for _, c := range conns {
		c.closed = make(chan struct{}, 1)
		group.Go(func() error {
			for !stopping.Load() {
				since, err := due(dialing)
				if err == nil {
					err = r.connectOnce(dialing, c, since)
				}
				if err != nil {
					r.fail(err)
					return err
				}
			}
			return nil
		})
	}
	err := r.window(ctx, r.operations)
	stopping.Store(true)
	if dialed := group.Wait(); err == nil {
		err = dialed
	}
	return err
}

// arrivals returns what waits until the next connection of all should be made, and says when that was: at a constant rate, or at
// once if that is 0. It is safe from any goroutine.
func arrivals(perSecond float64, now func() int64) func(context.Context) (since int64, err error) {
	if perSecond == 0 {
		return func(context.Context) (int64, error) { return now(), nil }
	}
	var taken atomic.Int64
	start := now()
	return func(ctx context.Context) (int64, error) {
		since := start + int64(float64(taken.Add(1)-1)*float64(time.Second)/perSecond)
		timer := time.NewTimer(time.Duration(since - now()))
		defer timer.Stop()
		select {
		case <-timer.C:
			return since, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// connectOnce makes one connection, which should have been made at since, and waits until it is closed.
func (r *runner) connectOnce(ctx context.Context, c *conn, since int64) error {
	c.closing = false
	c.since = since
	if err := r.dial(ctx, c); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	timeout := time.NewTimer(r.patience)
	defer timeout.Stop()
	select {
	case <-c.closed:
		return nil
	case <-r.failed:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return r.lost()
	}
}
