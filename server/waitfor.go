package server

import (
	"net/netip"
	"time"

	"dreadlock/proto"
	"dreadlock/server/api"
)

// A deadlock is a cycle of sessions of which each waits for a key that the next one holds. As a session waits for one
// key at a time, it can be part of one cycle at most, and to find the cycles is to follow the waits. Only who holds a key
// while it waits can be part of one: these are the suspects.
//
// The loops are looked at one after another, while all of them go on, so the waits of one look may never have been true
// together. A cycle is believed when two looks have found all of its waits, with the same serial numbers, for keys that
// were held by the same grants. Then each of them has lasted from its first look to its second, and all of them were true
// at any time between the two: the cycle is real.

// waitEdge is a wait of a suspect, as one look has found it.
type waitEdge struct {
	waiter  api.ConnectionID
	serial  uint64 // of the wait, among those of the waiter
	holder  api.ConnectionID
	grant   uint64 // the token of the grant by which the key is held
	shard   int    // of the key
	key     string
	since   time.Duration
	address netip.AddrPort // of the waiter
	request *request       // of the shard's loop: nobody else may look into it
}

// same reports whether two looks have found the same wait for the same grant.
func (e *waitEdge) same(o *waitEdge) bool {
	return e.waiter == o.waiter && e.serial == o.serial && e.holder == o.holder && e.grant == o.grant && e.shard == o.shard
}

// waitGraph has the waits of one look, by who waits.
type waitGraph map[api.ConnectionID]*waitEdge

// cycles returns the cycles of the graph. In each, the holder of a wait is the waiter of the next; the youngest is last.
func (g waitGraph) cycles() (all [][]*waitEdge) {
	walks := make(map[api.ConnectionID]int, len(g)) // by which walk a waiter was met first
	walk := 0
	for start := range g {
		walk++
		e := g[start]
		for e != nil && walks[e.waiter] == 0 {
			walks[e.waiter] = walk
			e = g[e.holder]
		}
		if e != nil && walks[e.waiter] == walk {
			all = append(all, g.cycleAt(e))
		}
	}
	return all
}

// cycleAt returns the cycle that e is part of.
func (g waitGraph) cycleAt(e *waitEdge) (cycle []*waitEdge) {
	youngest := e
	for next := g[e.holder]; next != e; next = g[next.holder] {
		if next.since > youngest.since || next.since == youngest.since && next.waiter > youngest.waiter {
			youngest = next
		}
	}
	for next := g[youngest.holder]; ; next = g[next.holder] {
		cycle = append(cycle, next)
		if next == youngest {
			return cycle
		}
	}
}

// confirms reports whether a later look has found the whole of a cycle again.
func (g waitGraph) confirms(cycle []*waitEdge) bool {
	for _, e := range cycle {
		if again := g[e.waiter]; again == nil || !e.same(again) {
			return false
		}
	}
	return true
}

// suspect adds a request that waits to the suspects of the shard.
func (sh *shard) suspect(r *request) {
	sh.suspects.add(r)
	sh.server.detector.notify()
}

// edge returns the wait of a suspect, nil if it is over and the shard only has not told anybody.
func (sh *shard) edge(r *request) *waitEdge {
	h := r.waiter.WaitsFor()
	if h.Owner == nil {
		return nil
	}
	return &waitEdge{
		waiter:  r.session.id,
		serial:  r.serial,
		holder:  holderOf(h).id,
		grant:   h.Token,
		shard:   sh.index,
		key:     string(h.Key),
		since:   r.since,
		address: r.session.address,
		request: r,
	}
}

// sweep is one look at the suspects of one shard.
type sweep struct {
	suspects bagWalk
	edges    []*waitEdge
}

// step looks at no more than n suspects and reports whether there are more.
func (s *sweep) step(sh *shard, n int) (more bool) {
	return sh.suspects.walk(&s.suspects, n, func(r *request) bool {
		if e := sh.edge(r); e != nil {
			s.edges = append(s.edges, e)
		}
		return true
	})
}

// breakWait ends the wait of an edge, if it still lasts and is for the same grant, and reports whether it did. The request
// is the shard's as long as it is among the suspects.
func (sh *shard) breakWait(e *waitEdge) bool {
	for _, r := range sh.suspects.members {
		if r == e.request {
			if r.serial != e.serial || r.waiter.WaitsFor().Token != e.grant || !sh.cancel(r) {
				return false
			}
			sh.counters.broken++
			sh.answer(r, proto.Deadlock)
			return true
		}
	}
	return false
}
