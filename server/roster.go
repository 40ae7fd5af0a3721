package server

import "sync/atomic"

// flushMark is the number of bytes of answers after which they are written, also if the turn gives more.
const flushMark = 16 << 10

// roster is the sessions that one loop serves, and what they share.
type roster struct {
	*worker
	sessions  bag[*session]
	newcomers newcomers
	turns     turns
	search    search
	out       []byte // answers of the session that is running; empty in between
	tells     bool   // among them, in a fleet, that it holds a key
	spare     spareBuffers
	buffered  int64 // bytes that the sessions take beside their own size: see session.recount

	population atomic.Int64 // sessions, those on their way here included; safe from any goroutine
}

func newRoster(w *worker) *roster {
	ro := &roster{worker: w, out: make([]byte, 0, 2*flushMark)}
	ro.search = newSearch(ro)
	return ro
}

// trim gives up what the roster keeps for reuse.
func (ro *roster) trim() { ro.spare = nil }
