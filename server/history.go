package server

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"dreadlock/server/api"
)

// history is the events of all loops, in one order. Loops only write their journals. Who wants to see the events has those
// that are new collected first, in short steps on the loops, so they cost nothing while nobody asks.
//
//	loop 0  journal ─┐
//	loop 1  journal ─┼─ collect, by time ─► history ─► pages, streams, the log
//	others  outside ─┘
//
// An event gets its number when it is collected. A journal that has overwritten events since the latest look has lost them;
// they take numbers all the same, so that everybody can count what is missing. Numbers go on from the time in microseconds at
// which the server began: those of one that ran before are smaller, as long as that had less than a million events a second,
// and nobody takes the events of two servers for those of one.
type history struct {
	server  *Server
	watch   watch
	looking chan struct{} // has a token while somebody collects

	// Of whoever collects, kept for the next time.
	excerpts []*excerpt // by source: the loops, then outside
	read     []uint64   // number of the next record, by source

	outside struct { // what happens outside of the loops: clients are refused, deadlocks found
		mu    sync.Mutex
		ring  eventRing
		armed bool
	}

	kept struct {
		mu    sync.Mutex
		ring  eventRing
		seqs  []uint64      // by place in the ring: see [api.Event.Seq]
		first uint64        // the number before that of the first event
		last  uint64        // the number of the last event, kept or not
		whole time.Duration // since when nothing is missing
		grown chan struct{} // closed when last changes
	}
}

const (
	// maxEvents is the greatest [Config.Events]. They take some 200 MB.
	maxEvents = 1_000_000
	// minJournal is the number of events that a loop keeps at least.
	minJournal = 16
	// outsideShare is the part of the events that those outside of the loops have for themselves.
	outsideShare = 8
)

// newHistory returns nil if no events are to be kept.
func newHistory(srv *Server) *history {
	if srv.cfg.Events == 0 {
		return nil
	}
	h := &history{server: srv, watch: watch{make(chan struct{}, 1)}, looking: make(chan struct{}, 1)}
	h.outside.ring = newEventRing(max(srv.cfg.Events/outsideShare, minJournal))
	h.kept.first = uint64(time.Now().UnixMicro())
	h.kept.last = h.kept.first
	h.kept.grown = make(chan struct{})
	return h
}

// newJournal returns the journal of a loop.
func (h *history) newJournal(l loop) *journal {
	if h == nil {
		return nil
	}
	cfg := &h.server.cfg
	share := max((cfg.Events+cfg.Loops-1)/cfg.Loops, minJournal)
	return &journal{loop: l, ring: newEventRing(share), watch: &h.watch}
}

// now returns the time since the loops began, which must run.
func (h *history) now() time.Duration { return time.Since(h.server.shards[0].loop.Time(0)) }

// add adds an event that no loop has seen. fill says what it is. Safe from any goroutine, once the loops run.
func (h *history) add(key string, fill func(*record)) {
	if h == nil {
		return
	}
	o := &h.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	rec := o.ring.add([]byte(key))
	length, inline := rec.keyLength, rec.inline
	*rec = record{at: h.now(), keyLength: length, inline: inline}
	fill(rec)
	if o.armed {
		o.armed = false
		h.watch.notify()
	}
}

// refused takes note of a connection that is kept out.
func (h *history) refused(a *arrival, b barrier) {
	h.add("", func(rec *record) {
		rec.kind, rec.reason, rec.who = eventRefused, uint8(b), &identity{address: a.address, about: a.about}
	})
}

// maxCycle is the number of waits of a deadlock that get an event each, the youngest of them.
const maxCycle = 64

// deadlock takes note of a deadlock that was found, or is over: an event for each of its waits. end is how it ends.
func (h *history) deadlock(kind eventKind, c *deadlock, end deadlockEnd) {
	for _, e := range c.waits[max(len(c.waits)-maxCycle, 0):] {
		h.add(e.key, func(rec *record) {
			rec.kind, rec.token, rec.span = kind, c.number, max(rec.at-e.since, 0)
			rec.who = e.who
			rec.heldBy = e.holder.connection
			if end == wasBroken && e == c.youngest() {
				rec.reason = uint8(wasBroken)
			}
		})
	}
}

// readOutside fills an excerpt of the events outside of the loops.
func (h *history) readOutside(e *excerpt, from uint64) {
	o := &h.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	e.read(&o.ring, from, h.now())
	o.armed = e.all
}

