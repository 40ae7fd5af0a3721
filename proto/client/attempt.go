package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dreadlock/proto"
)

const (
	// maxPause is the longest pause between two attempts, unless Options.Backoff is longer. It bounds how late a client
	// comes back to a server that was away for long.
	maxPause = 5 * time.Second
	// settledTime is how long a connection must last after the key was asked for until the client is taken to stand in the
	// queue again. A server that refuses a connection says so much sooner.
	settledTime = time.Second
)

// lockNew asks on new connections until there is an answer, the wait is over, or the attempts are used up.
func (c *Client) lockNew(ctx context.Context, key string, wait time.Duration, began time.Time, t *trouble) (*Lock, error) {
	attempts := c.options.Attempts
	if attempts == 0 && wait == 0 {
		attempts = 1 // trying again would be waiting
	}
	for failed := 0; ; {
		asked := time.Now()
		l, err := c.attempt(ctx, key, wait, began, t)
		if !isPassing(err) {
			return l, err
		}
		if time.Since(asked) > maxPause {
			failed = 0 // it stood in the queue: this is another absence
		}
		ctx = c.afterLoss(ctx, err)
		failed++
		if failed == attempts || wait > 0 && remaining(wait, began) == 0 {
			return nil, err
		}
		t.begin(err)
		pause := c.options.pause(failed)
		if wait > 0 {
			pause = min(pause, remaining(wait, began))
		}
		if ended := sleep(ctx, pause); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
		if wait > 0 && remaining(wait, began) == 0 {
			return nil, err
		}
	}
}

// attempt asks on a new connection. All but the first connect within the wait.
func (c *Client) attempt(ctx context.Context, key string, wait time.Duration, began time.Time, t *trouble) (*Lock, error) {
	dialing := ctx
	if t.last != nil && wait > 0 {
		var cancel context.CancelFunc
		dialing, cancel = context.WithDeadline(ctx, began.Add(wait))
		defer cancel()
	}
	l, err := c.ask(ctx, dialing, key, wait, began, t)
	if errors.Is(err, context.DeadlineExceeded) && endOf(dialing) != nil && endOf(ctx) == nil {
		return nil, t.last // the wait is over
	}
	return l, err
}

// ask asks on a new connection, and on another one if the server turns out not to know names. It connects within the
// context dialing.
func (c *Client) ask(ctx, dialing context.Context, key string, wait time.Duration, began time.Time, t *trouble) (*Lock, error) {
	cn, err := c.connectKnown(dialing)
	if err != nil {
		if t.last != nil && endOf(dialing) != nil {
			err = fmt.Errorf("%w: %w", err, t.last)
		}
		return nil, err
	}
	if cn.server != nil {
		if err := c.tables.mayGoOn(t.space, cn); err != nil {
			cn.close()
			c.tables.settle(cn.to, time.Time{}) // ask all again
			return nil, err
		}
	}
	defer t.watch()()
	l, err := c.lockOn(ctx, cn, key, remaining(wait, began))
	t.stoodOn(cn)
	if !errors.Is(err, errNameless) {
		return l, err
	}
	ctx = c.afterLoss(ctx, err)
	to := cn.to
	cn, err = c.explore(dialing, to, key)
	if errors.Is(err, errTooOld) {
		cn, err = c.withoutName(dialing, to)
	}
	if err != nil {
		return nil, err
	}
	return c.lockOn(ctx, cn, key, remaining(wait, began))
}

// isPassing reports whether the next attempt may succeed: the server was away, or has no room at the moment.
func isPassing(err error) bool {
	var refusal *ServerError
	return errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrUnreachable) ||
		errors.As(err, &refusal) && refusal.Text == tooManyConnections
}

// tooManyConnections is the text of the error with which a server refuses a connection.
var tooManyConnections = proto.TooManyConnections.Line()[len("e ") : len(proto.TooManyConnections.Line())-len("\r\n")]

// trouble is what one call of Lock tells Options.Trouble. Its methods are called by the goroutine of the call.
type trouble struct {
	client    *Client
	key       string
	last      error  // of the last attempt; nil before the first has failed
	told      bool   // that it has begun, and not that it has ended
	toldOther bool   // that another lock table is the reason; likewise
	space     uint64 // the lock table in which the call has stood in line last; 0 if that is not known
}

// stoodOn takes down where the key was asked for.
func (t *trouble) stoodOn(cn *conn) {
	if cn.server != nil && cn.server.space != 0 {
		t.space = cn.server.space
	}
}

// begin reports that an attempt has failed, once until the trouble ends, and once more if that is because all servers that are there
// have another lock table.
func (t *trouble) begin(err error) {
	t.last = err
	var otherTable *OtherTableError
	other := errors.As(err, &otherTable)
	if f := t.client.options.Trouble; f != nil && (!t.told || other && !t.toldOther) {
		t.told, t.toldOther = true, other
		f(t.key, err)
	}
}

// watch reports that the trouble has ended if the attempt that is going on lasts. The function that it returns ends that.
func (t *trouble) watch() (stop func()) {
	if !t.told {
		return func() {}
	}
	done := make(chan struct{})
	timer := time.AfterFunc(settledTime, func() {
		defer close(done)
		t.told, t.toldOther = false, false
		t.client.options.Trouble(t.key, nil)
	})
	return func() {
		if !timer.Stop() {
			<-done
		}
	}
}

// remaining returns what is left of a wait, 0 after its end. A wait without a limit stays as it is.
func remaining(wait time.Duration, began time.Time) time.Duration {
	if wait <= 0 {
		return wait
	}
	return max(0, wait-time.Since(began))
}

// sleep returns after d, or with the error of the context when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
