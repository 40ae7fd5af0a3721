package server

import (
	"cmp"
	"slices"
	"time"

	"dreadlock/lockmgr"
)

// restoreLoop fills the table of a shard, and has its timers and turns go on.
func (h *heir) restoreLoop(sh *shard) error {
	l := &h.loops[sh.index]
	sh.table.Advance(h.now)
	if err := h.restoreTable(sh, l); err != nil {
		return err
	}
	for _, r := range l.waits {
		if r.session.remoteShard != noShard {
			r.session.sentAt = r.waiter.Since()
		}
		sh.loop.StartTimer(&r.timer, max(r.timeout-(sh.loop.Now()-r.waiter.Since()), 0))
		if r.suspicious {
			sh.suspect(r)
		}
	}
	if l.lines != nil {
		l.lines.begin(h.sweepsAt())
		if err := sh.lines.verify(); err != nil {
			return badEstate("%w", err)
		}
	}
	l.size = estateSize{
		Sessions: sh.roster.sessions.len(), Keys: sh.table.Keys(), Resting: sh.table.Resting(), Waiters: sh.table.Waiters(),
	}
	l.digest.addTable(sh.table)
	sh.restoreTurns(l.sessions)
	return nil
}

// restoreTable fills the table of a shard.
func (h *heir) restoreTable(sh *shard, l *loopHeir) error {
	if l.unknown || h.estate.Opens > h.now {
		if sh.lines != nil {
			return badEstate("keys of a fleet have an unknown holder")
		}
		sh.unknown.Tag = unknownHolder{}
		sh.table.RestoreUnknown(&sh.unknown, h.estate.Opens)
	}
	if err := sh.table.Restore(l.keys, h.estate.NextToken); err != nil {
		return badEstate("%w", err)
	}
	type resting struct {
		owner *lockmgr.Owner
		until time.Duration
	}
	var all []resting
	if sh.unknown.Closed() {
		all = append(all, resting{&sh.unknown, h.estate.Opens})
	}
	for _, f := range l.formers {
		if err := sh.table.RestoreFormer(&f.owner, f.ended, f.until); err != nil {
			return badEstate("%w", err)
		}
		all = append(all, resting{&f.owner, f.until})
	}
	slices.SortStableFunc(all, func(a, b resting) int { return cmp.Compare(a.until, b.until) })
	for _, r := range all {
		sh.releasing = append(sh.releasing, r.owner)
	}
	sh.awaitRest()
	return nil
}

// restoreTurns has those sessions of a loop go on that have something to do, in the order of before as far as they had one.
func (sh *shard) restoreTurns(all []*newcomerHeir) {
	ro := sh.roster
	var turns []*newcomerHeir
	for _, n := range all {
		s := n.session
		switch {
		case s.outstanding > 0:
			if s.conn.Paused() {
				ro.search.begin()
			}
		case s.phase < ended && s.pending.len() > 0 && (!s.stalled || s.conn.Unsent() == 0):
			turns = append(turns, n)
		}
	}
	slices.SortStableFunc(turns, func(a, b *newcomerHeir) int { return cmp.Compare(uint(a.left.Turn-1), uint(b.left.Turn-1)) })
	for _, n := range turns {
		ro.turns.add(n.session)
	}
	ro.throttle.begin() // what holds a client back here may be another thing than before
}
