package server

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/fleet"
)

// In a fleet a key of a shard may be another daemon's. The line of a key is what is known of the places that the daemons have
// in the store, in their order. The lock table has the same order: our clients stand where our places are, and a place of
// another daemon is one more owner and waiter.
//
//	places   ours       another's   ours
//	table    a  b  c    (place)     d  e
//
// So the table grants a key to one of our clients exactly when all places before ours are gone, and to another's place when our
// clients before it are done. Then ours are left, which is how the other daemon gets the key.
//
// A request that the table cannot decide stands behind a place that is to come; at most one is under way for a key. A lock that may
// wait joins the line. Everything else is a try: a place that the daemon whose client holds the key refuses.
//
// Nothing here answers a request while another one is executed: what was decided is told at the end, by tell.

// lines are the lines of a shard. They belong to its loop.
type lines struct {
	shard    *shard
	session  fleet.Session // nil while the server is not in touch with the store, or is about to lose touch
	byKey    map[string]*line
	latest   *line   // that was used last, nil for none: most grants are made in it
	kept     []*line // those with a place of ours, the one first that was looked at longest ago; see kept.go
	maxKept  int
	perPlace uint64        // see grantsPerPlace
	sweeper  reactor.Timer // Tag: the lines. Running while any are kept
	sweepsAt time.Duration // when it is due, while it runs
	clock    func() time.Duration
	decided  []decision // not told yet
	size     int64      // in bytes, what the lines and their places take beside the table
	tries    uint64     // how many were made
}

// line is what is known of the places for a key. It exists while there are any, or somebody asks for one.
type line struct {
	lines   *lines
	key     []byte
	hash    uint64
	places  []*place // those that have come and not gone
	inTable int      // those of them that stand in the table
	joining *place   // ours, and under way; nil if there is none
	asked   []*asked // requests that need a place that is under way, or the next one
	dropped int      // those of them that need none any more
	waiters int      // those of them that need one and are no tries
	isKept  bool     // it is among the kept
	used    bool     // since it was looked at

	// The grants under one of our places count up: see token.
	under  uint64 // its revision
	number uint64
}

// asked is a request that needs a place.
type asked struct {
	request *request // nil if it needs none any more
	line    *line
	try     bool
}

// decision is a request that the store has decided, and its answer.
type decision struct {
	request *request
	try     bool
	answer  proto.Reply
}

// tryTime bounds how long a try takes: if the store does not answer, the key is taken to be somebody's.
const tryTime = 5 * time.Second

// lineSize is what a line takes in memory beside its key and its places, in bytes.
const lineSize = 216

func newLines(sh *shard, clock func() time.Duration) *lines {
	ls := &lines{shard: sh, byKey: make(map[string]*line), clock: clock, maxKept: maxKept / sh.server.cfg.Loops, perPlace: grantsPerPlace}
	ls.sweeper.Tag = ls
	sh.table.SetTokens(ls.token)
	return ls
}

// behind returns how the request stands behind a place that is to come; nil if it does not.
func (r *request) behind() *asked {
	a, _ := r.timer.Tag.(*asked)
	return a
}

// execute does what a request asks for, as far as our places allow.
func (ls *lines) execute(r *request) proto.Reply {
	sh := ls.shard
	h := sh.table.Find(r.hash, r.key)
	if h.Owner == r.owner {
		return sh.decide(r)
	}
	if r.kind == proto.Lock {
		if limit := sh.lockLimit(r); limit != noLimit {
			return sh.refuse(r, limit)
		}
	}
	l := ls.byKey[string(r.key)]
	if l != nil {
		l.used = true
		ls.latest = l
	}
	if r.kind == proto.Lock && r.timeout > 0 && r.mayWait {
		if l != nil && l.takesClients() {
			return sh.decide(r)
		}
		return ls.ask(r, l, false)
	}
	if r.kind == proto.Lock && l != nil && l.waiters > 0 {
		return held(r) // they have asked before
	}
	if l.decides(h) {
		return sh.decide(r)
	}
	return ls.ask(r, l, true)
}

// isPlace reports whether a key is held by a place, and not by one of our clients.
func isPlace(h lockmgr.Holding) bool {
	_, ok := h.Owner.Tag.(*place)
	return ok
}

// takesClients reports whether clients can stand at the end of the line: the last place is ours.
func (l *line) takesClients() bool {
	n := len(l.places)
	return n > 0 && l.lines.session != nil && l.places[n-1].stands() && !l.places[n-1].isUsedUp()
}

// decides reports whether what the table says of the key of a line, which may be nil, is so for the whole fleet: one of our
// clients holds it, or it rests here, or a place of ours stands. Then it is free if the table says so, and otherwise those before
// that place have it, or are about to hand it over.
func (l *line) decides(h lockmgr.Holding) bool {
	if h.Owner != nil && !isPlace(h) {
		return true
	}
	return l != nil && l.lines.session != nil && l.ours() != nil
}

// open adds a line.
func (ls *lines) open(key []byte, hash uint64) *line {
	l := &line{lines: ls, key: slices.Clone(key), hash: hash}
	ls.byKey[string(l.key)] = l
	ls.size += l.size()
	return l
}

func (l *line) size() int64 { return lineSize + 2*int64(len(l.key)) } // the map has its own copy

// closeUnused forgets a line that nobody needs.
func (l *line) closeUnused() {
	if len(l.places) > 0 || l.joining != nil || len(l.asked) > l.dropped {
		return
	}
	ls := l.lines
	delete(ls.byKey, string(l.key))
	ls.size -= l.size()
	if ls.latest == l {
		ls.latest = nil
	}
}

