package server

import "dreadlock/reactor"

// newcomers are the sessions of a roster that have sent no complete command yet, the oldest first. They are kept if such
// sessions are dropped after a while: see [Config.IdleTimeout]. A session leaves the list with its first command, or with its
// end, so that none moves to another loop while it is in it.
//
// One timer serves all of them. It runs from the oldest, and is not stopped when that leaves: it looks again.
type newcomers struct {
	oldest, newest *session
	timer          reactor.Timer // Tag: the newcomers
	running        bool
}

// add adds a session that has just begun.
func (n *newcomers) add(s *session) {
	if s.roster.server.cfg.IdleTimeout == 0 {
		return
	}
	s.newcomer = true
	if s.older = n.newest; s.older != nil {
		s.older.newer = s
	} else {
		n.oldest = s
	}
	n.newest = s
	n.watch(s.roster)
}

// remove removes a session, if it is among them.
func (n *newcomers) remove(s *session) {
	if !s.newcomer {
		return
	}
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		n.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		n.newest = s.older
	}
	s.newcomer, s.older, s.newer = false, nil, nil
}

// watch has the timer run until the oldest has to go.
func (n *newcomers) watch(ro *roster) {
	if n.running || n.oldest == nil {
		return
	}
	n.running = true
	n.timer.Tag = n
	ro.loop.StartTimer(&n.timer, max(n.oldest.since+ro.server.cfg.IdleTimeout-ro.loop.Now(), 0))
}

// expire drops those whose time is up.
func (n *newcomers) expire(ro *roster) {
	n.running = false
	if ro.closed {
		return
	}
	for ro.loop.Spend(1) {
		s := n.oldest
		if s == nil || ro.loop.Now()-s.since < ro.server.cfg.IdleTimeout {
			break
		}
		s.warn().Stringer("idle_timeout", ro.server.cfg.IdleTimeout).
			Msg("client dropped: it has sent no command since it connected (--idle-timeout)")
		s.finish(idle)
	}
	n.watch(ro)
}
