package server

import (
	"sync/atomic"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
)

// maxGrants is the number of grants that are delivered before the loop looks at its sockets again. Each may run a whole
// pipeline of commands, which may grant more.
const maxGrants = 256

// shard is the server's part of one loop: the keys that the loop owns, and the connections that it serves. Everything
// in it belongs to that loop.
type shard struct {
	server *Server
	loop   *reactor.Loop
	index  int
	table  *lockmgr.Table
	grants lockmgr.Grants // made in this turn, delivered at its end
	out    []byte         // answers of the session that is running; empty in between
	spare  spareBuffers
	closed bool // the server stops: nothing is granted and nothing answered any more

	counters counters
	sessions []*session // in no order
	suspects []*request // those that wait and hold keys, in no order

	population atomic.Int64 // sessions, those on their way here included; safe from any goroutine
}

func newShard(srv *Server, loop *reactor.Loop) *shard {
	return &shard{
		server: srv,
		loop:   loop,
		index:  loop.Index(),
		table:  lockmgr.NewTable(uint64(time.Now().UnixNano())),
		out:    make([]byte, 0, 2*flushMark),
	}
}

// Accept makes the client for a new connection.
func (sh *shard) Accept() reactor.Client {
	if !sh.closed && sh.server.admit() {
		sh.population.Add(1)
		return newSession(sh)
	}
	if !sh.closed {
		sh.counters.refused++
	}
	return &refusal{shard: sh}
}

// join makes s one of the shard's sessions.
func (sh *shard) join(s *session) {
	s.slot = len(sh.sessions)
	sh.sessions = append(sh.sessions, s)
}

// part ends that. The last of the sessions takes the place: whoever walks over them from the last to the first misses
// none that stays.
func (sh *shard) part(s *session) {
	last := len(sh.sessions) - 1
	sh.sessions[s.slot] = sh.sessions[last]
	sh.sessions[s.slot].slot = s.slot
	sh.sessions[last] = nil
	sh.sessions = sh.sessions[:last]
}

// Receive handles a message from another loop, or from the server itself.
func (sh *shard) Receive(m *reactor.Message) {
	switch body := m.Body.(type) {
	case *request:
		if body.session.shard == sh {
			body.session.answered()
		} else {
			sh.serve(body)
		}
	case *cancellation:
		if s := body.session; s.shard == sh {
			s.cancelReturned()
		} else {
			if sh.cancel(&s.request) {
				sh.answer(&s.request, cancelled)
			}
			sh.loop.Post(s.shard.index, m)
		}
	case *foothold:
		if body.cancel {
			sh.cancel(&body.session.request)
		}
		sh.release(&body.owner)
	case *errand:
		body.run(sh)
	}
}

// Expire handles a timer of this loop.
func (sh *shard) Expire(t *reactor.Timer) {
	switch tag := t.Tag.(type) {
	case *request:
		// A grant that was made in the same turn comes first.
		if sh.table.Cancel(&tag.waiter) {
			sh.counters.timeouts++
			sh.waited(tag)
			sh.answer(tag, timedOut)
		}
	case *refusal:
		tag.conn.Close()
	}
}

// EndTurn delivers the grants of a turn. It is done at the end, because to answer may run further commands, which make
// more grants.
func (sh *shard) EndTurn() (more bool) {
	for range maxGrants {
		w := sh.grants.Pop()
		if w == nil {
			return false
		}
		r := w.Tag.(*request)
		sh.loop.StopTimer(&r.timer)
		sh.counters.grants++
		sh.waited(r)
		sh.answer(r, locked)
	}
	return !sh.grants.Empty()
}

// serve executes a request of another loop and answers it, unless it has to wait.
func (sh *shard) serve(r *request) {
	if a := sh.execute(r); a != pending {
		sh.answer(r, a)
	}
}

// execute does in the table what the request asks for. If it is pending, its answer comes by [shard.answer].
func (sh *shard) execute(r *request) answer {
	if sh.closed {
		return cancelled
	}
	sh.table.Advance(sh.loop.Now())
	if r.kind == proto.Unlock {
		switch sh.table.Unlock(r.owner, r.hash, r.key, &sh.grants) {
		case lockmgr.Released:
			return unlocked
		case lockmgr.NotHeld:
			return notLocked
		default:
			return notOwner
		}
	}
	wait := r.timeout > 0 && r.mayWait
	switch sh.table.Lock(r.owner, &r.waiter, r.hash, r.key, wait) {
	case lockmgr.Granted:
		return locked
	case lockmgr.AlreadyHeld:
		return alreadyLocked
	case lockmgr.Queued:
		sh.wait(r)
		return pending
	}
	if r.timeout > 0 {
		return cancelled
	}
	return timedOut
}

// wait begins the wait of a request that has been queued.
func (sh *shard) wait(r *request) {
	sh.loop.StartTimer(&r.timer, r.timeout)
	r.waited = true
	r.since = sh.loop.Now()
	r.serial++
	if r.holding {
		sh.suspect(r)
	}
}

// waited ends the wait of a request by a grant or a timeout.
func (sh *shard) waited(r *request) {
	sh.counters.wait(sh.loop.Now() - r.since)
	sh.clear(r)
}

// answer ends a request of this shard and tells its session.
func (sh *shard) answer(r *request, a answer) {
	r.answer = a
	if home := r.session.shard; home == sh {
		r.session.answered()
	} else {
		sh.loop.Post(home.index, &r.message)
	}
}

// cancel takes a request out of the queue in which it may stand and reports whether it did.
func (sh *shard) cancel(r *request) bool {
	if !sh.table.Cancel(&r.waiter) {
		return false
	}
	sh.loop.StopTimer(&r.timer)
	sh.clear(r)
	return true
}

// release frees what a session holds in this shard.
func (sh *shard) release(o *lockmgr.Owner) {
	if !sh.closed {
		sh.table.Advance(sh.loop.Now())
		sh.table.Close(o, &sh.grants)
	}
}
