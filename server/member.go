package server

import (
	"context"

	"dreadlock/reactor"
	"dreadlock/server/fleet"
)

// The server as a member of a fleet: what the store says comes to the loops like any message, and in its order, as it all comes
// from one goroutine.

// linesFound tells a loop of a session with the store.
type linesFound struct {
	message reactor.Message // Body: the linesFound
	session fleet.Session
}

// linesChanged tells a loop of places for its keys that have come or gone.
type linesChanged struct {
	message reactor.Message // Body: the linesChanged
	session fleet.Session
	changes []keyChange
}

// keyChange is a change with the hash of its key.
type keyChange struct {
	fleet.Change
	hash uint64
}

// Found begins a session with the store of the fleet: see [fleet.Member].
func (srv *Server) Found(s fleet.Session) {
	srv.send(func() {
		for _, sh := range srv.shards {
			m := &linesFound{session: s}
			m.message.Body = m
			sh.loop.Send(&m.message)
		}
	})
}

// Changed tells the loops what has changed in the store of the fleet: see [fleet.Member].
func (srv *Server) Changed(s fleet.Session, changes []fleet.Change) {
	byLoop := make([][]keyChange, len(srv.shards))
	for _, c := range changes {
		hash := srv.seed.Hash(c.Key)
		loop := srv.shardOf(hash)
		byLoop[loop] = append(byLoop[loop], keyChange{c, hash})
	}
	srv.send(func() {
		for loop, some := range byLoop {
			if len(some) > 0 {
				m := &linesChanged{session: s, changes: some}
				m.message.Body = m
				srv.shards[loop].loop.Send(&m.message)
			}
		}
	})
}

// Lost ends a session with the store of the fleet: see [fleet.Member].
func (srv *Server) Lost(fleet.Session, error) {
	_, _ = eachShard(context.Background(), srv, srv.shards, (*shard).lose)
}

// found goes on with what had to wait for the store.
func (ls *lines) found(f *linesFound) {
	ls.session = f.session
	for l := range ls.all {
		l.join()
	}
}

// change takes what has changed in the store. What it grants is told in between: a client or a place that has been granted a
// key may give it up in the next change.
func (ls *lines) change(m *linesChanged) {
	if m.session != ls.session {
		return
	}
	sh := ls.shard
	sh.table.Advance(sh.loop.Now())
	sh.deliverAll()
	for i := range m.changes {
		if ls.session == nil {
			return
		}
		ls.apply(&m.changes[i])
		sh.deliverAll()
	}
}

// lose is a loop task: it forgets what the store has said, and ends all sessions that hold a key or wait for one.
func (sh *shard) lose(*struct{}) (more bool) {
	if sh.closed {
		return false
	}
	sh.lines.lose()
	var walk bagWalk
	for sh.roster.sessions.walk(&walk, len(sh.roster.sessions.members)+1, func(s *session) bool {
		if s.phase < ended && (s.keys > 0 || s.outstanding > 0) {
			s.finish(outOfTouch)
		}
		return true
	}) {
	}
	return false
}
