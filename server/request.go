package server

import (
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
)

// answer is what a command came to.
type answer uint8

const (
	pending answer = iota // it waits in a queue
	locked
	timedOut
	unlocked
	alreadyLocked
	notLocked
	notOwner
	deadlocked // the wait was ended because it was part of a deadlock
	cancelled  // the end of the input ended the wait: no answer, and no further command
)

// replies are the answers as they are sent.
var replies = [...]string{
	locked:        proto.Locked.Line(),
	timedOut:      proto.TimedOut.Line(),
	unlocked:      proto.Unlocked.Line(),
	alreadyLocked: proto.AlreadyLocked.Line(),
	notLocked:     proto.NotLocked.Line(),
	notOwner:      proto.NotOwner.Line(),
	deadlocked:    proto.Deadlock.Line(),
	cancelled:     "",
}

// request is the command that a session has under way. It travels as a message from the session's loop to the loop of
// the key's shard and back. A session has one command at a time, so it is a field of the session.
//
// It belongs to the session's loop at rest, to the shard's loop from the moment it is posted there, and to the
// session's loop again when the answer is posted. If both are one loop it does not travel.
type request struct {
	message reactor.Message // Body: the request
	session *session        // set once

	// The command.
	kind    proto.Kind
	mayWait bool           // false after the end of the session's input
	owner   *lockmgr.Owner // what the session holds in that shard; of the shard's loop, like waiter and timer
	hash    uint64
	key     []byte // in the session's parser
	timeout time.Duration
	holding bool // the session holds a key, so that its wait may be part of a deadlock

	// Used while it waits in the shard.
	waiter  lockmgr.Waiter // Tag: the request
	timer   reactor.Timer  // Tag: the request
	since   time.Duration  // when the wait began
	serial  uint64         // of the wait: how many the session has begun
	suspect int            // place among the shard's suspects, from 1; 0 if it is none of them

	answer answer
	waited bool // before the answer
}

func (r *request) init(s *session) {
	r.session = s
	r.message.Body = r
	r.waiter.Tag = r
	r.timer.Tag = r
}

// foothold is what a session has in a shard of another loop. It belongs to that loop, except for its message and
// cancel, which are the session's loop's until the message is posted. That happens once, when the session ends.
type foothold struct {
	message reactor.Message // Body: the foothold
	session *session
	owner   lockmgr.Owner
	cancel  bool // the session's request may be waiting in that shard
}

// cancellation takes back a request that may have to wait, because the session's input has ended. It travels to the
// shard behind the request and back behind the answer. It belongs to the session, which sends it at most once.
type cancellation struct {
	message reactor.Message // Body: the cancellation
	session *session
}
