package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dreadlock/server/api"
)

// A drain ends the server without taking keys from those who hold them, as far as its time allows:
//
//   - New connections are refused.
//   - A session that holds a key, or waits for one, is served as always. It may lock further keys: it may need them to finish.
//   - A session that holds nothing and waits for nothing ends: at once, or with the command by which it gives up its last key.
//     So a client that locks and unlocks for ever does not keep the server from ending, and what is held can only
//     become less.
//   - When nobody holds a key, or the time is up, the server stops. What is held then is lost, and named in the log.

const (
	// drainTime is the time of a drain if neither who asks for it nor [Config.Drain] says otherwise.
	drainTime = 30 * time.Second
	// maxDrain is the longest time of a drain.
	maxDrain = 24 * time.Hour
	// drainPause is the time between two looks at who holds a key.
	drainPause = 50 * time.Millisecond
	// drainReport is the time between two log lines about what is held.
	drainReport = 5 * time.Second
)

// drain is the drain of a server, which may not have begun. All methods are safe from any goroutine.
type drain struct {
	requested chan struct{} // closed when it begins
	looked    chan struct{} // closed when it is known what is held
	over      chan struct{} // closed when the server has stopped

	mu            sync.Mutex
	began, until  time.Time // zero before it begins
	keys, waiters int       // that the latest look has found; at the end, that are lost
}

func newDrain() *drain {
	return &drain{requested: make(chan struct{}), looked: make(chan struct{}), over: make(chan struct{})}
}

// isClosed reports whether a channel is closed that nobody sends to.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (d *drain) begun() bool { return isClosed(d.requested) }

// begin begins the drain, which is to end after the given time, or ends one that is under way earlier. It never ends one
// later: others count on that. It reports whether it has changed anything.
func (d *drain) begin(timeout time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	until := now.Add(timeout)
	if !d.begun() {
		d.began, d.until = now, until
		close(d.requested)
		return true
	}
	if !until.Before(d.until) {
		return false
	}
	d.until = until
	return true
}

// left returns the time that is left, at least 0.
func (d *drain) left() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(time.Until(d.until), 0)
}

// saw takes what a look has found.
func (d *drain) saw(keys, waiters int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys, d.waiters = keys, waiters
	if !isClosed(d.looked) {
		close(d.looked)
	}
}

// end takes what is lost: the server has stopped, whether it drained or not.
func (d *drain) end(keys, waiters int) {
	d.saw(keys, waiters)
	close(d.over)
}

// state returns the state of the drain, nil if it has not begun.
func (d *drain) state() *api.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun() {
		return nil
	}
	return &api.Drain{
		Since: d.began, Until: d.until, SecondsLeft: max(time.Until(d.until), 0).Seconds(),
		HeldKeys: d.keys, Waiters: d.waiters, Over: isClosed(d.over),
	}
}

// BeginDrain begins to end the server: nobody is served any more but those who hold a key or wait for one. [Server.Run]
// returns when nobody holds a key or the time is up. Without a timeout the time is [Config.Drain], or 30 s if that is zero.
//
// If a drain is under way already, a timeout may end it earlier, but not later; without one nothing changes.
//
// The error wraps [api.ErrQuery] if the timeout is negative or longer than 24 h, and [api.ErrUnavailable] if the server does
// not serve. Safe from any goroutine.
func (srv *Server) BeginDrain(timeout *time.Duration) error {
	d := srv.drain
	within := drainTime
	switch {
	case timeout != nil && (*timeout < 0 || *timeout > maxDrain):
		return fmt.Errorf("%w: a drain of %s: want 0s to %s", api.ErrQuery, *timeout, maxDrain)
	case !srv.serves():
		return errNotServing
	case timeout != nil:
		within = *timeout
	case d.begun():
		return nil
	case srv.cfg.Drain > 0:
		within = srv.cfg.Drain
	}
	if !srv.turnover.bar(errDrains) {
		return errNotServing
	}
	if d.begin(within) {
		srv.cfg.Log.Info().Stringer("timeout", within).Int64("connections", srv.connections.Load()).
			Msg("dreadlock drains: it takes no new connections and ends when nobody holds a key")
	}
	if srv.cfg.Draining != nil {
		srv.cfg.Draining(d.state().Until)
	}
	return nil
}

