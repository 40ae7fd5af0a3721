package reactor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Before a process hands its connections to another one, it takes no more of them, and those on their way to a loop get there:
//
//	acceptor ──► gate ──► accept, Admit ──► Prepare ──► carrier ──► loop
//	loop     ──► gate ──► goroutine of a move                   ──► loop
//
// While the gate is shut the clients wait in the kernel's queue. None is lost that was accepted before, unless it takes too
// long.

// transitTime is what connections on their way have to get to their loops when accepting pauses. Then those that are prepared are
// given up, for which they get as much again.
const transitTime = 500 * time.Millisecond

// errPaused ends a connection that was on its way when accepting paused, for too long.
var errPaused = errors.New("reactor: the connection was not ready when accepting paused")

// deadliner is what a listener must have so that a pause reaches who waits for a connection there.
type deadliner interface{ SetDeadline(t time.Time) error }

// gate lets connections begin their way to a loop, and counts them. It is safe from any goroutine.
type gate struct {
	mu     sync.Mutex
	count  int                     // who has begun and not ended; an acceptor while it accepts
	empty  chan struct{}           // closed when count gets to 0; nil unless somebody waits
	opened chan struct{}           // closed when the gate opens; nil while it is open
	root   context.Context         // that of the acceptors; nil until they start
	period context.Context         // of those who begin until the gate is shut, with errPaused as its cause then
	cancel context.CancelCauseFunc // ends period
}

// start begins the first period, for acceptors that run until ctx is done.
func (g *gate) start(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.root = ctx
	g.period, g.cancel = context.WithCancelCause(ctx)
}

// wait begins when the gate is open, and returns the context of the period. It returns nil if ctx is done before that.
func (g *gate) wait(ctx context.Context) context.Context {
	for {
		g.mu.Lock()
		opened, period := g.opened, g.period
		if opened == nil {
			g.count++
		}
		g.mu.Unlock()
		if opened == nil {
			return period
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return nil
		}
	}
}

// begin counts somebody in, unless the gate is shut.
func (g *gate) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.count++
	}
	return g.opened == nil
}

// follow counts a connection in whose acceptor has begun.
func (g *gate) follow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
}

// end is called once for each wait, begin and follow.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	if g.count == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// shut lets nobody begin any more. It reports false if the gate is shut.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		return false
	}
	g.opened = make(chan struct{})
	return true
}

// open ends what shut has begun.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		return
	}
	close(g.opened)
	g.opened = nil
	if g.period != nil && g.period.Err() != nil {
		g.period, g.cancel = context.WithCancelCause(g.root)
	}
}

// giveUp ends the period.
func (g *gate) giveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel != nil {
		g.cancel(errPaused)
	}
}

// drain waits for those who have begun, and reports whether all have ended.
func (g *gate) drain(ctx context.Context, patience time.Duration) bool {
	g.mu.Lock()
	if g.count == 0 {
		g.mu.Unlock()
		return true
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-empty:
		return true
	case <-timeout.C:
	case <-ctx.Done():
	}
	return false
}

// PauseAccepting stops the acceptors and the moves between loops, and waits until nobody is on the way to a loop. Clients that
// connect wait in the kernel's queue until [Reactor.ResumeAccepting], or for another process that accepts there. A connection
// that is not ready after half a second is abandoned: see [Config.Abandoned]. After an error accepting goes on.
// Safe from any goroutine but those of the loops.
func (r *Reactor) PauseAccepting(ctx context.Context) error {
	if !r.gate.shut() {
		return errors.New("reactor: accepting is paused already")
	}
	err := r.setAcceptDeadlines(time.Unix(1, 0))
	if err == nil && !r.gate.drain(ctx, transitTime) {
		r.gate.giveUp()
		if !r.gate.drain(ctx, transitTime) {
			err = errors.New("reactor: connections on their way to a loop do not get there")
		}
	}
	if err != nil {
		r.ResumeAccepting()
	}
	return err
}

// ResumeAccepting ends a pause. Safe from any goroutine.
func (r *Reactor) ResumeAccepting() {
	_ = r.setAcceptDeadlines(time.Time{}) // all of them have taken one before, or are closed
	r.gate.open()
}

// setAcceptDeadlines has all listeners accept until then.
func (r *Reactor) setAcceptDeadlines(until time.Time) (err error) {
	for _, l := range r.cfg.Listeners {
		d, ok := l.Listener.(deadliner)
		if !ok {
			err = fmt.Errorf("reactor: accepting from %s cannot be paused: a %T takes no deadline", l.Addr(), l.Listener)
			continue
		}
		_ = d.SetDeadline(until) // fails only if it is closed
	}
	return err
}