// sorted returns all lines, in an order that depends on nothing but their keys.
func (ls *lines) sorted() []*line {
	all := make([]*line, 0, len(ls.byKey))
	for _, key := range slices.Sorted(maps.Keys(ls.byKey)) {
		all = append(all, ls.byKey[key])
	}
	return all
}

// ask has a request stand behind a place that is to come. There may be no line yet.
func (ls *lines) ask(r *request, l *line, try bool) proto.Reply {
	if l == nil {
		l = ls.open(r.key, r.hash)
	}
	a := &asked{request: r, line: l, try: try}
	r.timer.Tag = a
	r.waited = true
	r.waiter.SetSince(ls.shard.loop.Now())
	l.asked = append(l.asked, a)
	if try {
		ls.shard.loop.StartTimer(&r.timer, tryTime)
	} else {
		l.waiters++
		ls.shard.beginWait(r)
	}
	l.join()
	return pending
}

// join asks for a place if requests need one and none is under way.
func (l *line) join() {
	ls := l.lines
	if l.joining != nil || ls.session == nil || len(l.asked) == l.dropped {
		return
	}
	first := slices.IndexFunc(l.asked, func(a *asked) bool { return a.request != nil })
	try := l.asked[first].try
	if try {
		ls.tries++
	}
	l.joining = l.newPlace(fleet.Place{Lease: ls.session.Lease(), Seq: ls.session.Join(l.key, try)}, try)
	l.joining.ours = true
}

// take takes the requests that have asked for a place of the kind that has come, in their order.
func (l *line) take(try bool) (all []*asked) {
	l.asked = slices.DeleteFunc(l.asked, func(a *asked) bool {
		if a.request != nil && a.try != try {
			return false
		}
		if a.request != nil {
			all = append(all, a)
		}
		return true
	})
	l.dropped = 0
	if !try {
		l.waiters = 0
	}
	return all
}

// withdraw takes a request from behind a place that has not decided it yet.
func (a *asked) withdraw() {
	a.request, a.request.timer.Tag = nil, a.request
	l := a.line
	if slices.Contains(l.asked, a) {
		l.dropped++
		if !a.try {
			l.waiters--
		}
		if l.dropped > len(l.asked)/2 {
			l.asked, l.dropped = slices.DeleteFunc(l.asked, func(a *asked) bool { return a.request == nil }), 0
		}
		l.closeUnused()
	}
}

// endInput takes note that the input of the session has ended. It reports whether the request stands behind a place that is to come, which
// says whether it has to wait for others, and so ends.
func (r *request) endInput() bool {
	if r.behind() == nil {
		return false
	}
	r.mayWait = false
	return true
}

// expire ends a request that has stood behind a place for too long.
func (a *asked) expire(sh *shard) {
	r := a.request
	a.withdraw()
	if a.try {
		sh.answer(r, held(r))
		return
	}
	sh.timedOut(a.line.key, r)
}

// held is the answer to a request that does not wait, or must not, when somebody else holds the key.
func held(r *request) proto.Reply {
	switch {
	case r.kind != proto.Lock:
		return proto.NotOwner
	case r.timeout > 0:
		return cancelled // it would wait, and its input has ended
	}
	return proto.TimedOut
}

// decide has a request answered by tell: it does not stand behind a place any more.
func (a *asked) decide(answer proto.Reply) {
	r := a.request
	a.request, r.timer.Tag = nil, r
	a.line.lines.decided = append(a.line.lines.decided, decision{r, a.try, answer})
}

// tell answers what was decided. The sessions that hear it may go on with anything, so this is done when nothing else is under way.
func (ls *lines) tell() {
	sh := ls.shard
	for len(ls.decided) > 0 && !sh.closed {
		d := ls.decided[0]
		ls.decided = ls.decided[1:]
		sh.loop.StopTimer(&d.request.timer)
		switch {
		case d.try:
		case d.answer == proto.Locked:
			sh.counters.grants++
			sh.endWait(d.request, waitLocked)
		default:
			sh.endWait(d.request, waitLost)
		}
		sh.answer(d.request, d.answer)
	}
	if len(ls.decided) == 0 {
		ls.decided = nil
	}
}

// token returns the fencing token of a grant: it goes by the place under which the grant is made, as all daemons see the places in
// one order, and by the number of the grant under that.
func (ls *lines) token(key []byte, o *lockmgr.Owner) uint64 {
	if p, ok := o.Tag.(*place); ok {
		return p.revision * tokensPerPlace
	}
	l := ls.latest
	if l == nil || string(l.key) != string(key) {
		l = ls.byKey[string(key)]
	}
	var here *place
	if l != nil {
		here = l.ours()
	}
	if here == nil {
		panic(fmt.Sprintf("server: the key %q is granted to a client, and there is no place for it", key))
	}
	if l.under != here.revision {
		l.under, l.number = here.revision, 0
	}
	l.number++
	return l.under*tokensPerPlace + l.number
}

const (
	// tokensPerPlace is how many fencing tokens there are for a place.
	tokensPerPlace = 1 << 20
	// grantsPerPlace is the number of grants after which another place is taken. The rest is for clients that wait already then: they
	// are less than a daemon can have.
	grantsPerPlace = tokensPerPlace - 1<<17
)

// mayTell reports whether a client may be told now that it holds a key.
func (ls *lines) mayTell() bool { return ls.session != nil && ls.clock() < ls.session.Until() }
