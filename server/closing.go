package server

import (
	"errors"
	"io"

	"github.com/rs/zerolog"
)

// A session ends by the end of its input, a broken connection, a syntax error, a limit or a drain. In that very turn it gives
// up all it holds and leaves its queue. If it held more than a turn can pass on, those who wait for the rest are told in the
// turns that follow; anybody else finds the keys free at once. Answers that the client has not read yet may remain for a while.
//
//	serving ─────── end of input, answers owed ──────► inputEnded
//	   │                                                    │
//	   │ end of input, nothing owed; broken; syntax error   │ all executed; one would have to wait; syntax error
//	   ▼                                                    ▼
//	 ended: keys free ── everything sent, or the client does not read ──► gone

// maxQuoted is the number of offending bytes that a warning shows.
const maxQuoted = 32

// Lingers reports whether a command is under way that may not have to wait for other clients, or commands are left to execute. What
// has to wait ends with the input.
func (s *session) Lingers(inputLeft bool) bool {
	return !s.roster.closed && s.phase == serving &&
		(s.remoteShard != noShard || s.outstanding == 0 && (s.pending.len() > 0 || inputLeft) ||
			s.outstanding > 0 && s.request.behind() != nil)
}

// HalfClosed answers what came before the end of the input.
func (s *session) HalfClosed() {
	s.phase = inputEnded
	if s.remoteShard == noShard {
		s.request.endInput()
		s.continueAfterReply()
		return
	}
	c := &cancellation{session: s}
	c.message.Body = c
	s.outstanding++
	s.roster.loop.Post(int(s.remoteShard), &c.message)
}

// cancelReturned says that the request can no longer be waiting in a queue: it was answered or cancelled.
func (s *session) cancelReturned() {
	s.outstanding--
	if s.phase == inputEnded {
		s.continueAfterReply()
	}
}

// Closed ends the session.
func (s *session) Closed(err error) {
	ro := s.roster
	ro.loop.AssertOn("session")
	if !ro.closed {
		why := broken
		if errors.Is(err, io.EOF) {
			why = clientClosed
		}
		s.end(why)
	}
	s.phase = gone
	s.pending.discard(s.pending.len(), &ro.spare)
	s.count(0)
	ro.search.gone(s)
	ro.sessions.remove(s)
	ro.newcomers.remove(s)
	ro.population.Add(-1)
	ro.server.clientGone(s.address())
}

// refuse ends the session for a syntax error at byte n of the input. What came before has been executed and is answered.
func (s *session) refuse(input []byte, n int) {
	if event := s.warn("client dropped: syntax error"); event.Enabled() {
		err, rest := s.parser.Err(), input[n:]
		event.Stringer("reason", err.Reason).Int("column", err.Column).Bytes("at", rest[:min(len(rest), maxQuoted)]).
			Str("hint", hint(err, input, n)).Send()
	}
	s.finish(syntaxError)
}

// finish ends the session, and its connection when everything has been sent.
func (s *session) finish(why reason) {
	s.end(why)
	s.flush()
	s.conn.CloseAfterOutput()
}

// drop is finish for a client that is not to hear what is left.
func (s *session) drop(why reason) {
	s.roster.out = s.roster.out[:0]
	s.end(why)
	s.conn.Close()
}

// end gives up all that the session holds, on every loop, and takes it out of the queue it may stand in.
func (s *session) end(why reason) {
	if s.phase >= ended {
		return
	}
	s.phase = ended
	s.why = why
	s.stalled = false
	s.keys, s.keyBytes = 0, 0
	ro := s.roster
	ro.newcomers.remove(s)
	ro.counters.disconnects[why]++
	how := waitLost
	if why == kicked {
		how = waitKicked
	}
	if s.outstanding > 0 && s.remoteShard == noShard {
		ro.shard.cancel(&s.request, how)
	}
	ro.shard.release(&s.owner)
	for loop, o := range s.remoteOwners {
		if o != nil {
			o.cancel, o.wait = int(s.remoteShard) == loop, how
			ro.loop.Post(loop, &o.message)
		}
	}
}

// ending says why the session has ended.
func (s *session) ending() reason { return s.why }

// warn begins a warning about the client, which Send ends. There may be too many of them, see [noise.Log].
func (s *session) warn(text string) *zerolog.Event {
	return s.described(s.roster.server.warnings.Event(zerolog.WarnLevel, s.address().source(), text))
}

// described adds to a log line who the client is.
func (s *session) described(event *zerolog.Event) *zerolog.Event {
	i := s.known()
	a := i.more()
	return called(event.Stringer("client", i.address), a.proven, a.name, a.owner)
}

// called adds to a log line what is known about a client, beside its address.
func called(event *zerolog.Event, identity, name, owner string) *zerolog.Event {
	for _, known := range []struct{ what, text string }{{"identity", identity}, {"name", name}, {"owner", owner}} {
		if known.text != "" {
			event = event.Str(known.what, known.text)
		}
	}
	return event
}