// Drain is [Server.BeginDrain], and returns what is held. It also fails, with an error that wraps [api.ErrUnavailable], if
// the loops do not say that before ctx is done; the drain has begun then all the same.
func (srv *Server) Drain(ctx context.Context, timeout *time.Duration) (*api.Drain, error) {
	if err := srv.BeginDrain(timeout); err != nil {
		return nil, err
	}
	d := srv.drain
	select {
	case <-d.looked:
		return d.state(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: it drains, but the loops are too busy to say what is held", api.ErrUnavailable)
	}
}

// AwaitDrain returns the state of the drain when the server has stopped or ctx is done, nil if it does not drain. Safe from
// any goroutine.
func (srv *Server) AwaitDrain(ctx context.Context) *api.Drain {
	select {
	case <-srv.drain.over:
	case <-ctx.Done():
	}
	return srv.drain.state()
}

// runDrain waits until a drain is asked for, and returns when it is over, so that the server has to stop, or when ctx is done.
func (srv *Server) runDrain(ctx context.Context, entrances []*entrance) {
	d, log := srv.drain, &srv.cfg.Log
	select {
	case <-d.requested:
	case <-ctx.Done():
		return
	}
	closeAll(entrances) // connections that are accepted, and on their way to a loop, are refused there
	reported := time.Now()
	for {
		left := d.left()
		if left == 0 {
			log.Warn().Msg("the drain ends: its time is up")
			return
		}
		found, complete := srv.lookForHolders(ctx, min(left, lookTime))
		if complete {
			d.saw(found.keys, found.waiters)
			if found.busy == 0 && found.keys == 0 {
				log.Info().Msg("the drain ends: nobody holds a key")
				return
			}
		}
		if time.Since(reported) >= drainReport {
			reported = time.Now()
			s := d.state()
			log.Info().Int64("connections", srv.connections.Load()).Int("held_keys", s.HeldKeys).Int("waiters", s.Waiters).
				Str("left", api.Age(left.Seconds())).Msg("dreadlock drains")
		}
		if !pause(ctx, min(left, drainPause)) {
			return
		}
	}
}

// holders is what a look in a drain has found, on one loop or on all.
type holders struct {
	sessions bagWalk
	busy     int // sessions that hold a key or wait for an answer
	keys     int
	waiters  int
}

// lookForHolders ends the sessions that hold nothing and wait for nothing, and counts what is left. It reports whether all
// loops have answered in time.
//
// If no session is busy, none will be: each has ended, or is about to, since none without a key is granted one. Some keys may
// still be held then, by sessions that have ended: the loops of these keys hear of it by message.
func (srv *Server) lookForHolders(ctx context.Context, timeout time.Duration) (sum holders, complete bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done, missing := eachShard(ctx, srv, srv.shards, (*shard).drain)
	for _, found := range done {
		sum.busy += found.busy
		sum.keys += found.keys
		sum.waiters += found.waiters
	}
	return sum, missing == 0
}

// drain is a step of a loop task: one of lookForHolders.
func (sh *shard) drain(found *holders) (more bool) {
	sh.drains = true
	if sh.lines != nil {
		sh.lines.leaveIdle()
	}
	more = sh.roster.sessions.walk(&found.sessions, sessionsPerStep, func(s *session) bool {
		switch {
		case s.phase >= ended:
		case s.keys > 0 || s.outstanding > 0:
			found.busy++
		default:
			s.finish(drained)
		}
		return true
	})
	found.keys, found.waiters = sh.table.Keys(), sh.table.Waiters()
	return more
}
