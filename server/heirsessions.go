package server

import (
	"cmp"
	"fmt"
	"slices"
)

// adoptBatch is the number of sockets that are here and have not found their place: each takes a second descriptor. The reserve has
// that many, since nothing else needs it now: see [reservedDescriptors].
const adoptBatch = 128

// adoptAll makes all sessions. Of the sockets a few are here at a time.
func (h *heir) adoptAll() error {
	for rest := h.arrivals; len(rest) > 0; {
		come, batch := 0, 0
		for ; batch < len(rest) && come < adoptBatch; batch++ {
			n := rest[batch]
			if !n.left.Carried {
				continue
			}
			var err error
			if n.socket, err = h.next(); err != nil {
				return err
			}
			come++
		}
		if err := h.onEach(func(sh *shard) error { return h.adoptSome(sh, rest[:batch]) }); err != nil {
			return err
		}
		rest = rest[batch:]
	}
	return h.onEach(func(sh *shard) error {
		h.welcome(sh)
		return nil
	})
}

// adoptSome makes those sessions that are of the loop.
func (h *heir) adoptSome(sh *shard, some []*newcomerHeir) error {
	for _, n := range some {
		if n.loop != sh.index {
			continue
		}
		s, err := sh.roster.restoreSession(n.left, n.identity)
		if err != nil {
			return err
		}
		n.session = s
		s.conn = absent{}
		if n.left.Carried {
			s.conn = &s.sock
			if err := h.adopt(sh, s, n.socket, n.left.Conn); err != nil {
				return fmt.Errorf("connection %d: %w", s.id(), err)
			}
		}
		h.server.connections.Add(1)
		h.server.tally.enter(s.address().Addr())
	}
	return nil
}

// welcome adds the sessions of the loop that have sent no command yet to its newcomers, in the order in which they have come.
func (h *heir) welcome(sh *shard) {
	var fresh []*session
	for _, n := range h.loops[sh.index].sessions {
		if n.left.Newcomer && n.session.phase < ended {
			fresh = append(fresh, n.session)
		}
	}
	slices.SortStableFunc(fresh, func(a, b *session) int { return cmp.Compare(a.since, b.since) })
	for _, s := range fresh {
		sh.roster.newcomers.add(s)
	}
}

// restoreSession makes a session that was handed over. Its command, if it waits, and its keys are not known yet.
func (ro *roster) restoreSession(left *sessionLeft, i *identity) (*session, error) {
	s := newSession(ro, i)
	s.since = left.Since
	if err := s.parser.Resume(left.Command, left.Length); err != nil {
		return nil, badEstate("connection %d: %w", i.connection, err)
	}
	if len(left.Pending) > 0 {
		s.pending.buf = left.Pending
		s.pending.ahead = min(left.Ahead, uint32(len(left.Pending)))
		ro.search.readOn += int64(s.pending.ahead)
	}
	s.request.serial = left.Serial
	s.stalled = left.Stalled
	switch {
	case left.Ended != "":
		s.phase, s.why = ended, reasonOf(left.Ended)
	case left.HalfShut:
		s.phase = inputEnded
	}
	ro.population.Add(1)
	ro.sessions.add(s)
	s.recount()
	return s, nil
}
