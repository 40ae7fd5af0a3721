package server

import (
	"context"
	"runtime/debug"
	"time"
)

// The keeper is a goroutine that looks after the memory of the whole server while there is something to look after: it tells
// the loops when the level has changed, since one that nobody talks to would not notice, and gives memory back to the system
// after a flood.

const (
	// keepEvery is the time between two looks of the keeper while memory is scarce, or about to be given back.
	keepEvery = 100 * time.Millisecond
	// minGiveBack is how many bytes less than before must be in use for memory to be given back: for less the collection that
	// this takes is not worth it, and the runtime gives it back by itself, within minutes.
	minGiveBack = 16 << 20
	// giveBackAfter is the time for which nothing may have been given up, before that is given back to the system.
	giveBackAfter = time.Second
	// giveBackWithin is the time after which it is given back all the same.
	giveBackWithin = 5 * time.Second
)

// keepMemory runs until ctx is done.
func (srv *Server) keepMemory(ctx context.Context) {
	applied := roomy
	var back giveBack
	var report shortage
	for {
		if !srv.budget.await(ctx, applied > roomy || back.pending() || report.said) {
			return
		}
		srv.budget.settle()
		now := srv.budget.now()
		if now != applied {
			applied = now
			_, _ = eachShard(ctx, srv, srv.shards, func(*shard, *struct{}) bool { return false }) // its EndTurn applies the level
		}
		if report.changes(now, time.Now()) {
			srv.report(&report)
		}
		if back.due(srv.budget, time.Now()) {
			_, _ = eachShard(ctx, srv, srv.shards, (*shard).trim)
			debug.FreeOSMemory()
		}
	}
}

// await waits for a change, or if busy until it is time for another look. It returns false when ctx is done.
func (b *budget) await(ctx context.Context, busy bool) bool {
	var look <-chan time.Time
	if busy {
		timer := time.NewTimer(keepEvery)
		defer timer.Stop()
		look = timer.C
	}
	select {
	case <-b.changed:
	case <-look:
	case <-ctx.Done():
		return false
	}
	return ctx.Err() == nil
}

// shortage is what the log says of the memory: at once that it is used up, and that it is not any more when that has lasted for
// calmTime. So a server that stays at its limit and goes back and forth says so once, and not again and again.
type shortage struct {
	said bool      // that the memory is used up
	last time.Time // when it was so
}

// calmTime is the time for which the memory must not have been used up, before the log says that there is some again.
const calmTime = 10 * time.Second

// changes takes note of the level and reports whether the log has to say something else now.
func (s *shortage) changes(l level, now time.Time) bool {
	if l >= full {
		s.last = now
	}
	if s.said == (l >= full) || s.said && now.Sub(s.last) < calmTime {
		return false
	}
	s.said = !s.said
	return true
}

// report says whether the memory is used up.
func (srv *Server) report(s *shortage) {
	event := srv.cfg.Log.Info()
	text := "there is memory again: locks and connections are served as before"
	if s.said {
		event = srv.cfg.Log.Warn()
		text = "the memory is used up: locks are answered \"e out of memory\", and connections refused, until some is free; " +
			"raise --max-memory, or look for clients that take too much"
	}
	event.Int64("memory_bytes", srv.budget.reserved.Load()).Int64("memory_limit_bytes", srv.budget.limit).Msg(text)
}

// giveBack says when memory is given back to the system: once after it was given up.
type giveBack struct {
	since time.Time // when less than before was in use for the first time; zero if it is not pending
	last  time.Time // when that last became less
	least int64     // that was in use since
}

func (g *giveBack) pending() bool { return !g.since.IsZero() }

// due reports whether it is time, and begins anew if so.
func (g *giveBack) due(b *budget, now time.Time) bool {
	used := b.reserved.Load()
	if b.peak.Load()-used < minGiveBack {
		*g = giveBack{}
		return false
	}
	if !g.pending() {
		*g = giveBack{since: now, last: now, least: used}
	}
	if used < g.least {
		g.least, g.last = used, now
	}
	if now.Sub(g.last) < giveBackAfter && now.Sub(g.since) < giveBackWithin {
		return false
	}
	b.peak.Store(used)
	*g = giveBack{}
	return true
}

// trim is a loop task: it gives up what the loop keeps for reuse.
func (sh *shard) trim(*struct{}) (more bool) {
	sh.table.Trim()
	sh.roster.trim()
	return false
}
