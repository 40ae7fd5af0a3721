package server

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"dreadlock/server/api"
)

// errNoEvents says that there is no history.
var errNoEvents = fmt.Errorf("%w: no events are kept (--events 0)", api.ErrNotFound)

// Events returns a page of the events that are kept. Safe from any goroutine; the error wraps [api.ErrQuery],
// [api.ErrUnavailable], or [api.ErrNotFound] if no events are kept.
func (srv *Server) Events(ctx context.Context, q *api.EventQuery) (*api.EventPage, error) {
	limit, err := parseLimit(q.Limit)
	if err != nil {
		return nil, err
	}
	if srv.history == nil {
		return nil, errNoEvents
	}
	if err := srv.history.collect(ctx); err != nil {
		return nil, err
	}
	return srv.history.page(q, limit), nil
}

// AwaitEvents waits until there may be an event after the one with that number, or ctx is done. Safe from any goroutine; the
// error wraps [api.ErrUnavailable] if the server is stopping, or [api.ErrNotFound] if no events are kept.
func (srv *Server) AwaitEvents(ctx context.Context, since uint64) error {
	service := srv.now()
	switch {
	case srv.history == nil:
		return errNoEvents
	case service == nil:
		return errNotServing
	}
	return srv.history.await(ctx, since, service.stopped)
}

// lostWords are the reasons for which a key is lost: those for which sessions end, and last that it was taken.
var lostWords = append(reasonWords[:], api.LostTaken)

// page returns what matches the query.
func (h *history) page(q *api.EventQuery, limit int) *api.EventPage {
	k := &h.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	p := &api.EventPage{Events: []api.Event{}, Next: k.last, Oldest: h.time(h.oldest())}
	if q.Since == nil {
		for n := k.ring.next; n > k.ring.first && len(p.Events) < limit; n-- {
			if rec := k.ring.at(n - 1); h.matches(q, rec) {
				p.Events = append(p.Events, h.describe(&k.ring, rec, h.seq(n-1)))
			}
		}
		slices.Reverse(p.Events)
		return p
	}
	since := *q.Since
	if since < k.first || since > k.last {
		p.Restarted = since != 0
		since = k.first
	}
	begin := k.ring.first + uint64(sort.Search(k.ring.len(), func(i int) bool { return h.seq(k.ring.first+uint64(i)) > since }))
	seen := uint64(0)
	for n := begin; n < k.ring.next; n++ {
		rec := k.ring.at(n)
		if h.matches(q, rec) {
			if len(p.Events) == limit {
				p.Next = h.seq(n - 1)
				break
			}
			p.Events = append(p.Events, h.describe(&k.ring, rec, h.seq(n)))
		}
		seen++
	}
	p.Lost = p.Next - since - seen
	return p
}

// oldest returns the time since which nothing is missing. The caller has the mutex.
func (h *history) oldest() time.Duration {
	k := &h.kept
	if k.ring.first == 0 {
		return k.whole
	}
	return max(k.whole, k.ring.at(k.ring.first).at)
}

// time returns the time of day of an event.
func (h *history) time(at time.Duration) time.Time { return h.server.shards[0].loop.Time(at) }

// matches reports whether an event is wanted.
func (h *history) matches(q *api.EventQuery, rec *record) bool {
	return (q.Connection == 0 || rec.who.connection == q.Connection) && (q.Key == "" || h.kept.ring.hasKey(rec, q.Key))
}

// describe returns an event of a ring as the API shows it.
func (h *history) describe(r *eventRing, rec *record, seq uint64) api.Event {
	var short [inlineKey]byte
	who := rec.who.more()
	e := api.Event{
		Seq:        seq,
		Time:       h.time(rec.at),
		Kind:       eventWords[rec.kind],
		Key:        string(r.appendKey(short[:0], rec)),
		Connection: rec.who.connection,
		Identity:   who.proven,
		Name:       who.name,
		Owner:      who.owner,
	}
	if lease := who.lease; lease != 0 {
		p := h.server.daemon(lease)
		e.Address, e.Daemon = p.Address, p.Daemon
	} else {
		e.Address = rec.who.address.String()
	}
	switch rec.kind {
	case eventGranted:
		e.Token, e.WaitedSeconds = rec.token, rec.span.Seconds()
	case eventReleased:
		e.Token, e.HeldSeconds = rec.token, rec.span.Seconds()
	case eventLost:
		e.Token, e.HeldSeconds, e.Reason = rec.token, rec.span.Seconds(), lostWords[rec.reason]
	case eventTimeout:
		e.WaitedSeconds = rec.span.Seconds()
	case eventDeadlock, eventDeadlockOver:
		e.Deadlock, e.HeldBy, e.WaitedSeconds = rec.token, rec.heldBy, rec.span.Seconds()
		if rec.kind == eventDeadlockOver {
			e.Reason = deadlockEndWords[rec.reason]
		}
	case eventKicked:
		e.Held, e.Keys = who.kick.freed()
	case eventRefused:
		e.Reason = barrierWords[rec.reason]
	}
	if k := who.kick; k != nil && (rec.kind == eventKicked || rec.kind == eventLost) {
		e.By = k.by
	}
	return e
}
