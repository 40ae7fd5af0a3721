package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dreadlock/reactor"
)

// How everything stands still for a handover, and goes on if there is none.
//
//	suspend the fleet ──► pause accepting ──► hold ──► stand still ──► what the loops hand over
//	       ▲                                               │ something is under way
//	       └──────────────────── letGo ◄───────────────────┘

const (
	// standTime is how long the clients may have to wait until the commit.
	standTime = 4 * time.Second
	// quietTime is how long it may take until nothing is under way between loops, and quietPause how long they go on for that.
	quietTime  = 250 * time.Millisecond
	quietPause = 50 * time.Microsecond
	// leaseReserve is what must be left of a lease in a fleet when the successor begins.
	leaseReserve = 300 * time.Millisecond
	// standTries is the number of times that the loops are asked to come to rest, and standPause how long they go on in between.
	standTries = 3
	standPause = 100 * time.Millisecond
)

// rest has everything stand still, and returns the context until whose end it may. Loops that do not come to rest go on for a while,
// and are asked again.
func (h *handover) rest(ctx context.Context) (bounded context.Context, cancel func(), err error) {
	for try := 1; ; try++ {
		bounded, cancel, err = h.suspend(ctx)
		if err == nil {
			err = h.stand(bounded)
		}
		if err == nil {
			h.loops, err = h.leaveLoops()
		}
		if err == nil {
			return bounded, cancel, nil
		}
		cancel()
		if !errors.Is(err, errBusy) || try == standTries {
			return nil, nil, err
		}
		h.letGo()
		if !pause(ctx, standPause) {
			return nil, nil, ctx.Err()
		}
	}
}

// suspend suspends the fleet. The context that it returns is done when the takeover has taken too long, for the clients or for the lease.
func (h *handover) suspend(ctx context.Context) (bounded context.Context, cancel func(), err error) {
	bounded, cancel = context.WithTimeout(ctx, standTime)
	left, err := h.suspendFleet(bounded)
	if err != nil {
		return bounded, cancel, err
	}
	h.suspended = true
	if left > 0 {
		cancel()
		bounded, cancel = context.WithTimeout(ctx, min(left-leaseReserve, standTime))
	}
	return bounded, cancel, nil
}

// stand has everything else stand still.
func (h *handover) stand(ctx context.Context) error {
	h.since = time.Now()
	if err := h.reactor.PauseAccepting(ctx); err != nil {
		return err
	}
	h.paused, h.held = true, true
	if _, missing := eachShard(ctx, h.Server, h.shards, func(sh *shard, _ *struct{}) bool {
		sh.hold()
		return false
	}); missing > 0 {
		return fmt.Errorf("%w: %d do not answer", errBusy, missing)
	}
	h.catchUpEvents(ctx)
	return h.standQuietly(ctx)
}

// catchUpEvents logs the events of before, which are not handed over.
func (h *handover) catchUpEvents(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	_ = h.eventLog.catchUp(ctx) // what it cannot get now is in no log
}

// standQuietly has the loops stand still at a moment at which nothing is under way between them. Each time they go on a little, what
// is under way arrives.
func (h *handover) standQuietly(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	patience := time.Now().Add(quietTime)
	for {
		s, err := h.reactor.StandStill(ctx, time.Until(deadline))
		if err != nil {
			return err
		}
		if h.settled(s) {
			h.standstill = s
			return nil
		}
		s.Release()
		if time.Now().After(patience) || !pause(ctx, quietPause) {
			return fmt.Errorf("%w: they are busy with each other", errBusy)
		}
	}
}

// settled reports whether nothing is under way that would be lost with the loops.
func (srv *Server) settled(s *reactor.Standstill) bool {
	open := make([]bool, len(srv.shards))
	err := s.Each(func(l *reactor.Loop) { open[l.Index()] = !srv.shards[l.Index()].settled() })
	return err == nil && !slices.Contains(open, true) && s.Quiet(matters)
}

// leaveLoops returns what the loops hand over.
func (h *handover) leaveLoops() ([]*loopEstate, error) {
	loops, errs := make([]*loopEstate, len(h.shards)), make([]error, len(h.shards))
	if err := h.standstill.Each(func(l *reactor.Loop) {
		loops[l.Index()], errs[l.Index()] = h.shards[l.Index()].leave()
	}); err != nil {
		return nil, err
	}
	return loops, errors.Join(errs...)
}

// letGo has everything go on that was stopped.
func (h *handover) letGo() {
	defer func() {
		h.since, h.suspended, h.paused, h.held, h.standstill = time.Time{}, false, false, false, nil
	}()
	if h.standstill != nil {
		h.standstill.Release()
	}
	if h.held {
		h.send(func() {
			for _, sh := range h.shards {
				t := &loopTask{step: func() bool { sh.goOn(); return false }, done: func() {}}
				t.message.Body = t
				sh.loop.Send(&t.message)
			}
		})
	}
	if h.paused {
		h.reactor.ResumeAccepting()
	}
	if h.suspended {
		h.resumeFleet()
	}
	if !h.since.IsZero() {
		h.cfg.Log.Warn().Stringer("pause", time.Since(h.since).Round(time.Microsecond)).Msg("the loops stood still for nothing")
	}
}
