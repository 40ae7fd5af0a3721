package server

import (
	"time"

	"dreadlock/reactor"
)

// throttle applies the level to the sessions of a roster, some of them in each turn. It belongs to the loop.
type throttle struct {
	level   level
	walk    bagWalk
	walking bool
	timer   reactor.Timer // Tag: the throttle. Running between the sips of all sessions
	worker  *worker
}

const (
	// throttledPerTurn is the number of sessions to which a new level is applied in one turn.
	throttledPerTurn = 256
	// sipEvery is the time between two sips of all sessions.
	sipEvery = 20 * time.Millisecond
)

// endTurn accounts for what the turn has used, and applies the level. It reports whether there are more sessions to apply it
// to.
func (t *throttle) endTurn() (more bool) {
	w := t.worker
	w.account.settle(w.memory())
	if now := w.account.budget.now(); now != t.level {
		t.level = now
		t.begin()
	}
	if t.walking && !w.closed {
		t.step()
	}
	return t.walking && !w.closed
}

// begin has the level applied to all sessions.
func (t *throttle) begin() { t.walk, t.walking = bagWalk{}, true }

func (t *throttle) step() {
	if !t.worker.loop.Spend(taskUnits) {
		return
	}
	t.walking = t.worker.roster.sessions.walk(&t.walk, throttledPerTurn, func(s *session) bool {
		if s.isIdle() && t.level > roomy {
			s.parser.Trim()
		}
		s.applyBackpressure()
		return true
	})
	if !t.walking && t.level == over && !t.timer.Running() {
		t.timer.Tag = t
		t.worker.loop.StartTimer(&t.timer, sipEvery)
	}
}

// expire has all sessions take another sip, if that is still how they are read.
func (t *throttle) expire() {
	if t.level == over {
		t.begin()
	}
}

// isIdle reports whether the session has nothing to do until it is read.
func (s *session) isIdle() bool {
	return s.phase == serving && s.outstanding == 0 && s.pending.len() == 0 && s.conn.Unsent() == 0
}

// holdsBack holds the session back if its input would take memory that is short, and reports whether it does. Where all are
// held back, one that has nothing else to do takes a sip, and another one as soon as that is used up.
func (s *session) holdsBack() bool {
	level := s.roster.throttle.level
	if level < tight || level < over && s.outstanding == 0 && s.pending.len() == 0 {
		return false
	}
	s.pause()
	if level == over && s.isIdle() {
		s.conn.Sip()
	}
	return true
}

// maxUnsent is the number of bytes of unread answers from which on the commands of the session wait.
func (s *session) maxUnsent() int {
	if s.roster.throttle.level > roomy {
		return 1
	}
	return s.roster.server.cfg.MaxOutput
}

// recount keeps what the buffers of the roster take right, after those of the session may have changed.
func (s *session) recount() {
	if n := s.bufferSize(); n != int(s.counted) {
		s.count(n)
	}
}

// bufferSize returns what the buffers of the session take, in bytes.
func (s *session) bufferSize() int {
	return cap(s.pending.buf) + s.parser.Kept() + len(s.remoteOwners)*remoteOwnerSize
}

// count makes n bytes the size of the session's buffers.
func (s *session) count(n int) {
	s.roster.buffered += int64(n) - int64(s.counted)
	s.counted = uint32(n)
	s.roster.search.recount(s)
}

// remoteOwnerSize is what a session takes for each loop, in bytes, once it has used the keys of another.
const remoteOwnerSize = 136
