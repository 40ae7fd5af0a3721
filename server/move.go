package server

import (
	"fmt"

	"dreadlock/proto"
)

// A session lives on the loop that accepted its connection, which is chance. If it goes on using keys of another loop,
// every command crosses over and back, and it is better off there: it moves.
//
// What moves is one that holds nothing, so that nothing in a table points to it, and has no command under way. Keys that
// clients contend for do not attract: the crowd around one hot key would end up on one loop, and leave the others idle.

const (
	// moveAfter is the score at which a session moves. A move costs about what a new connection does, and a command that
	// crosses costs up to half of that more than one that does not.
	moveAfter = 16

	// By moves a loop may come to have a quarter more sessions than the mean, and a few where there are few.
	crowdingShare = 4
	crowdingFew   = 8
)

// affinity says to which other loop a session belongs by what it does: its latest commands, as many as the score, were all
// for keys of that loop, and were carried out without a wait.
type affinity struct {
	to    int32
	score int32
}

// observe takes the answer of a command for a key of a loop.
func (af *affinity) observe(loop int, a proto.Reply, waited bool) {
	switch {
	case waited || a != proto.Locked && a != proto.Unlocked && a != proto.Token:
		af.score = 0
	case af.to != int32(loop):
		af.to, af.score = int32(loop), 1
	default:
		af.score++
	}
}

// move takes the session to the loop that it has an affinity to, if nothing stands against it. The session must not be
// touched afterwards: it may be there already.
func (s *session) move() {
	from, srv := s.roster, s.roster.server
	to := srv.shards[s.affinity.to].roster
	if from.closed || s.phase != serving || s.keys > 0 || s.outstanding > 0 || s.pending.len() > 0 || s.stalled || s.waitsTurn {
		return // and tries again after the next command
	}
	if srv.crowded(to) {
		s.affinity.score = 0
		return
	}
	srv.departed.Add(1)
	s.count(0)
	from.sessions.remove(s)
	from.population.Add(-1)
	to.population.Add(1)
	if !s.conn.TryMove(to.index) {
		to.population.Add(-1)
		from.population.Add(1)
		from.sessions.add(s)
		s.recount()
		srv.arrived.Add(1)
	}
}

// crowded reports whether a loop has too many sessions for others to move there.
func (srv *Server) crowded(ro *roster) bool {
	mean := srv.connections.Load() / int64(len(srv.shards))
	return ro.population.Load() >= mean+mean/crowdingShare+crowdingFew
}

// Moved makes the session one of its new loop.
func (s *session) Moved(to int) {
	// What a request or a remote owner leaves on other loops points to this session: they would answer to the wrong one.
	if s.outstanding > 0 || s.keys > 0 || !s.owner.Empty() {
		panic(fmt.Sprintf("server: connection %d has moved with %d messages outstanding and %d keys", s.id(), s.outstanding, s.keys))
	}
	s.roster = s.roster.server.shards[to].roster
	s.remoteOwners = nil // empty, as is its owner
	s.affinity.score = 0
	s.roster.sessions.add(s)
	s.recount()
	s.roster.counters.moves++
	s.roster.server.arrived.Add(1)
}
