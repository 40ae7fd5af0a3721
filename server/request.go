package server

import (
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// What a command can come to beside the replies of its kind.
const (
	pending   proto.Reply = 0                // it waits in a queue
	cancelled proto.Reply = proto.NumReplies // the end of the input ended the wait: no answer, and no further command
)

// request is the command that a session has under way, if it is about a key. It travels as a message from the session's
// loop to the loop of the key's shard and back. A session has one command at a time, so it is a field of the session.
//
// It belongs to the session's loop at rest, to the shard's loop from the moment it is posted there, and to the
// session's loop again when the answer is posted. If both are one loop it does not travel.
type request struct {
	message reactor.Message // Body: the request
	session *session        // set once

	// The question.
	kind       proto.Kind
	mayWait    bool           // false after the end of the session's input
	suspicious bool           // its wait may be part of a deadlock: the session holds a key, or belongs to an owner
	limit      limit          // of the session: the key would exceed it
	size       uint32         // what the key costs while it is held, see [lockmgr.KeySize]
	owner      *lockmgr.Owner // what the session holds in that shard; of the shard's loop, like waiter and timer
	hash       uint64
	key        []byte // in the session's parser
	timeout    time.Duration

	// Used while it waits in the shard.
	waiter  lockmgr.Waiter // Tag: the request
	timer   reactor.Timer  // Tag: the request; while it stands behind a place that is to come, the asked
	serial  uint32         // of the wait: how many the session has begun
	suspect int32          // see place

	// The answer.
	answered bool // it travels back; false on the way there
	waited   bool // before the answer
	answer   proto.Reply
	token    uint64 // of a fence
}

func (r *request) init(s *session) {
	r.session = s
	r.message.Body = r
	r.waiter.Tag = r
	r.timer.Tag = r
}

// place returns where the request keeps its place among the suspects of the shard.
func (r *request) place() *int32 { return &r.suspect }

// granted answers the request: it was queued, and its owner holds the key now.
func (r *request) granted(sh *shard) {
	sh.loop.StopTimer(&r.timer)
	sh.counters.grants++
	sh.endWait(r, waitLocked)
	sh.answer(r, proto.Locked)
}

// waitsFor returns the key that a request waits for, on the loop of that.
func (r *request) waitsFor() []byte {
	if a := r.behind(); a != nil {
		return a.line.key
	}
	return r.waiter.WaitsFor().Key
}

// peer says who waits.
func (r *request) peer() api.Peer { return r.session.peer() }

// wait says since when it waits, and how long at most.
func (r *request) wait() (since, timeout time.Duration) { return r.waiter.Since(), r.timeout }

// remoteOwner is what a session has in a shard of another loop. It belongs to that loop, except for its message, cancel and
// wait, which are the session's loop's until the message is posted. That happens once, when the session ends.
type remoteOwner struct {
	message reactor.Message // Body: the remoteOwner
	session *session
	owner   lockmgr.Owner
	cancel  bool    // the session's request may be waiting in that shard
	wait    waitEnd // how that wait ends
}

// cancellation takes back a request that may have to wait, because the session's input has ended. It travels to the shard
// after the request and back after the answer. It belongs to the session, which sends it at most once.
type cancellation struct {
	message reactor.Message // Body: the cancellation
	session *session
	done    bool // it travels back
}
