package server

// A session lives on the loop that accepted its connection, which is chance. If it goes on using keys of another loop,
// every command crosses over and back, and it is better off there: it moves.
//
// What moves is one that holds nothing, so that nothing in a table points to it, and has no command under way. Keys over
// which clients contend do not draw: the crowd around one hot key would end up on one loop, and leave the others idle.

const (
	// moveAfter is the strength of the pull at which a session moves. A move costs about what a new connection does, and
	// a command that crosses costs up to half of that more than one that does not.
	moveAfter = 16

	// By moves a loop may come to have a quarter more sessions than the mean, and a few where there are few.
	crowdingShare = 4
	crowdingFew   = 8
)

// pull is what draws a session to another loop: the number of its latest commands that were all for keys of that loop,
// and were carried out without a wait.
type pull struct {
	to       int
	strength int
}

// feel takes the answer of a command for a key of a loop.
func (p *pull) feel(loop int, a answer, waited bool) {
	switch {
	case waited || a != locked && a != unlocked:
		p.strength = 0
	case p.to != loop:
		p.to, p.strength = loop, 1
	default:
		p.strength++
	}
}

// move takes the session to the loop that draws it, if nothing stands against it. The session must not be touched
// afterwards: it may be there already.
func (s *session) move() {
	from, srv := s.shard, s.shard.server
	to := srv.shards[s.pull.to]
	if from.closed || s.phase != serving || s.keys > 0 || s.awaited > 0 || s.backlog.len() > 0 || s.stalled {
		return // and tries again after the next command
	}
	if srv.crowded(to) {
		s.pull.strength = 0
		return
	}
	srv.departed.Add(1)
	from.part(s)
	from.population.Add(-1)
	to.population.Add(1)
	if !s.conn.TryMove(to.index) {
		to.population.Add(-1)
		from.population.Add(1)
		from.join(s)
		srv.arrived.Add(1)
	}
}

// crowded reports whether a shard has so many sessions that no others should move there.
func (srv *Server) crowded(sh *shard) bool {
	mean := srv.connections.Load() / int64(len(srv.shards))
	return sh.population.Load() >= mean+mean/crowdingShare+crowdingFew
}

// Moved makes the session one of its new shard.
func (s *session) Moved(to int) {
	sh := s.shard.server.shards[to]
	s.shard = sh
	s.footholds = nil // empty, as is its owner
	s.pull.strength = 0
	sh.join(s)
	sh.counters.moves++
	sh.server.arrived.Add(1)
}
