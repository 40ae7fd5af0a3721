package server

import (
	"sync/atomic"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// phase is how far a session has come.
type phase uint8

const (
	serving    phase = iota // commands come and are executed
	inputEnded              // what came before the end of the input is executed, if it need not wait
	ended                   // it holds nothing and waits for nothing; at most answers are left to send
	gone                    // and its socket is closed
)

// session is our state for one connection: what it holds, and the command it has under way.
//
// Everything belongs to the loop of the connection, save what request, remoteOwner and cancellation say of themselves.
type session struct {
	sock   reactor.Conn // the reactor's; everything here goes by conn
	conn   connection   // sock, but in tests
	roster *roster      // of the connection's loop
	slot   int32        // see [bag]
	keys   int32        // how many it holds in all

	older, newer *session // among the newcomers

	since time.Duration // when it connected. Constant, so that any loop may read it

	parser  proto.Parser
	pending pendingInput // empty unless the session is busy or stalled

	// At most one request is under way. outstanding counts the messages that have to come back before the next command:
	// the answer and, after the end of the input, the cancellation. A request that waits in the session's own loop counts
	// as well.
	request     request
	sentAt      time.Duration // when the request was sent to another loop
	remoteShard int32         // the other loop that the request is with; noShard otherwise
	counted     uint32        // bytes that its buffers take, see recount
	outstanding uint8
	phase       phase
	why         reason // it has ended; set before other loops hear of that, and constant from then on
	newcomer    bool   // one of the newcomers of its roster: it has sent no command yet
	stalled     bool   // the next command has to wait until the client has read its answers
	waitsTurn   bool   // it is among the turns of its roster
	nextTurn    *session

	// identity is what is known about the client. Stored on the session's loop, loaded on any. It is beside the owner, with which
	// it is needed.
	identity     atomic.Pointer[identity]
	owner        lockmgr.Owner  // what it holds in the shard of its own loop
	remoteOwners []*remoteOwner // what it holds in the others, by loop; nil where it never asked for a key
	keyBytes     int            // what all its keys cost

	affinity affinity // to the loop whose keys it uses
}

// noShard is no loop.
const noShard = -1

func newSession(ro *roster, i *identity) *session {
	s := &session{roster: ro, remoteShard: noShard}
	s.identity.Store(i)
	s.conn = &s.sock
	s.request.init(s)
	s.owner.Tag = s
	return s
}

// place returns where the session keeps its place among the sessions of its shard.
func (s *session) place() *int32 { return &s.slot }

// Conn returns the connection.
func (s *session) Conn() *reactor.Conn { return &s.sock }

// Opened gives the connection its number. The client speaks first.
func (s *session) Opened() {
	ro := s.roster
	s.identity.Load().connection = api.ConnectionID(ro.server.lastID.Add(1)) // nobody has seen it yet
	s.since = ro.loop.Now()
	ro.counters.accepted++
	ro.sessions.add(s)
	ro.newcomers.add(s)
}

// Data executes the commands that were read, or keeps them until the one that is under way is answered.
func (s *session) Data(p []byte) {
	ro := s.roster
	ro.loop.AssertOn("session")
	if s.phase >= ended || ro.closed {
		return // what follows a syntax error is not executed
	}
	if s.outstanding > 0 || s.pending.len() > 0 {
		s.pending.add(p, &ro.spare)
	} else {
		n := s.execute(p, ro.server.pace.long)
		s.pending.add(p[n:], &ro.spare)
	}
	s.applyBackpressure()
}

// Drained goes on with commands that had to wait until the client has read its answers.
func (s *session) Drained() {
	if s.stalled && !s.roster.closed {
		s.runPending(s.roster.server.pace.short)
		s.applyBackpressure()
	}
}

// answered takes the answer of the request. The session may be on another loop when it returns.
func (s *session) answered() {
	s.roster.loop.AssertOn("session")
	loop := int(s.remoteShard)
	s.outstanding--
	s.remoteShard = noShard
	if s.phase >= ended {
		return
	}
	a := s.request.answer
	switch a {
	case cancelled:
		s.finish(clientClosed)
		return
	case lostTouch:
		s.drop(outOfTouch)
		return
	}
	s.affinity.observe(loop, a, s.request.waited)
	s.reply(s.request.kind, a)
	s.continueAfterReply()
	if int(s.affinity.score) >= s.roster.server.moveAfter {
		s.move() // the last that is done with the session here
	}
}

// continueAfterReply goes on when nothing is outstanding any more.
func (s *session) continueAfterReply() {
	if s.outstanding > 0 {
		s.flush()
		return
	}
	s.runPending(s.roster.server.pace.short)
	s.applyBackpressure()
}

// ownerIn returns what the session holds in the shard of another loop.
func (s *session) ownerIn(loop int) *lockmgr.Owner {
	if s.remoteOwners == nil {
		s.remoteOwners = make([]*remoteOwner, s.roster.server.cfg.Loops)
	}
	o := s.remoteOwners[loop]
	if o == nil {
		o = &remoteOwner{session: s, owner: lockmgr.Owner{Tag: s}}
		o.message.Body = o
		s.remoteOwners[loop] = o
	}
	return &o.owner
}

// applyBackpressure ends a turn of the session: it holds back a client that sends more than is wanted, and ends a session
// that has executed all that came before the end of its input.
func (s *session) applyBackpressure() {
	s.recount()
	switch s.phase {
	case serving:
		limits := &s.roster.server.cfg
		waiting := s.pending.len()
		switch {
		case s.roster.search.reads(s):
		case !s.conn.CanHold() && (waiting > limits.MaxPipeline || s.conn.Unsent() > limits.MaxOutput):
			s.warn("client dropped: it sends too much and cannot be held back").
				Int("unparsed_bytes", waiting).Int("unread_answer_bytes", s.conn.Unsent()).Send()
			s.finish(tooMuch)
		case waiting >= limits.MaxPipeline:
			if !s.conn.Paused() && s.outstanding > 0 { // else it waits for nothing but a turn
				s.roster.counters.paused++
			}
			s.pause()
		case s.holdsBack():
		case waiting <= limits.MaxPipeline/2:
			s.conn.Resume()
		case s.conn.Paused():
			s.pause() // which may have come to wait since
		}
	case inputEnded:
		if s.outstanding == 0 && s.pending.len() == 0 && !s.conn.ReadRest() {
			s.finish(clientClosed)
		}
	}
}

// pause holds the client back.
func (s *session) pause() {
	s.conn.Pause()
	if s.outstanding > 0 {
		s.roster.search.begin()
	}
}
