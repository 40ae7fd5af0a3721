package server

import (
	"fmt"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// shard is the keys that one loop owns. It knows requests, not the sessions that they come from.
type shard struct {
	*worker
	table     *lockmgr.Table
	grants    lockmgr.Grants   // not delivered yet: that is done at the end of a turn
	releasing []*lockmgr.Owner // of sessions that have ended, and whose keys have not all gone on, in the order in which they do: see release
	unknown   lockmgr.Owner    // who may have held keys before the start: see [lockmgr.Table.SetDelay]
	rest      reactor.Timer    // runs while the first of releasing rests; Tag: the shard
	suspects  bag[*request]    // see [shard.suspect]
	journal   *journal         // nil if no events are kept
	lines     *lines           // nil unless the server is one of a fleet
}

// holder is what a key can belong to, the Tag of a [lockmgr.Owner]: a session.
type holder interface {
	peer() api.Peer   // safe from any goroutine
	party() party     // safe from any goroutine
	known() *identity // safe from any goroutine
	// ending says why it has closed. To be called on the loop of a key that is taken from it.
	ending() reason
	// taken says that a key of the shard is its own no more. It is called on the loop of the shard.
	taken(sh *shard, size int)
}

// queued is what can stand in the queue of a key, the Tag of a [lockmgr.Waiter]: a request. It belongs to the loop of the
// key as long as it stands there.
type queued interface {
	// granted says that its owner holds the key now.
	granted(sh *shard)
	peer() api.Peer
	// wait says since when it waits, and how long at most.
	wait() (since, timeout time.Duration)
}

// newShard makes a shard whose tokens are greater than those of any daemon that ran before, unless the machine's clock was
// set back: a grant takes longer than a nanosecond.
func newShard(w *worker) *shard {
	sh := &shard{worker: w, table: lockmgr.NewTable(uint64(time.Now().UnixNano()))}
	if sh.journal = w.server.history.newJournal(w.loop); sh.journal != nil {
		sh.table.Observe(sh.journal)
	}
	sh.beginDelay(w.server.cfg.LockDelay)
	if w.server.cfg.Fleet != nil {
		sh.lines = newLines(sh, fleet.Now)
	}
	sh.table.OnLeave(w.counters.holds.add)
	return sh
}

// serve executes a request of another loop and answers it, unless it has to wait.
func (sh *shard) serve(r *request) {
	if a := sh.execute(r); a != pending {
		sh.answer(r, a)
	}
}

// execute does in the table what the request asks for. If it is pending, its answer comes by [shard.answer].
func (sh *shard) execute(r *request) proto.Reply {
	if sh.closed {
		return cancelled
	}
	sh.table.Advance(sh.loop.Now())
	if sh.lines != nil {
		return sh.lines.execute(r)
	}
	return sh.decide(r)
}

// decide does in the table what the request asks for.
func (sh *shard) decide(r *request) proto.Reply {
	switch r.kind {
	case proto.Lock:
		return sh.lock(r)
	case proto.Unlock:
		return sh.unlock(r)
	case proto.Fence:
		return sh.fence(r)
	}
	panic(fmt.Sprintf("server: no shard executes %q", r.kind))
}

func (sh *shard) lock(r *request) proto.Reply {
	if l := sh.lockLimit(r); l != noLimit {
		return sh.refuse(r, l)
	}
	wait := r.timeout > 0 && r.mayWait
	switch sh.table.Lock(r.owner, &r.waiter, r.hash, r.key, wait) {
	case lockmgr.Granted:
		return proto.Locked
	case lockmgr.AlreadyHeld:
		return proto.AlreadyLocked
	case lockmgr.Queued:
		sh.beginWait(r)
		return pending
	}
	if r.timeout > 0 {
		return cancelled
	}
	return proto.TimedOut
}

func (sh *shard) unlock(r *request) proto.Reply {
	switch sh.table.Unlock(r.owner, r.hash, r.key, &sh.grants) {
	case lockmgr.Released:
		return proto.Unlocked
	case lockmgr.NotHeld:
		return proto.NotLocked
	}
	return proto.NotOwner
}

// fence finds the token of the grant by which the request's owner holds the key.
func (sh *shard) fence(r *request) proto.Reply {
	h := sh.table.Find(r.hash, r.key)
	switch {
	case h.Owner == nil || sh.table.Rest(h.Owner) > 0:
		return proto.NotLocked
	case h.Owner == r.owner:
		r.token = h.Token
		return proto.Token
	}
	return proto.NotOwner
}

// beginWait begins the wait of a request that has been queued.
func (sh *shard) beginWait(r *request) {
	sh.loop.StartTimer(&r.timer, r.timeout)
	r.waited = true
	r.serial++
	if r.suspicious {
		sh.suspect(r)
	}
}

// recheck has the detector look at a request that has come to wait for a holder here.
func (sh *shard) recheck(r *request) {
	if r.suspicious {
		sh.server.detector.notify()
	}
}

// endWait takes note of the end of a request's wait, which is in no queue any more.
func (sh *shard) endWait(r *request, how waitEnd) {
	sh.counters.waits[how].add(max(sh.loop.Now()-r.waiter.Since(), 0))
	sh.clear(r, how == waitLocked)
}

// expire ends the wait of a request whose time has run out. A grant that was made in the same turn comes first.
func (sh *shard) expire(r *request) {
	key := r.waiter.WaitsFor().Key
	if sh.table.Cancel(&r.waiter) {
		sh.timedOut(key, r)
	}
}

// timedOut answers a request that has left its queue since its time has run out.
func (sh *shard) timedOut(key []byte, r *request) {
	sh.counters.timeouts++
	sh.journal.timedOut(key, r)
	sh.endWait(r, waitTimedOut)
	sh.answer(r, proto.TimedOut)
}

// deliver tells the waiters that have become holders, as far as the loop's turn goes.
func (sh *shard) deliver() {
	for !sh.closed && !sh.grants.Empty() && sh.loop.Spend(1) {
		sh.deliverFirst()
	}
}

// deliverAll tells all waiters that have become holders, whatever is left of the turn.
func (sh *shard) deliverAll() {
	for !sh.closed && !sh.grants.Empty() {
		sh.deliverFirst()
	}
}

func (sh *shard) deliverFirst() {
	sh.grants.Pop().Tag.(queued).granted(sh)
	if sh.lines != nil {
		sh.lines.tell()
	}
}

// answer ends a request of this shard and tells its session.
func (sh *shard) answer(r *request, a proto.Reply) {
	r.answer = a
	if home := r.session.roster; home.index == sh.index {
		r.session.answered()
	} else {
		r.answered = true
		sh.loop.Post(home.index, &r.message)
	}
}

// cancel takes a request out of the queue in which it may stand, which ends its wait in the given way, and reports whether it
// did.
func (sh *shard) cancel(r *request, how waitEnd) bool {
	if a := r.behind(); a != nil {
		sh.loop.StopTimer(&r.timer)
		a.withdraw()
		if !a.try {
			sh.endWait(r, how)
		}
		return true
	}
	if !sh.table.Cancel(&r.waiter) {
		return false
	}
	sh.loop.StopTimer(&r.timer)
	sh.endWait(r, how)
	return true
}

// cancelRemote takes back a request of another loop. Its answer, if that is under way already, comes before this returns.
func (sh *shard) cancelRemote(c *cancellation) {
	if r := &c.session.request; !r.endInput() && sh.cancel(r, waitLost) {
		sh.answer(r, cancelled)
	}
	c.done = true
	sh.loop.Post(c.session.roster.index, &c.message)
}

// release frees what a session that has ended holds in this shard, after the lock delay if there is one: as much as the loop's
// turn allows at once, the rest in turns to come. Nobody can tell, but those who wait for the rest.
func (sh *shard) release(o *lockmgr.Owner) {
	if a := o.Tag.(holder).known().about; a != nil && a.kick != nil {
		a.kick.frees(o)
	}
	if sh.closed {
		return
	}
	sh.table.Advance(sh.loop.Now())
	step := sh.server.pace.release
	for sh.table.CloseSome(o, step, &sh.grants) {
		if sh.table.Rest(o) > 0 || !sh.loop.Spend(step) {
			sh.addReleasing(o)
			return
		}
	}
}

// releaseMore goes on with what release has left and does not rest, the session that has ended first before the others.
func (sh *shard) releaseMore() {
	if len(sh.releasing) == 0 || sh.closed {
		return
	}
	sh.table.Advance(sh.loop.Now())
	step := sh.server.pace.release
	for sh.releasesMore() && sh.loop.Spend(step) {
		if !sh.table.CloseSome(sh.releasing[0], step, &sh.grants) {
			sh.releasing[0], sh.releasing = nil, sh.releasing[1:]
		}
	}
	sh.awaitRest()
}

// releasesMore reports whether releaseMore has something to do.
func (sh *shard) releasesMore() bool {
	return len(sh.releasing) > 0 && sh.table.Rest(sh.releasing[0]) == 0
}

// releaseRemote frees what a session of another loop holds here, and ends its wait. The session has ended.
func (sh *shard) releaseRemote(o *remoteOwner) {
	if o.cancel {
		sh.cancel(&o.session.request, o.wait)
	}
	sh.release(&o.owner)
}
