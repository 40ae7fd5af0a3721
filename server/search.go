package server

import (
	"time"

	"dreadlock/reactor"
)

// A client that waits and goes on sending is held back: it is not read. If it ends, its end comes after all that it has sent, and
// while that fills the socket, the end cannot leave the client's host: nobody here can know of it. So who is held back for
// long is read on, one session of a loop at a time, to see whether an end comes:
//
//	held back for a while ──► read on ──► its end has come: all that it had is free
//	       ▲                     │
//	       └─────────────────────┴─ nothing more has come, or too much
//
// What a living client has sent has to be kept. So it is read on only as far as its kernel keeps that for it, and all together only
// as far as the reserve of the search goes. That is not in what --max-memory bounds: a search makes no level higher, and goes on at any.

const (
	// searchEvery is the time between two walks over the sessions that are held back.
	searchEvery = time.Second
	// searchLook is the time between two looks at the session that is read on, and searchQuiet the number of looks after which
	// nothing more is expected of it. Together they are more than most round trips.
	searchLook  = 20 * time.Millisecond
	searchQuiet = 10
	// searchedPerTurn is the number of sessions that a walk looks at in one turn.
	searchedPerTurn = 256
	// maxReadOn is the number of bytes by which a session is read on at most: its client's kernel keeps up to 4 MiB, by default.
	maxReadOn = 5 << 20
	// reservePart is the reserve of the search on all loops, as a part of the limit.
	reservePart = 8
)

// search looks for sessions of a roster whose clients have ended while they were held back. It belongs to the loop.
type search struct {
	roster  *roster
	timer   reactor.Timer // Tag: the search. Running until the next walk, or the next look
	walk    bagWalk
	walking bool
	held    bool     // the walk has met a session that is held back
	current *session // that is read on; nil if none is
	base    int      // bytes of its buffers before it was read on
	size    int      // of its pending input, at the last look
	quiet   int      // looks since that has grown
	reserve int64    // bytes that may be read on
	readOn  int64    // bytes that were, of all sessions
}

func newSearch(ro *roster) search {
	return search{roster: ro, reserve: ro.account.budget.limit / reservePart / int64(ro.server.cfg.Loops)}
}

// begin has a walk follow some time after a session was held back.
func (se *search) begin() {
	if !se.walking && se.current == nil && !se.timer.Running() {
		se.startTimer(searchEvery)
	}
}

func (se *search) startTimer(d time.Duration) {
	se.timer.Tag = se
	se.roster.loop.StartTimer(&se.timer, d)
}

// expire begins a walk, or looks at the session that is read on.
func (se *search) expire() {
	s := se.current
	if s == nil {
		se.walk, se.walking, se.held = bagWalk{}, true, false
		return
	}
	if n := s.pending.len(); n != se.size {
		se.size, se.quiet = n, 0
	} else {
		se.quiet++
	}
	if se.quiet < searchQuiet {
		se.startTimer(searchLook)
		return
	}
	se.stop()
	s.applyBackpressure()
}

// endTurn goes on with the walk, and reports whether there is more of it.
func (se *search) endTurn() (more bool) {
	if !se.walking || se.current != nil || se.roster.closed || se.roster.held {
		return false
	}
	if se.readOn < se.reserve {
		if !se.roster.loop.Spend(taskUnits) {
			return true
		}
		if se.roster.sessions.walk(&se.walk, searchedPerTurn, se.visit) && se.current == nil {
			return true
		}
		if se.current != nil {
			return false
		}
	} else {
		se.held = true
	}
	se.walking = false
	if se.held {
		se.startTimer(searchEvery)
	}
	return false
}

// visit reads a session on if its end may have to follow what was not read. Then, the walk has to stop.
func (se *search) visit(s *session) (more bool) {
	if s.phase != serving || s.outstanding == 0 || !s.conn.Paused() {
		return true
	}
	se.held = true
	if s.pending.ahead >= maxReadOn || s.conn.Unread() == 0 {
		return true
	}
	se.current, se.size, se.quiet = s, s.pending.len(), 0
	se.base = int(s.counted - s.pending.ahead)
	s.conn.Resume()
	se.startTimer(searchLook)
	return false
}

// reads reports whether the session is read on.
func (se *search) reads(s *session) bool {
	if s != se.current {
		return false
	}
	if s.phase != serving || s.outstanding == 0 || s.pending.ahead >= maxReadOn || se.readOn >= se.reserve {
		se.stop()
		return false
	}
	return true
}

// stop ends reading on. The walk goes on with the next session.
func (se *search) stop() {
	se.roster.loop.StopTimer(&se.timer)
	if se.current.phase == serving {
		se.current.conn.Pause()
	}
	se.current = nil
}

// gone takes note that a session is gone.
func (se *search) gone(s *session) {
	if s == se.current {
		se.roster.loop.StopTimer(&se.timer)
		se.current = nil
	}
}

// recount keeps count of what was read on, after the buffers of the session may have changed.
func (se *search) recount(s *session) {
	was := s.pending.ahead
	switch {
	case s.pending.buf == nil:
		s.pending.ahead = 0
	case s == se.current:
		s.pending.ahead = uint32(max(0, int(s.counted)-se.base))
	}
	se.readOn += int64(s.pending.ahead) - int64(was)
}
