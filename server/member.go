package server

import (
	"context"
	"math"
	"strconv"
	"time"

	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
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
	changes []keyChange // at most changesPerMessage
}

// changesPerMessage is the number of changes that a loop takes in one turn.
const changesPerMessage = 256

// keyChange is a change with the hash of its key.
type keyChange struct {
	fleet.Change
	hash uint64
}

// fleetMember is the server, as the store of its fleet sees it.
type fleetMember struct{ server *Server }

var _ fleet.Member = fleetMember{}

// daemon returns the daemon of the fleet with that lease as it is shown to people. Safe from any goroutine.
func (srv *Server) daemon(lease int64) api.Peer {
	p := api.Peer{Daemon: strconv.FormatInt(lease, 16)}
	if srv.cfg.Fleet != nil {
		p.Address = srv.cfg.Fleet.Address(lease)
	}
	return p
}

// Rest is the lock delay.
func (m fleetMember) Rest() time.Duration { return m.server.cfg.LockDelay }

// Found begins a session.
func (m fleetMember) Found(s fleet.Session) {
	srv := m.server
	srv.send(func() {
		for _, sh := range srv.shards {
			f := &linesFound{session: s}
			f.message.Body = f
			sh.loop.Send(&f.message)
		}
	})
}

// Changed tells the loops what has changed.
func (m fleetMember) Changed(s fleet.Session, changes []fleet.Change) {
	srv := m.server
	byLoop := make([][]keyChange, len(srv.shards))
	post := func(loop int) {
		c := &linesChanged{session: s, changes: byLoop[loop]}
		c.message.Body = c
		srv.shards[loop].loop.Send(&c.message)
		byLoop[loop] = nil
	}
	srv.send(func() {
		for _, c := range changes {
			hash := srv.seed.Hash(c.Key)
			loop := srv.shardOf(hash)
			if byLoop[loop] = append(byLoop[loop], keyChange{c, hash}); len(byLoop[loop]) == changesPerMessage {
				post(loop)
			}
		}
		for loop, some := range byLoop {
			if len(some) > 0 {
				post(loop)
			}
		}
	})
}

// loss is what a loop loses with a session.
type loss struct {
	told bool // the clients are dropped
	keys int  // that were held, or rested
}

// Lost ends a session.
func (m fleetMember) Lost(fleet.Session, error) (rests bool) {
	srv := m.server
	done, missing := eachShard(context.Background(), srv, srv.shards, (*shard).lose)
	rests = srv.heldAtStop.Load() || missing > 0 && srv.serves()
	for _, l := range done {
		rests = rests || l.keys > 0
	}
	return rests && srv.cfg.LockDelay > 0
}

// found goes on with what had to wait for the store.
func (ls *lines) found(f *linesFound) {
	if ls.shard.closed {
		return
	}
	ls.session = f.session
	for _, l := range ls.sorted() {
		l.join()
		l.closeUnused()
	}
}

// change takes what has changed in the store. What it grants is told in between: a client or a place that has been granted a
// key may give it up in the next change.
func (ls *lines) change(m *linesChanged) {
	sh := ls.shard
	if sh.closed || m.session != ls.session {
		return
	}
	sh.table.Advance(sh.loop.Now())
	sh.deliverAll()
	for i := range m.changes {
		if ls.session == nil {
			return
		}
		ls.apply(&m.changes[i])
		ls.tell()
		sh.deliverAll()
	}
}

// lose is a step of a loop task: it forgets what the store has said, and ends all sessions that hold a key or wait for one. Their
// connections are closed at the end of the turn; so the task ends in the next one.
func (sh *shard) lose(l *loss) (more bool) {
	if l.told || sh.closed {
		return false
	}
	l.told = true
	l.keys = sh.table.Keys() + sh.table.Resting()
	sh.table.Advance(sh.loop.Now())
	sh.lines.lose()
	var walk bagWalk
	sh.roster.sessions.walk(&walk, math.MaxInt, func(s *session) bool {
		if s.phase < ended && (s.keys > 0 || s.outstanding > 0) {
			s.drop(outOfTouch)
		}
		return true
	})
	return true
}

// lose forgets everything that the store has said, and ends all waits.
func (ls *lines) lose() {
	sh := ls.shard
	ls.session = nil
	sh.deliverAll()
	for _, l := range ls.sorted() {
		for _, a := range l.asked {
			if a.request != nil {
				a.decide(lostTouch)
			}
		}
		for w := sh.table.Find(l.hash, l.key).First; w != nil; {
			r, ours := w.Tag.(*request)
			w = w.Next()
			if ours && sh.cancel(r, waitLost) {
				ls.decided = append(ls.decided, decision{r, true, lostTouch})
			}
		}
		for i := len(l.places) - 1; i >= 0; i-- { // so that none is granted the key
			p := l.places[i]
			l.exit(p)
			for _, a := range p.asked {
				if a.request != nil {
					a.decide(lostTouch)
				}
			}
		}
	}
	clear(ls.byKey)
	ls.kept, ls.latest, ls.size = nil, nil, 0
	sh.loop.StopTimer(&ls.sweeper)
	ls.tell()
}

// lostTouch is what a request comes to if the server loses touch with its fleet: the session ends.
const lostTouch proto.Reply = cancelled + 1
