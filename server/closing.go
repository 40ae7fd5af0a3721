package server

import (
	"errors"
	"io"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A session ends by the end of its input, a broken connection, a syntax error or a limit. In that very turn it gives up
// all it holds and leaves its queue. Answers that the client has not read yet may stay behind for a while.
//
//	serving ──────── end of input, answers owed ───────► draining
//	   │                                                    │
//	   │ end of input, nothing owed; broken; syntax error   │ all executed; one would have to wait; syntax error
//	   ▼                                                    ▼
//	 ended: keys free ── everything sent, or the client does not read ──► gone

// restPiece is the number of bytes that are read at a time of what a client had sent before it ended.
const restPiece = 64 << 10

// maxQuoted is the number of offending bytes that a warning shows.
const maxQuoted = 32

// Closed ends the session, or lets it answer what came before the end of its input.
func (s *session) Closed(err error) {
	switch {
	case s.shard.closed:
	case s.phase == serving && errors.Is(err, io.EOF) && s.owesAnswers() && s.drain():
		return
	case errors.Is(err, io.EOF):
		s.end(clientClosed)
	default:
		s.end(broken)
	}
	s.vanish()
}

// owesAnswers reports whether a command is under way that may not have to wait, or commands are left to execute.
func (s *session) owesAnswers() bool {
	return s.away != atHome || s.awaited == 0 && (s.backlog.len() > 0 || s.held)
}

// drain goes on after the end of the input, on a second descriptor of the socket: gnet closes its own. It reports
// whether that works.
func (s *session) drain() bool {
	fd, err := s.conn.Dup()
	if err != nil {
		s.warn().Err(err).Msg("answers lost: the client has closed its side, and its socket cannot be kept")
		return false
	}
	s.phase = draining
	s.needOutlet().open(fd)
	if s.away != atHome {
		c := &cancellation{session: s}
		c.message.Body = c
		s.awaited++
		s.shard.loop.Post(s.away, &c.message)
		return true
	}
	s.proceed()
	return true
}

// readRest reads a piece of the input that was left in the socket because the client was held back when it ended, and
// reports whether there was any. The poll executes it.
func (s *session) readRest() bool {
	if !s.held {
		return false
	}
	piece := make([]byte, restPiece)
	n, err := unix.Read(s.outlet.fd, piece)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(s.outlet.fd, piece)
	}
	if err != nil || n == 0 {
		s.held = false
		return false
	}
	s.backlog.add(piece[:n], &s.shard.spare)
	s.stalled = true
	s.watchOutlet()
	return true
}

// cancelReturned says that the request can no longer be waiting in a queue: it was answered or cancelled.
func (s *session) cancelReturned() {
	s.awaited--
	if s.phase == draining {
		s.proceed()
	}
}

// refuse ends the session for a syntax error at the start of rest. What came before has been executed and is answered.
func (s *session) refuse(rest []byte) {
	err := s.parser.Err()
	s.warn().Stringer("reason", err.Reason).Int("column", err.Column).Bytes("at", rest[:min(len(rest), maxQuoted)]).
		Msg("client dropped: syntax error")
	s.finish(syntaxError)
}

// finish ends the session, and its connection when everything has been sent.
func (s *session) finish(why reason) {
	s.end(why)
	s.flush()
	if s.unsent() == 0 {
		s.hangUp()
	}
}

// end gives up all that the session holds, on every loop, and takes it out of the queue it may stand in.
func (s *session) end(why reason) {
	if s.phase >= ended {
		return
	}
	s.phase = ended
	s.stalled = false
	sh := s.shard
	sh.counters.disconnects[why]++
	if s.awaited > 0 && s.away == atHome {
		sh.cancel(&s.request)
	}
	sh.release(&s.owner)
	for loop, f := range s.footholds {
		if f != nil {
			f.cancel = s.away == loop
			sh.loop.Post(loop, &f.message)
		}
	}
}

// hangUp closes the connection of a session that has ended.
func (s *session) hangUp() {
	if s.conn.Open() {
		s.conn.Close() // Closed calls vanish
	} else {
		s.vanish()
	}
}

// vanish frees what is left when the last descriptor of the socket goes.
func (s *session) vanish() {
	if s.phase == gone {
		return
	}
	s.phase = gone
	sh := s.shard
	s.backlog.discard(s.backlog.len(), &sh.spare)
	if s.outlet != nil {
		sh.loop.StopTimer(&s.outlet.timer)
		s.outlet.close()
	}
	sh.sessions.remove(s)
	sh.population.Add(-1)
	sh.server.dismiss()
}

// warn begins a warning about the client. Bursts of them are sampled.
func (s *session) warn() *zerolog.Event {
	return s.shard.server.warnings.Warn().Stringer("client", s.address)
}