// collect adds all events to the history that have happened before it was called. After it, the first that happens is
// reported to the watch.
func (h *history) collect(ctx context.Context) error {
	select {
	case h.looking <- struct{}{}:
		defer func() { <-h.looking }()
	case <-ctx.Done():
		return unavailable(ctx)
	}
	if !h.server.serves() {
		return errNotServing
	}
	if h.read == nil {
		h.begin()
	}
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	for until := h.now(); ; {
		complete, err := h.look(ctx)
		if err != nil || complete >= until {
			return err
		}
	}
}

// begin makes room, when somebody asks for the first time.
func (h *history) begin() {
	cfg := &h.server.cfg
	h.kept.mu.Lock()
	h.kept.ring, h.kept.seqs = newEventRing(cfg.Events), make([]uint64, cfg.Events)
	h.kept.mu.Unlock()
	h.read = make([]uint64, cfg.Loops+1)
	h.newExcerpts()
}

func (h *history) newExcerpts() {
	h.excerpts = make([]*excerpt, h.server.cfg.Loops+1)
	for i := range h.excerpts {
		h.excerpts[i] = newExcerpt(h.server.cfg.Events)
	}
}

// look takes an excerpt of each source, and adds to the history what is older than anything that can still come. It returns
// the time until which the history is complete.
func (h *history) look(ctx context.Context) (complete time.Duration, err error) {
	excerpts, from := h.excerpts, slices.Clone(h.read)
	_, missing := eachShard(ctx, h.server, h.server.shards, func(sh *shard, _ *struct{}) (more bool) {
		sh.journal.read(excerpts[sh.index], from[sh.index])
		return false
	})
	switch {
	case missing == 0:
	case !h.server.serves():
		return 0, errNotServing
	default:
		h.newExcerpts() // a loop may still write to its old one
		return 0, fmt.Errorf("%w: the loops are too busy", api.ErrUnavailable)
	}
	outside := len(excerpts) - 1
	h.readOutside(excerpts[outside], from[outside])
	return h.merge(), nil
}

// merge adds the excerpts to the history, up to the time until which all of them are complete.
func (h *history) merge() (complete time.Duration) {
	k := &h.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.last
	complete = h.excerpts[0].upTo
	for i, e := range h.excerpts {
		complete = min(complete, e.upTo)
		if lost := e.from - h.read[i]; lost > 0 {
			k.last += lost
			k.whole = max(k.whole, e.ring.at(0).at)
		}
		h.read[i] = e.from
	}
	for {
		first := -1
		var oldest *record
		for i, e := range h.excerpts {
			n := h.read[i] - e.from
			if n == e.ring.next {
				continue
			}
			if rec := e.ring.at(n); rec.at <= complete && (oldest == nil || rec.at < oldest.at) {
				first, oldest = i, rec
			}
		}
		if oldest == nil {
			break
		}
		h.read[first]++
		k.last++
		k.seqs[k.ring.next%uint64(len(k.seqs))] = k.last
		k.ring.copyFrom(&h.excerpts[first].ring, oldest)
	}
	if k.last != before {
		close(k.grown)
		k.grown = make(chan struct{})
	}
	for i, e := range h.excerpts {
		if !e.all || h.read[i]-e.from < e.ring.next {
			h.watch.notify() // there are more, and no journal will tell
		}
	}
	return complete
}

// seq returns the number of an event that is kept, by its number in the ring. The caller has the mutex.
func (h *history) seq(n uint64) uint64 { return h.kept.seqs[n%uint64(len(h.kept.seqs))] }

// await waits until there is an event after the one with that number, or ctx is done. It fails when the loops are about to end.
func (h *history) await(ctx context.Context, since uint64, stopped <-chan struct{}) error {
	for {
		h.kept.mu.Lock()
		last, grown := h.kept.last, h.kept.grown
		h.kept.mu.Unlock()
		if last != since {
			return nil
		}
		select {
		case <-grown: // somebody else has collected
		case <-h.watch.news:
			if err := h.collectNews(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-stopped:
			return errNotServing
		case <-ctx.Done():
			return nil
		}
	}
}

// newsDelay is how long whoever waits for events lets others follow before he collects them.
const newsDelay = 50 * time.Millisecond

// collectNews collects what the watch has reported. If it fails, the next who waits does it.
func (h *history) collectNews(ctx context.Context) (err error) {
	if pause(ctx, newsDelay) {
		err = h.collect(ctx)
	} else {
		err = unavailable(ctx)
	}
	if err != nil {
		h.watch.notify()
	}
	return err
}
