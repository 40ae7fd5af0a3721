package reactor

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Heir takes over the connections of another process, before anything else is served:
//
//	MakeBlanks ──► Stand ──► Loop.Adopt for each connection ──► Commit of the standstill ──► Begin
//
// Nothing is read from a socket or written to it before Begin. If [Config.Inherit] returns an error instead, the sockets are
// closed here and nobody has noticed. Its methods are for one goroutine, which is no loop.
type Heir struct {
	reactor    *Reactor
	standstill *Standstill
}

// MakeBlanks makes room for n connections more. The process takes a descriptor for each, now and not when they are adopted.
// After an error there is no room at all, and the descriptors are closed, or are about to be if ctx is done.
func (h *Heir) MakeBlanks(ctx context.Context, n int) error {
	for _, l := range h.reactor.loops {
		if l.epoll < 0 {
			return errNoEpoll
		}
	}
	var b blanks
	err := b.fill(ctx, h.reactor, n)
	if err == nil {
		return nil
	}
	dropped := h.dropBlanks()
	for range h.reactor.loops {
		select {
		case <-dropped:
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("reactor: make room for %d connections: %w", n, err)
}

// dropBlanks has all blanks closed. The channel gets one for each loop when its blanks are.
func (h *Heir) dropBlanks() (dropped <-chan struct{}) {
	done := make(chan struct{}, len(h.reactor.loops))
	for _, l := range h.reactor.loops {
		d := &dropBlanks{done: done}
		d.message.Body = d
		l.Send(&d.message)
	}
	return done
}

// Room returns for how many connections each loop has room. One that is half-closed needs none.
func (h *Heir) Room() (room []int) {
	for _, l := range h.reactor.loops {
		room = append(room, int(l.room.Load()))
	}
	return room
}

// Stand has the loops stand still, as [Reactor.StandStill] does.
func (h *Heir) Stand(ctx context.Context, bound time.Duration) (s *Standstill, err error) {
	h.standstill, err = h.reactor.StandStill(ctx, bound)
	return h.standstill, err
}

// Reactor returns the reactor that takes over.
func (h *Heir) Reactor() *Reactor { return h.reactor }

// Begin serves the connections that were adopted, and has the loops go on. Room that is left is given up. The standstill must have been
// committed. keepAlive is the [Config.KeepAlive] that the connections had.
func (h *Heir) Begin(keepAlive time.Duration) {
	if h.standstill.state.Load() != committed {
		panic("reactor: an heir begins whose loops may go on by themselves")
	}
	had := silenceOf(keepAlive)
	_ = h.standstill.Each(func(l *Loop) { // they stand
		l.enter()
		l.begin(had)
		l.leave()
	})
	h.standstill.Release()
	h.dropBlanks() // in turns of their own, which others need not wait for
}

// Started returns when the reactor started, as the time of CLOCK_MONOTONIC, which all processes of the machine have in common.
// Safe from any goroutine.
func (r *Reactor) Started() time.Duration {
	elapsed := time.Since(r.start) // first, so that what lies between makes the start later: no time is over early
	return monotonic() - elapsed
}

// StartedAt returns the [Config.Start] of a reactor that goes on with the times of one that has [Reactor.Started] then.
func StartedAt(started time.Duration) time.Time {
	elapsed := monotonic() - started
	return time.Now().Add(-elapsed)
}

// monotonic reads CLOCK_MONOTONIC, which every Linux has.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(now.Nano())
}
