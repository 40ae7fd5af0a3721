package server

import (
	"dreadlock/reactor"
)

// verify compares what is there with what the predecessor has counted.
func (h *heir) verify() error {
	var there estateSize
	for i := range h.loops {
		there.add(h.loops[i].size)
	}
	if there != h.estate.Size {
		return badEstate("restored were %+v of %+v", there, h.estate.Size)
	}
	return nil
}

func (h *heir) digest() (sum digest) {
	for i := range h.loops {
		sum.sum += h.loops[i].digest.sum
	}
	return sum
}

// finish restores what belongs to no loop. What all loops have counted goes to the first.
func (h *heir) finish() {
	srv, e := h.server, h.estate
	srv.space, srv.opens, srv.started = e.Space, e.Opens, e.Started
	srv.lastID.Store(e.LastID)
	srv.takeoversFailed.Store(e.Untaken)
	for b, word := range barrierWords {
		srv.barred[b].Add(e.Refused[word])
	}
	for name, n := range e.Failed {
		srv.acceptErrors.addMany(name, n)
	}
	for i := range h.parts {
		srv.shards[0].counters.addLeft(&h.parts[i].Counters)
		srv.shards[0].counters.disconnects[notCarried] += uint64(max(h.parts[i].Dropped, 0))
	}
	srv.detector.restore(&e.Deadlocks, h.edge)
}

// edge returns a wait of a deadlock that stood; nil if it is over.
func (h *heir) edge(left *edgeLeft) *waitEdge {
	n := h.sessions[left.Waiter]
	if n == nil || n.session.outstanding == 0 || n.session.request.serial != left.Serial {
		return nil
	}
	s := n.session
	sh := s.roster.shard
	if s.remoteShard != noShard {
		sh = h.server.shards[s.remoteShard]
	}
	if e := sh.edge(&s.request); e != nil && e.grant == left.Grant {
		return e
	}
	return nil
}

// restore has the detector know what that of the predecessor knew. A deadlock of which a wait is over has dissolved.
func (d *detector) restore(left *deadlocksLeft, edge func(*edgeLeft) *waitEdge) {
	d.broken.Store(left.Broken)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found = left.Found
	for i := range left.Standing {
		one := &left.Standing[i]
		c := &deadlock{number: one.Number, found: one.Found}
		for j := range one.Waits {
			if e := edge(&one.Waits[j]); e != nil {
				c.waits = append(c.waits, e)
			}
		}
		if len(c.waits) == len(one.Waits) && len(c.waits) > 0 {
			d.standing[c.youngest().id()] = c
		}
	}
}

// absent is the connection of a session that was not carried: it ends when the predecessor, which has it, has gone. Until then what it
// holds stays its own.
type absent struct{}

var _ connection = absent{}

func (absent) IsOpen() bool      { return false }
func (absent) Write([]byte)      {}
func (absent) Unsent() int       { return 0 }
func (absent) CanHold() bool     { return true }
func (absent) Pause()            {}
func (absent) Paused() bool      { return false }
func (absent) Unread() int       { return 0 }
func (absent) Resume()           {}
func (absent) Sip()              {}
func (absent) ReadRest() bool    { return false }
func (absent) Close()            {}
func (absent) CloseAfterOutput() {}
func (absent) TryMove(int) bool  { return false }
func (absent) Encrypted() bool   { return true }

// Export is never called: see [leaver.addSession].
func (absent) Export() (int, reactor.ConnState) { return -1, reactor.ConnState{} }

// endAbsent is a step of a loop task: it ends the sessions that were not carried.
func (sh *shard) endAbsent(w *bagWalk) (more bool) {
	if sh.closed {
		return false
	}
	return sh.roster.sessions.walk(w, sessionsPerStep, func(s *session) bool {
		if _, ok := s.conn.(absent); ok {
			s.end(notCarried)
			s.Closed(nil)
		}
		return true
	})
}
