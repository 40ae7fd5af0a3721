package server

import (
	"cmp"
	"slices"
	"time"

	"dreadlock/proto"
	"dreadlock/server/api"
)

// A deadlock is a cycle of parties of which each waits for a key that the next one holds. A party is a connection, or all
// connections of one owner: whoever waits on one of them gives back nothing that it holds on the others until that wait is
// over. So a party may wait for several keys at a time, each wait alone holds it up, and any cycle is a deadlock; so is the
// wait of a party for a key that it holds itself, on another connection. Only the wait of a session that holds a key, or has
// an owner who may hold one, can be part of a cycle: these are the suspects.
//
// A cycle begins with a wait, when a key goes to a session whose owner waits elsewhere, or when a session that holds a key
// gets an owner. All three notify the detector.
//
// The loops are looked at one after another, while all of them go on, so the waits of one look may never have been true
// together. What is believed is what two looks have found: the same waits, by their serial numbers, for keys held by the
// same grants, by their tokens, among connections whose owners have not changed. Each of these has lasted from its first
// look to its second, so all of them were true at any time between the two, and so is every cycle of them.

// party is one side of a wait. The same party at two times means that the connection has had the same owner in between.
type party struct {
	connection api.ConnectionID
	owner      string // empty if it has none
	changes    int    // see [identity]
}

// party returns the connection as a party. Safe from any goroutine.
func (s *session) party() party { return s.known().party() }

// party returns who has the identity, as a party.
func (i *identity) party() party {
	if i.about == nil {
		return party{connection: i.connection}
	}
	return party{connection: i.connection, owner: i.about.owner, changes: i.about.changes}
}

// node is a party in the graph: an owner, or a connection that has none.
type node struct {
	owner      string
	connection api.ConnectionID
}

func (p party) node() node {
	if p.owner != "" {
		return node{owner: p.owner}
	}
	return node{connection: p.connection}
}

// waitName identifies a wait among all waits of all connections.
type waitName struct {
	connection api.ConnectionID
	serial     uint32
}

// waitEdge is the wait of a suspect, as one look has found it.
type waitEdge struct {
	waiter  party
	serial  uint32 // of the wait, among those of the waiter
	holder  party
	grant   uint64 // the token of the grant by which the holder has the key
	shard   int    // of the key
	key     string
	since   time.Duration
	who     *identity // of the waiter
	request *request  // of the shard's loop: nobody else may look into it
}

func (e *waitEdge) id() waitName { return waitName{e.waiter.connection, e.serial} }

// same reports whether two looks have found the same wait for the same grant, between the same parties.
func (e *waitEdge) same(o *waitEdge) bool {
	return e.id() == o.id() && e.waiter == o.waiter && e.holder == o.holder && e.grant == o.grant && e.shard == o.shard
}

// byAge compares two waits: -1 if e is the older one. Of waits that began at the same time, that of the older connection is.
func (e *waitEdge) byAge(o *waitEdge) int {
	return cmp.Or(
		cmp.Compare(e.since, o.since),
		cmp.Compare(e.waiter.connection, o.waiter.connection),
		cmp.Compare(e.serial, o.serial),
	)
}

// waitGraph has the waits of one look, or those that two looks have found.
type waitGraph map[waitName]*waitEdge

func (g waitGraph) add(e *waitEdge) { g[e.id()] = e }

// has reports whether all the waits are in the graph.
func (g waitGraph) has(waits []*waitEdge) bool {
	for _, e := range waits {
		if again := g[e.id()]; again == nil || !e.same(again) {
			return false
		}
	}
	return true
}

// and returns the waits that a later look has found again.
func (g waitGraph) and(later waitGraph) waitGraph {
	both := make(waitGraph)
	for id, e := range g {
		if again := later[id]; again != nil && e.same(again) {
			both[id] = e
		}
	}
	return both
}

// suspect adds a request that begins to wait to the suspects of the shard.
func (sh *shard) suspect(r *request) {
	sh.suspects.add(r)
	sh.server.detector.notify()
}

// clear takes a request whose wait is over from the suspects. If it was granted, the owner of its session holds the key from
// now on, and may wait elsewhere for a party that waits for this key.
func (sh *shard) clear(r *request, granted bool) {
	if sh.suspects.remove(r) && granted && r.session.owned() {
		sh.server.detector.notify()
	}
}

// edge returns the wait of a suspect, or nil if it is over, or about to be since the holder has ended, and its session has not
// been told yet.
func (sh *shard) edge(r *request) *waitEdge {
	h := r.waiter.WaitsFor()
	if h.Owner == nil || h.Closed {
		return nil
	}
	return &waitEdge{
		waiter:  r.session.party(),
		serial:  r.serial,
		holder:  holderOf(h).party(),
		grant:   h.Token,
		shard:   sh.index,
		key:     string(h.Key),
		since:   r.waiter.Since(),
		who:     r.session.known(),
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

// breakWait ends the wait of an edge, if it still lasts and is for the same grant of a holder that has not ended, and reports
// whether it did. The request belongs to the shard as long as it is among the suspects.
func (sh *shard) breakWait(e *waitEdge) bool {
	if !slices.Contains(sh.suspects.members, e.request) {
		return false
	}
	r := e.request
	if h := r.waiter.WaitsFor(); r.serial != e.serial || h.Token != e.grant || h.Closed || !sh.cancel(r, waitDeadlock) {
		return false
	}
	sh.server.detector.broken.Add(1)
	sh.answer(r, proto.Deadlock)
	return true
}
