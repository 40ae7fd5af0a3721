package server

import "dreadlock/reactor"

// Before a server is taken over its sessions are held: they execute nothing more. What clients send is kept, within the bounds that
// there always are, and what is under way between the loops comes to rest: it is answered, or waits in a queue. Everything else goes on:
// timers, grants, ends of connections.
//
//	hold ──► loops stand still, and everything is settled ──► leave ──► the successor serves
//	  ▲            │ something is under way                     │ it does not
//	  └────────────┘                                            └─► goOn

// hold has the sessions of the loop execute nothing more, and nobody be read on. It is called on the loop.
func (w *worker) hold() {
	w.held = true
	if w.roster.search.current != nil {
		w.roster.search.stop()
	}
}

// goOn ends hold. It is called on the loop, in a turn, whose end has the rest go on.
func (w *worker) goOn() { w.held = false }

// settled reports whether nothing is left to tell on the loop, which stands still.
func (w *worker) settled() bool {
	sh := w.shard
	return sh.grants.Empty() && (sh.lines == nil || len(sh.lines.decided) == 0)
}

// matters reports whether a message that is under way while the loops stand still would be missed: all but the tasks of those who
// look on from outside.
func matters(m *reactor.Message) bool {
	_, ok := m.Body.(*loopTask)
	return !ok
}
