package server

import (
	"dreadlock/lockmgr"
	"dreadlock/proto"
)

// How a session executes commands: those of one piece of input one after the other, until one has to wait.
//
//	input ──► execute: parse ──► command ──► reply ──► flush
//	                                └─ its answer is to come: the rest of the input is pending

// runPending executes the pending input, as far as it goes.
func (s *session) runPending(most int) {
	n := s.execute(s.pending.bytes(), most)
	s.pending.discard(n, &s.roster.spare)
}

// execute parses and executes commands, at most the given number, until the input is used up, one has to wait, the client has
// too many answers to read, or nothing is left of the loop's turn. It writes the answers and returns the number of bytes
// consumed: all of them if the session has ended. If it has to stop because of the number or the turn, the session is served
// again in another turn.
func (s *session) execute(input []byte, most int) (n int) {
	ro := s.roster
	if ro.held {
		return s.postpone(input)
	}
	var cmd proto.Command
	stalled := s.stalled
	s.stalled = false
	for n < len(input) && s.outstanding == 0 {
		if len(ro.out) >= flushMark {
			s.flush()
		}
		if s.phase >= ended || !s.conn.IsOpen() {
			s.flush() // to nobody: what is left would go to the next client
			return len(input)
		}
		if ro.drains && s.keys == 0 {
			s.finish(drained)
			return len(input)
		}
		if s.conn.Unsent() >= s.maxUnsent() {
			s.stalled = true
			if !stalled {
				ro.counters.stalled++
			}
			break
		}
		if most--; most < 0 || !ro.loop.Spend(1) {
			ro.turns.add(s)
			s.stalled = stalled // it has not caught up yet
			break
		}
		consumed, status := s.parser.Next(input[n:], &cmd)
		n += consumed
		switch status {
		case proto.Complete:
			s.command(&cmd)
		case proto.Invalid:
			s.refuse(input, n)
			return len(input)
		}
	}
	s.flush()
	return n
}

// postpone is what execute does while the roster is held: it executes nothing, and has the session served in another turn.
func (s *session) postpone(input []byte) (n int) {
	switch {
	case s.phase >= ended || !s.conn.IsOpen():
		n = len(input)
	case len(input) > 0:
		s.roster.turns.add(s)
	}
	s.flush()
	return n
}

// command executes one command: itself, in the shard of its key, or by sending it there.
func (s *session) command(cmd *proto.Command) {
	if s.newcomer {
		s.roster.newcomers.remove(s)
	}
	if !cmd.Kind.HasKey() {
		s.introduce(cmd)
		return
	}
	ro := s.roster
	r := &s.request
	r.kind = cmd.Kind
	r.timeout = cmd.Timeout
	r.mayWait = s.phase == serving
	r.waited, r.answered = false, false
	r.suspicious = s.keys > 0 || s.owned()
	r.hash = ro.server.seed.Hash(cmd.Arg)
	r.size = uint32(lockmgr.KeySize(len(cmd.Arg)))
	r.limit = s.keyLimit(int(r.size))
	to := ro.server.shardOf(r.hash)
	if to != ro.index {
		s.parser.Retain(cmd)
		r.key = cmd.Arg
		r.owner = s.ownerIn(to)
		s.outstanding++
		s.remoteShard = int32(to)
		s.sentAt = ro.loop.Now()
		ro.loop.Post(to, &r.message)
		return
	}
	r.key = cmd.Arg // not used beyond this call
	r.owner = &s.owner
	switch a := ro.shard.execute(r); a {
	case pending:
		s.outstanding++
	case cancelled:
		s.finish(clientClosed)
	default:
		s.affinity.score = 0
		s.reply(r.kind, a)
	}
}

// introduce executes a command that is about the session itself.
func (s *session) introduce(cmd *proto.Command) {
	if cmd.Kind == proto.Owner {
		s.setOwner(string(cmd.Arg))
		s.reply(cmd.Kind, proto.Owned)
		return
	}
	s.setName(string(cmd.Arg))
	s.reply(cmd.Kind, proto.Named)
}

// reply answers the command.
func (s *session) reply(kind proto.Kind, a proto.Reply) {
	ro := s.roster
	ro.counters.commands[kind][a]++
	switch a {
	case proto.Token:
		ro.tells = ro.shard.lines != nil
		ro.out = proto.AppendToken(ro.out, s.request.token)
		return
	case proto.Named:
		ro.out = proto.AppendNamed(ro.out, ro.server.cfg.silence(), ro.server.lockSpace())
		return
	case proto.Locked:
		s.addKey()
		ro.tells = ro.shard.lines != nil
	case proto.AlreadyLocked:
		ro.tells = ro.shard.lines != nil
	case proto.Unlocked:
		s.removeKey()
	}
	ro.out = a.Append(ro.out)
}

// flush sends the answers of this turn.
func (s *session) flush() {
	ro := s.roster
	if len(ro.out) == 0 {
		return
	}
	if ro.tells {
		ro.tells = false
		if !ro.shard.lines.mayTell() {
			s.drop(outOfTouch)
			return
		}
	}
	s.conn.Write(ro.out)
	ro.out = ro.out[:0]
}
