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
	group, dialing := errgroup.WithContext(ctx)
	for _, c := range conns {
		c.closed = make(chan struct{}, 1)
		group.Go(func() error {
			for !stopping.Load() {
				if err := r.connectOnce(dialing, c); err != nil {
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

// connectOnce makes one connection and waits until it is closed.
func (r *runner) connectOnce(ctx context.Context, c *conn) error {
	c.closing = false
	c.since = r.now()
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
