package server

import (
	"net"
	"net/netip"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// phase is how far a session has come.
type phase uint8

const (
	serving  phase = iota // commands come and are executed
	draining              // the input has ended; what came before is executed, if it need not wait
	ended                 // it holds nothing and waits for nothing; at most answers are left to send
	gone                  // and its socket is closed
)

// flushMark is the number of bytes of answers after which they are written, also if the turn gives more.
const flushMark = 16 << 10

// session is our state for one connection: what it holds, and the command it has under way.
//
// Everything belongs to the loop of the connection, save what request, foothold and cancellation say of themselves.
type session struct {
	conn  reactor.Conn
	shard *shard // of the connection's loop
	slot  int    // place among the shard's sessions
	phase phase

	// Constant once the connection is open, so that any loop may read it.
	id      api.ConnectionID
	address netip.AddrPort // of the client
	since   time.Duration  // when it connected

	parser  proto.Parser
	backlog backlog // empty unless the session is busy or stalled

	// At most one request is under way. awaited counts the messages that have to come back before the next command: the
	// answer and, after the end of the input, the cancellation. A request that waits in the session's own shard counts
	// as well.
	request request
	awaited uint8
	asked   time.Duration // when the request was sent to another loop
	away    int           // the other loop that the request is with; atHome otherwise
	stalled bool          // the next command has to wait until the client has read its answers

	owner     lockmgr.Owner // what it holds in its own shard
	footholds []*foothold   // what it holds in the others, by loop; nil where it never asked for a key
	keys      int           // how many keys it holds in all

	pull pull // towards the loop whose keys it uses
}

// atHome is no loop.
const atHome = -1

func newSession(sh *shard) *session {
	s := &session{shard: sh, away: atHome}
	s.request.init(s)
	s.owner.Tag = s
	return s
}

// Conn returns the connection.
func (s *session) Conn() *reactor.Conn { return &s.conn }

// Opened gives the connection its number. The client speaks first.
func (s *session) Opened() {
	sh := s.shard
	s.id = api.ConnectionID(sh.server.lastID.Add(1))
	if tcp, ok := s.conn.RemoteAddr().(*net.TCPAddr); ok {
		a := tcp.AddrPort()
		s.address = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	s.since = sh.loop.Now()
	sh.counters.accepted++
	sh.join(s)
}

// Data executes the commands that were read, or keeps them behind the one that is under way.
func (s *session) Data(p []byte) {
	sh := s.shard
	if s.phase >= ended || sh.closed {
		return // what follows a syntax error is not executed
	}
	if s.awaited > 0 || s.backlog.len() > 0 {
		s.backlog.add(p, &sh.spare)
	} else {
		n := s.execute(p)
		s.backlog.add(p[n:], &sh.spare)
	}
	s.regulate()
}

// Drained goes on with commands that had to wait until the client has read its answers.
func (s *session) Drained() {
	if s.stalled && !s.shard.closed {
		s.resume()
		s.regulate()
	}
}

// answered takes the answer of the request. The session may be on another loop when it returns.
func (s *session) answered() {
	loop := s.away
	s.awaited--
	s.away = atHome
	if s.phase >= ended {
		return
	}
	a := s.request.answer
	if a == cancelled {
		s.finish(clientClosed)
		return
	}
	s.pull.feel(loop, a, s.request.waited)
	s.reply(a)
	s.proceed()
	if s.pull.strength >= s.shard.server.moveAfter {
		s.move() // the last that is done with the session here
	}
}

// proceed goes on when nothing is awaited any more.
func (s *session) proceed() {
	if s.awaited > 0 {
		s.flush()
		return
	}
	s.resume()
	s.regulate()
}

// resume executes the backlog, as far as it goes.
func (s *session) resume() {
	n := s.execute(s.backlog.bytes())
	s.backlog.discard(n, &s.shard.spare)
}

// execute parses and executes commands until the input is used up, one has to wait, or the client has too many answers
// to read. It writes the answers and returns the number of bytes consumed: all of them if the session has ended.
func (s *session) execute(input []byte) (n int) {
	sh := s.shard
	var cmd proto.Command
	stalled := s.stalled
	s.stalled = false
	for n < len(input) && s.awaited == 0 {
		if len(sh.out) >= flushMark {
			s.flush()
		}
		if s.phase >= ended || !s.conn.IsOpen() {
			return len(input)
		}
		if s.conn.Unsent() >= sh.server.cfg.MaxOutput {
			s.stalled = true
			if !stalled {
				sh.counters.stalled++
			}
			break
		}
		consumed, status := s.parser.Next(input[n:], &cmd)
		n += consumed
		switch status {
		case proto.Complete:
			if cmd.Kind > proto.Unlock { // not executed yet
				s.finish(syntaxError)
				return len(input)
			}
			s.command(&cmd)
		case proto.Invalid:
			s.refuse(input[n:])
			return len(input)
		}
	}
	s.flush()
	return n
}

// command executes one command in the shard of its key, or sends it there.
func (s *session) command(cmd *proto.Command) {
	sh := s.shard
	r := &s.request
	r.kind = cmd.Kind
	r.timeout = cmd.Timeout
	r.mayWait = s.phase == serving
	r.waited = false
	r.holding = s.keys > 0
	r.hash = sh.server.seed.Hash(cmd.Arg)
	to := sh.server.shardOf(r.hash)
	if to != sh.index {
		s.parser.Retain(cmd)
		r.key = cmd.Arg
		r.owner = s.ownerIn(to)
		s.awaited++
		s.away = to
		s.asked = sh.loop.Now()
		sh.loop.Post(to, &r.message)
		return
	}
	r.key = cmd.Arg // not used beyond this call
	r.owner = &s.owner
	switch a := sh.execute(r); a {
	case pending:
		s.awaited++
	case cancelled:
		s.finish(clientClosed)
	default:
		s.pull.strength = 0
		s.reply(a)
	}
}

// flush sends the answers of this turn.
func (s *session) flush() {
	if out := s.shard.out; len(out) > 0 {
		s.conn.Write(out)
		s.shard.out = out[:0]
	}
}

// reply answers the command.
func (s *session) reply(a answer) {
	switch a {
	case locked:
		s.keys++
	case unlocked:
		s.keys--
	}
	s.shard.counters.commands[s.request.kind][a]++
	s.shard.out = append(s.shard.out, replies[a]...)
}

// ownerIn returns what the session holds in the shard of another loop.
func (s *session) ownerIn(loop int) *lockmgr.Owner {
	if s.footholds == nil {
		s.footholds = make([]*foothold, s.shard.server.cfg.Loops)
	}
	f := s.footholds[loop]
	if f == nil {
		f = &foothold{session: s, owner: lockmgr.Owner{Tag: s}}
		f.message.Body = f
		s.footholds[loop] = f
	}
	return &f.owner
}

// regulate ends a turn of the session: it holds back a client that sends more than is wanted, and ends a session that
// has executed all that came before the end of its input.
func (s *session) regulate() {
	switch s.phase {
	case serving:
		limits := &s.shard.server.cfg
		waiting := s.backlog.len()
		switch {
		case !s.conn.CanHold() && (waiting > limits.MaxPipeline || s.conn.Unsent() > limits.MaxOutput):
			s.warn().Int("unparsed_bytes", waiting).Int("unread_answer_bytes", s.conn.Unsent()).
				Msg("client dropped: it sends too much and cannot be held back")
			s.finish(tooMuch)
		case waiting >= limits.MaxPipeline:
			if !s.conn.Paused() {
				s.shard.counters.paused++
			}
			s.conn.Pause()
		case waiting <= limits.MaxPipeline/2:
			s.conn.Resume()
		}
	case draining:
		if s.awaited == 0 && s.backlog.len() == 0 && !s.conn.ReadRest() {
			s.finish(clientClosed)
		}
	}
}
