package main

import (
	"context"
	"errors"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"dreadlock/proto/client"
)

// acquire waits for the key. A signal ends the wait at once.
func (c *lockCommand) acquire(
	ctx context.Context, s *streams, g *globals, options client.Options, signals <-chan os.Signal,
) (*client.Lock, error) {
	wait := time.Duration(-1)
	switch {
	case c.Try:
		wait = 0
	case c.Wait != nil:
		wait = time.Duration(*c.Wait)
	}
	limit := time.Duration(math.MaxInt64)
	if wait >= 0 {
		limit = wait + min(time.Duration(c.ConnectTimeout), limit-wait) // a daemon that is stopped does not answer when the wait is over
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel() // it also ends the context of the lock, which is not used here
	c.verbose(s, "locking %s at %s", c.shortKey(), g.Server)

	t := trouble{c: c, s: s, g: g, began: time.Now()}
	options.DialTimeout, options.Trouble = time.Duration(c.ConnectTimeout), t.report
	options.KeepAlive, options.Heartbeat = time.Duration(c.KeepAlive), time.Duration(c.Heartbeat)
	t.locks = client.New(g.Server, options)
	type outcome struct {
		lock *client.Lock
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		lock, err := t.locks.Lock(ctx, c.Key, wait)
		done <- outcome{lock, err}
	}()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return nil, c.refusal(g.using(t.locks.Server()), o.err)
			}
			if t.going.Load() {
				s.warn("has reached %s: locked %s", o.lock.Server(), c.shortKey())
			}
			return o.lock, nil
		case caught := <-signals:
			if caught == syscall.SIGWINCH {
				continue
			}
			cancel()
			<-done // the client has left the queue; if it was granted the key, the end of the process releases it
			return nil, &exit{exitSignal + int(caught.(syscall.Signal)), nil}
		}
	}
}

// trouble tells the user when a wait cannot reach the daemon, and when it can again.
type trouble struct {
	c     *lockCommand
	s     *streams
	g     *globals
	locks *client.Client
	began time.Time   // of the wait
	going atomic.Bool // begun, and not ended
}

// queuedTime is how long after its beginning a wait has surely stood in the queue: a connection that is lost by then was not
// refused by something that is no daemon, or a daemon with TLS.
const queuedTime = time.Second

// report is client.Options.Trouble.
func (t *trouble) report(_ string, err error) {
	t.going.Store(err != nil)
	server := t.locks.Server()
	var other *client.OtherTableError
	switch {
	case err == nil && server != t.g.Server:
		t.s.warn("waits for %s again at %s, at the end of the line", t.c.shortKey(), server)
	case err == nil:
		t.s.warn("waits for %s again, at the end of the line", t.c.shortKey())
	case errors.As(err, &other):
		t.s.warn("waits until %s is back: %s", other.Former, describe(err))
	case errors.Is(err, client.ErrConnectionLost) && time.Since(t.began) > queuedTime:
		t.s.warn("cannot reach %s any more: trying again (%s)", server, describe(err))
	default:
		t.s.warn("cannot reach the daemon: trying again: %v", t.c.refusal(t.g.using(server), err))
	}
}
