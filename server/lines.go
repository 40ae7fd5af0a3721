package server

import (
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
	"dreadlock/server/api"
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
// A request for which the last place is ours is decided by the table, as without a fleet. All others stand behind a place that
// is under way; there is at most one for a key.

const (
	// keepIdle is for how long a place is kept that no client needs: it costs a round trip to get another one.
	keepIdle = 5 * time.Second
	// maxLines is the number of lines of a shard beyond which idle places are left earlier.
	maxLines = 10_000
	// sweepLines is the number of lines that are looked at, at most, at a time.
	sweepLines = 256
	// tokensPerPlace is how many fencing tokens there are for a place.
	tokensPerPlace = 1 << 20
	// sparedTokens is how many of them are kept for clients that wait already when another place is taken: more than a daemon
	// can have.
	sparedTokens = 1 << 16
)

// lines are the lines of a shard. They belong to its loop.
type lines struct {
	shard   *shard
	session fleet.Session // nil while the server is not in touch with the store
	byKey   map[string]*line
	first   *line         // of the ring of all lines; the next to be swept
	sweeper reactor.Timer // Tag: the lines
	clock   func() time.Duration
}

// line is what is known of the places for a key. It exists while there are any, or somebody asks for one.
type line struct {
	lines      *lines
	key        []byte
	hash       uint64
	next, prev *line
	places     []*place // those that have come and not gone
	joining    *place   // ours, and under way; nil if there is none
	asked      []*asked // requests that need a place that is under way, or the next one
	used       bool     // since it was swept

	// Of the present holder, if that is one of our clients: made when it asks for it.
	grant  uint64 // the token of the table, which names the grant
	token  uint64 // the fencing token
	number uint64 // how many there were under the place with this revision
	under  uint64
}

// place is a place in a line.
type place struct {
	line *line
	fleet.Place
	ours     bool
	try      bool // and nothing is decided yet
	leaving  bool // it was left, or refused
	revision uint64
	asked    []*asked // of a try of ours

	// A place of another daemon, and a try of ours, stands in the table itself.
	owner  lockmgr.Owner  // Tag: the place
	waiter lockmgr.Waiter // Tag: the place
}

// asked is a request that needs a place.
type asked struct {
	request *request // nil if it needs none any more
	try     bool
}

func newLines(sh *shard, clock func() time.Duration) *lines {
	ls := &lines{shard: sh, byKey: make(map[string]*line), clock: clock}
	ls.sweeper.Tag = ls
	return ls
}

// execute does what a request asks for, as far as our places allow.
func (ls *lines) execute(r *request) proto.Reply {
	sh := ls.shard
	l := ls.byKey[string(r.key)]
	h := sh.table.Find(r.hash, r.key)
	if l == nil {
		l = ls.open(r)
	}
	l.used = true
	switch {
	case h.Owner == r.owner:
		if r.kind == proto.Fence {
			return l.fence(r, h)
		}
	case r.kind == proto.Lock && r.timeout > 0 && r.mayWait:
		if len(l.asked) > 0 || !l.isLast() {
			return l.ask(r, false)
		}
	case h.Owner != nil && !isPlace(h): // one of our clients holds it
	case !l.isFirst():
		return l.ask(r, true)
	}
	return sh.decide(r)
}

// isPlace reports whether a key is held by a place, and not by one of our clients.
func isPlace(h lockmgr.Holding) bool {
	_, ok := h.Owner.Tag.(*place)
	return ok
}

// isLast reports whether clients can stand at the end of the line: the last place is ours.
func (l *line) isLast() bool {
	n := len(l.places)
	return n > 0 && l.places[n-1].stands() && !l.places[n-1].isUsedUp()
}

// isUsedUp reports whether the fencing tokens of a place run out.
func (p *place) isUsedUp() bool {
	return p.line.under == p.revision && p.line.number >= tokensPerPlace-sparedTokens
}

// isFirst reports whether what the table says of the key is so: the first place is ours.
func (l *line) isFirst() bool { return len(l.places) > 0 && l.places[0].stands() }

// stands reports whether it is a place of ours in which clients can stand.
func (p *place) stands() bool { return p.ours && !p.try && !p.leaving }

// open adds a line for the key of a request.
func (ls *lines) open(r *request) *line { return ls.openFor(r.key, r.hash) }

func (ls *lines) openFor(key []byte, hash uint64) *line {
	l := &line{lines: ls, key: append([]byte(nil), key...), hash: hash}
	if ls.first == nil {
		ls.first, l.next, l.prev = l, l, l
		ls.shard.loop.StartTimer(&ls.sweeper, keepIdle)
	} else {
		l.next, l.prev = ls.first, ls.first.prev
		l.prev.next, l.next.prev = l, l
	}
	ls.byKey[string(l.key)] = l
	if len(ls.byKey) > maxLines {
		for range 2 {
			oldest := ls.first
			ls.first = oldest.next
			oldest.rest(true)
		}
	}
	return l
}

// all yields all lines; nothing may be added or removed.
func (ls *lines) all(yield func(*line) bool) {
	for l := ls.first; l != nil; l = l.next {
		if !yield(l) || l.next == ls.first {
			return
		}
	}
}

// closeUnused forgets a line that nobody needs.
func (l *line) closeUnused() {
	ls := l.lines
	if len(l.places) > 0 || l.joining != nil || len(l.asked) > 0 {
		return
	}
	delete(ls.byKey, string(l.key))
	if l.next == l {
		ls.first = nil
		ls.shard.loop.StopTimer(&ls.sweeper)
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	if ls.first == l {
		ls.first = l.next
	}
}

// ask has a request stand behind a place that is to come.
func (l *line) ask(r *request, try bool) proto.Reply {
	a := &asked{request: r, try: try}
	r.asked = a
	l.asked = append(l.asked, a)
	r.waited = true
	if !try {
		l.lines.shard.beginWait(r)
	}
	l.join()
	return pending
}

// join asks for a place if requests need one and none is under way.
func (l *line) join() {
	session := l.lines.session
	for len(l.asked) > 0 && l.asked[0].request == nil {
		l.asked = l.asked[1:]
	}
	if l.joining != nil || session == nil || len(l.asked) == 0 {
		return
	}
	try := l.asked[0].try
	l.joining = l.newPlace(fleet.Place{Lease: session.Lease(), Seq: session.Join(l.key, try)}, try)
	l.joining.ours = true
}

func (l *line) newPlace(name fleet.Place, try bool) *place {
	p := &place{line: l, Place: name, try: try}
	p.owner.Tag, p.waiter.Tag = p, p
	return p
}

// withdraw takes a request out of the line that has not come to a place yet, and reports whether it was there.
func (ls *lines) withdraw(r *request) bool {
	if r.asked == nil {
		return false
	}
	r.asked.request, r.asked = nil, nil
	return true
}

// apply takes a change from the store.
func (ls *lines) apply(c *keyChange) {
	l := ls.byKey[string(c.Key)]
	if l == nil {
		l = ls.openFor(c.Key, c.hash)
	}
	if c.Gone {
		l.gone(c.Place)
	} else {
		l.come(&c.Change)
	}
	l.settle()
	l.join()
	l.closeUnused()
}

// come adds a place at the end of the line.
func (l *line) come(c *fleet.Change) {
	p, session := l.joining, l.lines.session
	switch {
	case p != nil && p.Place == c.Place:
		l.joining = nil
	case c.Place.Lease == session.Lease(): // we have left it, and it was made once more
		p = l.newPlace(c.Place, false)
		p.ours, p.leaving = true, true
		session.Leave(l.key, p.Seq)
	default:
		p = l.newPlace(c.Place, c.Try)
	}
	p.revision = c.Revision
	l.places = append(l.places, p)
	switch {
	case !p.ours:
		l.enter(p)
	case p.leaving:
	case p.try:
		p.asked = l.take(true)
		l.enter(p)
	default:
		l.replaceUsedUp()
		for _, a := range l.take(false) {
			if a.request != nil {
				l.stand(a.request)
			}
		}
	}
}

// replaceUsedUp leaves the place right before the last one, which is ours, if it is ours as well and has no more tokens.
func (l *line) replaceUsedUp() {
	if n := len(l.places); n > 1 && l.places[n-2].stands() && l.places[n-2].isUsedUp() {
		l.places[n-2].leave()
	}
}

// take returns the requests, of one kind, that have asked for the place that has come, in their order.
func (l *line) take(try bool) (all []*asked) {
	n := 0
	for ; n < len(l.asked) && (l.asked[n].request == nil || l.asked[n].try == try); n++ {
		if a := l.asked[n]; a.request != nil {
			all = append(all, a)
		}
	}
	l.asked = l.asked[n:]
	return all
}

// stand has a request that has come to a place stand in line for its key in the table.
func (l *line) stand(r *request) {
	sh := l.lines.shard
	r.asked = nil
	if sh.table.Lock(r.owner, &r.waiter, l.hash, l.key, true) == lockmgr.Granted {
		r.granted(sh)
	}
}

// enter has a place stand in line in the table.
func (l *line) enter(p *place) {
	if l.lines.shard.table.Lock(&p.owner, &p.waiter, l.hash, l.key, true) == lockmgr.Granted {
		p.granted(l.lines.shard)
	}
}

// gone takes a place out of the line.
func (l *line) gone(name fleet.Place) {
	for i, p := range l.places {
		if p.Place != name {
			continue
		}
		if p.stands() { // nobody but the store can have taken it, and so our lease is gone
			l.lines.session.Lose()
			l.lines.session = nil // until we have lost everything: nobody is told anything any more
			return
		}
		l.places = append(l.places[:i:i], l.places[i+1:]...)
		l.exit(p)
		if p.ours && p.try {
			l.refused(p)
		}
		return
	}
}

// exit takes a place out of the table.
func (l *line) exit(p *place) {
	sh := l.lines.shard
	if !sh.table.Cancel(&p.waiter) {
		sh.table.Unlock(&p.owner, l.hash, l.key, &sh.grants) // does nothing unless it holds the key
	}
}

// refused answers the requests of a try: another daemon's client holds the key.
func (l *line) refused(p *place) {
	for _, a := range p.asked {
		if r := a.request; r != nil {
			r.asked = nil
			l.lines.shard.answer(r, held(r))
		}
	}
	p.asked = nil
}

// held is the answer to a try, an unlock or a fence when somebody else holds the key.
func held(r *request) proto.Reply {
	switch {
	case r.kind != proto.Lock:
		return proto.NotOwner
	case r.timeout > 0:
		return cancelled // it would wait, and its input has ended
	}
	return proto.TimedOut
}

// granted says that all places and clients before this one are done.
func (p *place) granted(sh *shard) {
	if p.ours {
		p.decide(sh)
		return
	}
	for _, before := range p.line.places {
		if before == p {
			return
		}
		before.leave()
	}
}

// peer says whose place it is.
func (p *place) peer() api.Peer { return api.Peer{Address: "daemon " + p.String()} }

// party is one that waits for nobody.
func (p *place) party() party { return party{owner: "daemon " + p.String()} }

// wait says nothing: only the other daemon knows its clients.
func (p *place) wait() (since, timeout time.Duration) { return p.line.lines.shard.loop.Now(), 0 }

// leave gives up a place of ours.
func (p *place) leave() {
	if session := p.line.lines.session; !p.leaving && p.ours && session != nil {
		p.leaving = true
		session.Leave(p.line.key, p.Seq)
	}
}

// decide answers the requests of a try of ours, whose turn it is. It is an ordinary place afterwards.
func (p *place) decide(sh *shard) {
	l := p.line
	p.try = false
	l.used = true
	all := p.asked
	p.asked = nil
	var holder *request
	for _, a := range all {
		if r := a.request; r != nil && r.kind == proto.Lock && holder == nil {
			holder = r
		}
	}
	if holder != nil {
		sh.table.Transfer(&p.owner, holder.owner, l.hash, l.key)
	} else {
		sh.table.Unlock(&p.owner, l.hash, l.key, &sh.grants)
	}
	for _, a := range all {
		r := a.request
		switch {
		case r == nil:
			continue
		case r == holder:
			sh.answerAsked(r, proto.Locked)
		case holder != nil:
			sh.answerAsked(r, held(r))
		default:
			sh.answerAsked(r, proto.NotLocked)
		}
	}
	l.settle()
}

// answerAsked answers a request that stood behind a try.
func (sh *shard) answerAsked(r *request, a proto.Reply) {
	r.asked = nil
	sh.answer(r, a)
}

// settle ends the tries if one of our clients holds the key: those of others are refused, and ours are left.
func (l *line) settle() {
	session := l.lines.session
	h := l.lines.shard.table.Find(l.hash, l.key)
	if h.Owner == nil || isPlace(h) || session == nil {
		return
	}
	var here *place
	for _, p := range l.places {
		switch {
		case p.stands() && here == nil:
			here = p
		case !p.try || p.leaving:
		case p.ours:
			p.leave()
			l.exit(p)
			l.refused(p)
		default:
			p.leaving = true
			session.Refuse(l.key, p.Place, here.Seq)
		}
	}
}

// fence finds the token of a grant, and makes it if this is the first time.
func (l *line) fence(r *request, h lockmgr.Holding) proto.Reply {
	if l.grant != h.Token {
		l.grant = h.Token
		l.token = l.nextToken()
	}
	r.token = l.token
	return proto.Token
}

func (l *line) nextToken() uint64 {
	for _, p := range l.places {
		if p.stands() {
			if l.under != p.revision {
				l.under, l.number = p.revision, 0
			}
			break
		}
	}
	l.number++
	return l.under*tokensPerPlace + l.number
}

// lose forgets everything that the store has said. The clients end for themselves.
func (ls *lines) lose() {
	ls.shard.deliverAll()
	ls.session = nil
	for l := range ls.all {
		for _, p := range slices.Backward(l.places) { // so that none is granted the key
			l.exit(p)
			p.asked = nil
		}
		l.places, l.joining, l.asked = nil, nil, nil
	}
	clear(ls.byKey)
	if ls.first != nil {
		ls.first = nil
		ls.shard.loop.StopTimer(&ls.sweeper)
	}
}

// sweep looks at some lines, and leaves the places that nobody has needed since the last look.
func (ls *lines) sweep() {
	n := min(len(ls.byKey), sweepLines)
	all := len(ls.byKey)
	for range n {
		l := ls.first
		ls.first = l.next
		l.rest(false)
	}
	if ls.first != nil {
		ls.shard.loop.StartTimer(&ls.sweeper, keepIdle*time.Duration(n)/time.Duration(all))
	}
}

// rest leaves the places of a line that nobody needs, unless somebody did since it was last asked; or at once.
func (l *line) rest(atOnce bool) {
	idle := len(l.asked) == 0 && l.lines.shard.table.Find(l.hash, l.key).Owner == nil
	switch {
	case !idle:
		l.used = true
	case l.used && !atOnce:
		l.used = false
	default:
		for _, p := range l.places {
			if p.stands() {
				p.leave()
			}
		}
	}
}

// mayTell reports whether a client may be told now that it holds a key.
func (ls *lines) mayTell() bool { return ls.session != nil && ls.clock() < ls.session.Until() }
