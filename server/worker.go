package server

import (
	"time"

	"dreadlock/reactor"
)

// worker is the server's part of one loop: the shard whose keys the loop owns, and the roster of the sessions that it
// serves. Everything in it belongs to that loop.
type worker struct {
	server   *Server
	loop     loop
	index    int
	closed   bool // the server stops: nothing is granted and nothing answered any more
	drains   bool // the server drains: a session that holds nothing and waits for nothing ends, and none is new
	held     bool // see [worker.hold]
	counters counters
	account  account
	throttle throttle

	shard  *shard
	roster *roster
}

// loop is what the server needs of a [reactor.Loop]. Tests have one without sockets and without time.
type loop interface {
	Index() int
	Now() time.Duration
	Time(d time.Duration) time.Time
	Post(to int, m *reactor.Message)
	Send(m *reactor.Message)
	StartTimer(t *reactor.Timer, d time.Duration)
	StopTimer(t *reactor.Timer) bool
	Spend(n int) (ok bool)
	NextPart()
	Traffic() reactor.Traffic
	Memory() int64
	AssertOn(what string)
}

// connection is what a session needs of its [reactor.Conn].
type connection interface {
	IsOpen() bool
	Write(p []byte)
	Unsent() int
	CanHold() bool
	Pause()
	Paused() bool
	Unread() int
	Resume()
	Sip()
	ReadRest() bool
	Close()
	CloseAfterOutput()
	TryMove(loop int) bool
	Encrypted() bool
	Export() (fd int, state reactor.ConnState)
}

func newWorker(srv *Server, l loop) *worker {
	w := &worker{server: srv, loop: l, index: l.Index(), account: account{budget: srv.budget}}
	w.throttle.worker = w
	w.shard = newShard(w)
	w.roster = newRoster(w)
	return w
}

// Accept makes the client for a new connection, an arrival.
func (w *worker) Accept(info any) reactor.Client {
	a := info.(*arrival)
	if w.closed || w.drains || a.counted == asRefusal {
		return &refusal{worker: w, arrival: a}
	}
	w.roster.population.Add(1)
	return newSession(w.roster, &a.identity)
}

// Receive handles a message from another loop, or from the server itself. A request and a cancellation come here twice:
// as questions to the shard, and as answers to the session.
func (w *worker) Receive(m *reactor.Message) {
	switch body := m.Body.(type) {
	case *request:
		if body.answered {
			body.session.answered()
		} else {
			w.shard.serve(body)
		}
	case *cancellation:
		if body.done {
			body.session.cancelReturned()
		} else {
			w.shard.cancelRemote(body)
		}
	case *remoteOwner:
		w.shard.releaseRemote(body)
	case *taken:
		body.session.lostKey(body.size)
	case *linesFound:
		w.shard.lines.found(body)
	case *linesChanged:
		w.shard.lines.change(body)
	case *loopTask:
		body.run(w.shard)
		w.loop.Spend(taskUnits)
	}
}

// Expire handles a timer of this loop.
func (w *worker) Expire(t *reactor.Timer) {
	switch tag := t.Tag.(type) {
	case *request:
		w.shard.expire(tag)
	case *refusal:
		tag.conn.Close()
	case *lines:
		tag.sweep()
	case *asked:
		tag.expire(w.shard)
	case *newcomers:
		tag.expire(w.roster)
	case *throttle:
		tag.expire()
	case *search:
		tag.expire()
	case *shard:
		tag.releaseMore()
	}
}

// Continue goes on with what earlier turns have left: first with grants, whose clients have waited longest.
func (w *worker) Continue() {
	w.shard.deliver()
	w.loop.NextPart()
	w.roster.serveTurns()
	w.loop.NextPart()
	w.shard.releaseMore()
}

// EndTurn delivers the grants of a turn, and accounts for the memory that it has taken. It is done at the end, because to answer
// may run further commands, which make more grants.
func (w *worker) EndTurn() (more bool) {
	w.shard.deliver()
	more = w.throttle.endTurn()
	more = w.roster.search.endTurn() || more
	return !w.closed && (more || !w.shard.grants.Empty() || w.roster.hasTurns() || w.shard.releasesMore())
}
