package server

// A session does not run its pipeline to the end at one go: its loop has others to serve. What it leaves is pending, and the
// session gets another turn, after those who have waited for one longer. The first answer to a wait comes at once, and
// with it only a few commands, so that many who are granted a key together are all told soon.
//
//	Data, answer, Drained ──► execute ── nothing left of the turn ──► turns ── Continue ──► execute

// pace says how much is done at one go for one session.
type pace struct {
	// short is the number of commands that a session executes right after an answer that it has waited for.
	short int
	// long is the number of commands that it executes otherwise. Less would be fairer, but cost more system calls for the
	// answers.
	long int
	// release is the number of keys that are freed when a session has ended.
	release int
}

func defaultPace() pace { return pace{short: 64, long: 1024, release: 64} }

// turns are the sessions of a roster that wait for a turn, in the order in which they came. One that has ended stays until it
// would be served. None moves to another loop: its input is pending.
type turns struct {
	first, last *session
}

func (t *turns) empty() bool { return t.first == nil }

// add adds a session, if it does not wait already.
func (t *turns) add(s *session) {
	if s.waitsTurn {
		return
	}
	s.waitsTurn = true
	if t.last == nil {
		t.first = s
	} else {
		t.last.nextTurn = s
	}
	t.last = s
}

// next removes the first session and returns it.
func (t *turns) next() *session {
	s := t.first
	t.first = s.nextTurn
	if t.first == nil {
		t.last = nil
	}
	s.waitsTurn, s.nextTurn = false, nil
	return s
}

// hasTurns reports whether serveTurns has something to do.
func (ro *roster) hasTurns() bool { return !ro.turns.empty() && !ro.held }

// serveTurns serves the sessions that wait for a turn, as far as the loop's turn goes.
func (ro *roster) serveTurns() {
	for ro.hasTurns() && !ro.closed && ro.loop.Spend(1) {
		if s := ro.turns.next(); s.phase != gone {
			s.runPending(ro.server.pace.long)
			s.applyBackpressure()
		}
	}
}
