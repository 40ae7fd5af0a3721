package server

import (
	"slices"
	"sort"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// With a lock delay the keys of a session that has ended rest: they go on when the delay has passed since. They stay the owner's
// in the table, which is closed, so that a session with a million keys costs no more than one with a single key. As the delay is
// the same for all, the sessions that have ended first are also the first whose keys go on: one timer serves all of a shard.
//
//	end ──► release ──► releasing ── timer of the first ──► releaseMore ──► next holders
//
// A server that starts does not know who holds keys of the one before. Its delay begins with all keys resting, as those of an unknown
// holder that has ended at the start. One that takes over knows: see [Server.restore].

// In a fleet the store knows what the daemon before may have held: the places of its lease, which lasts longer by the delay than
// anybody may be told. So nothing rests after a start, and what a daemon loses with its lease is kept from all others, also from
// those that start meanwhile.

// beginDelay begins the lock delay of a new shard, which may be 0.
func (sh *shard) beginDelay(d time.Duration) {
	sh.rest.Tag = sh
	switch {
	case d == 0:
		return
	case sh.server.cfg.Fleet != nil || sh.server.inherits:
		sh.table.SetDelay(d, nil)
		return
	}
	sh.unknown.Tag = unknownHolder{}
	sh.table.SetDelay(d, &sh.unknown)
	sh.releasing = append(sh.releasing, &sh.unknown)
	sh.awaitRest()
}

// addReleasing adds an owner that has closed to those whose keys go on later. That is at the end, unless a predecessor has left some
// that rest for longer than the delay is now.
func (sh *shard) addReleasing(o *lockmgr.Owner) {
	d := sh.table.Rest(o)
	at := sort.Search(len(sh.releasing), func(i int) bool { return sh.table.Rest(sh.releasing[i]) > d })
	sh.releasing = slices.Insert(sh.releasing, at, o)
	if at == 0 {
		sh.loop.StopTimer(&sh.rest)
	}
	sh.awaitRest()
}

// awaitRest has the timer run while the first of those who have ended rests.
func (sh *shard) awaitRest() {
	if len(sh.releasing) == 0 || sh.rest.Running() {
		return
	}
	if d := sh.table.Rest(sh.releasing[0]); d > 0 {
		sh.loop.StartTimer(&sh.rest, d)
	}
}

// unknownHolder is whoever held a key before the start.
type unknownHolder struct{}

func (unknownHolder) peer() api.Peer    { return api.Peer{} }
func (unknownHolder) party() party      { return party{} }
func (unknownHolder) taken(*shard, int) {}

var _ holder = unknownHolder{}

// known and ending are never called: there was no grant, and so there are no events.
func (unknownHolder) known() *identity { return &identity{} }
func (unknownHolder) ending() reason   { return clientClosed }

// grantsAt returns when the first keys may be granted after the start; zero if that is at once. The server must serve.
func (srv *Server) grantsAt() time.Time {
	opens := srv.cfg.LockDelay
	if srv.inherits {
		opens = srv.opens
	}
	if opens == 0 || srv.cfg.Fleet != nil {
		return time.Time{}
	}
	return srv.shards[0].loop.Time(opens)
}
