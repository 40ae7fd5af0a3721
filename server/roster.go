package server

import "sync/atomic"

// flushMark is the number of bytes of answers after which they are written, also if the turn gives more.
const flushMark = 16 << 10

// roster is the sessions that one loop serves, and what they share.
type roster struct {
	*worker
	sessions []*session // in no order
	out      []byte     // answers of the session that is running; empty in between
	spare    spareBuffers

	population atomic.Int64 // sessions, those on their way here included; safe from any goroutine
}

func newRoster(w *worker) *roster {
	return &roster{worker: w, out: make([]byte, 0, 2*flushMark)}
}

// add makes s one of the sessions.
func (ro *roster) add(s *session) {
	s.slot = len(ro.sessions)
	ro.sessions = append(ro.sessions, s)
}

// remove ends that. The last of the sessions takes the place: whoever walks over them from the last to the first misses
// none that stays.
func (ro *roster) remove(s *session) {
	last := len(ro.sessions) - 1
	ro.sessions[s.slot] = ro.sessions[last]
	ro.sessions[s.slot].slot = s.slot
	ro.sessions[last] = nil
	ro.sessions = ro.sessions[:last]
}
