package server

import (
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// place is a place in a line. A place of another daemon, and a try of ours that is not decided, stands in the table itself.
//
//	ours   joining ──► try ──► stands ──► leaving ──► gone
//	          │         └───────────────────┴──────────▲
//	          └──► stands
//
// Only a place that stands has clients behind it.
type place struct {
	fleet.Place
	line     *line
	ours     bool
	try      bool // and nothing is decided yet
	leaving  bool // it was left, or refused
	inTable  bool
	revision uint64
	asked    []*asked // of a try of ours

	owner  lockmgr.Owner  // Tag: the place
	waiter lockmgr.Waiter // Tag: the place
}

// placeSize is what a place takes in memory, in bytes.
const placeSize = 240

var (
	_ holder = (*place)(nil)
	_ queued = (*place)(nil)
)

func (l *line) newPlace(name fleet.Place, try bool) *place {
	p := &place{line: l, Place: name, try: try}
	p.owner.Tag, p.waiter.Tag = p, p
	p.owner.SetApart()
	return p
}

// stands reports whether it is a place of ours behind which clients can stand.
func (p *place) stands() bool { return p.ours && !p.try && !p.leaving }

// isUsedUp reports whether the fencing tokens of a place run out.
func (p *place) isUsedUp() bool {
	return p.line.under == p.revision && p.line.number >= p.line.lines.perPlace
}

// ours returns the first place that stands; nil if there is none. If a client is granted the key, it is by that place.
func (l *line) ours() *place {
	for _, p := range l.places {
		if p.stands() {
			return p
		}
	}
	return nil
}

// apply takes a change from the store.
func (ls *lines) apply(c *keyChange) {
	l := ls.byKey[string(c.Key)]
	switch {
	case l != nil:
	case c.Gone:
		return
	default:
		l = ls.open(c.Key, c.hash)
	}
	ls.latest = l
	if c.Gone {
		l.gone(c.Place)
	} else {
		l.come(&c.Change)
	}
	if ls.session == nil {
		return
	}
	l.settle()
	l.admit()
	l.join()
	l.closeUnused()
}

// come adds a place at the end of the line.
func (l *line) come(c *fleet.Change) {
	ls := l.lines
	p := l.joining
	switch {
	case p != nil && p.Place == c.Place:
		l.joining = nil
	case c.Place.Lease == ls.session.Lease(): // we have left it, and it was made once more
		p = l.newPlace(c.Place, false)
		p.ours, p.leaving = true, true
		ls.session.Leave(l.key, p.Seq)
	default:
		p = l.newPlace(c.Place, c.Try)
	}
	p.revision = c.Revision
	l.places = append(l.places, p)
	ls.size += placeSize
	switch {
	case !p.ours:
		l.enter(p)
	case p.leaving:
	case p.try:
		p.asked = l.take(true)
		l.enter(p)
	default:
		l.replaceUsedUp()
		l.admit()
		l.keep()
	}
}

// replaceUsedUp leaves the place right before the last one, which is ours, if it is ours as well and has no more tokens.
func (l *line) replaceUsedUp() {
	if n := len(l.places); n > 1 && l.places[n-2].stands() && l.places[n-2].isUsedUp() {
		l.places[n-2].leave()
	}
}

// admit has the requests stand in line for the key in the table that want to, if the last place is ours: all of them before the first is
// told anything.
func (l *line) admit() {
	sh := l.lines.shard
	if !l.takesClients() {
		return
	}
	for _, a := range l.take(false) {
		r := a.request
		since := r.waiter.Since()
		switch sh.table.Lock(r.owner, &r.waiter, l.hash, l.key, r.mayWait) {
		case lockmgr.Granted:
			a.decide(proto.Locked)
		case lockmgr.Queued:
			r.waiter.SetSince(since)
			a.request, r.timer.Tag = nil, r
			sh.recheck(r)
		default:
			a.decide(held(r))
		}
	}
}

// enter has a place stand in line in the table.
func (l *line) enter(p *place) {
	p.inTable = true
	l.inTable++
	if l.lines.shard.table.Lock(&p.owner, &p.waiter, l.hash, l.key, true) == lockmgr.Granted {
		p.granted(l.lines.shard)
	}
}

// exit takes a place out of the table.
func (l *line) exit(p *place) {
	if !p.inTable {
		return
	}
	p.inTable = false
	l.inTable--
	if sh := l.lines.shard; !sh.table.Cancel(&p.waiter) {
		sh.table.Unlock(&p.owner, l.hash, l.key, &sh.grants)
	}
}

// gone takes a place out of the line.
func (l *line) gone(name fleet.Place) {
	ls := l.lines
	i := slices.IndexFunc(l.places, func(p *place) bool { return p.Place == name })
	if i < 0 {
		return
	}
	p := l.places[i]
	if p.stands() { // nobody but the store can have taken it, and so our lease is gone
		ls.session.Lose()
		ls.session = nil // until we have lost everything: nobody is told anything any more
		return
	}
	l.places = slices.Delete(l.places, i, i+1)
	ls.size -= placeSize
	l.exit(p)
	p.refused()
}

// refused answers the requests of a try: somebody else holds the key.
func (p *place) refused() {
	for _, a := range p.asked {
		if a.request != nil {
			a.decide(held(a.request))
		}
	}
	p.asked = nil
}

// granted says that all places and clients before this one are done.
func (p *place) granted(sh *shard) {
	if p.ours {
		p.decide(sh)
		return
	}
	passed := false
	for _, before := range p.line.places {
		if before == p {
			break
		}
		passed = before.leave() || passed
	}
	if passed {
		sh.journal.passedOn(p.line.key, p)
	}
}

// leave gives up a place of ours that stands, and reports whether it was one.
func (p *place) leave() bool {
	session := p.line.lines.session
	if !p.stands() || session == nil {
		return false
	}
	p.leaving = true
	session.Leave(p.line.key, p.Seq)
	return true
}

// decide decides the requests of a try of ours, whose turn it is. It is an ordinary place afterwards.
func (p *place) decide(sh *shard) {
	l := p.line
	p.try = false
	l.lines.latest = l
	var holder *asked
	for _, a := range p.asked {
		if r := a.request; r != nil && r.kind == proto.Lock && holder == nil {
			holder = a
		}
	}
	p.inTable = false
	l.inTable--
	if holder != nil {
		sh.table.Transfer(&p.owner, holder.request.owner, l.hash, l.key)
	} else {
		sh.table.Unlock(&p.owner, l.hash, l.key, &sh.grants)
	}
	for _, a := range p.asked {
		switch {
		case a.request == nil:
		case a == holder:
			a.decide(proto.Locked)
		case holder != nil:
			a.decide(held(a.request))
		default:
			a.decide(proto.NotLocked)
		}
	}
	p.asked = nil
	l.settle()
	l.admit()
	l.keep()
}

// settle ends the tries if one of our clients holds the key, or it rests here: those of others that come after our place are refused,
// and ours are decided. One that comes before has been decided, or will be, without us: what rests here may have been held by an
// earlier lease of this daemon.
func (l *line) settle() {
	ls := l.lines
	h := ls.shard.table.Find(l.hash, l.key)
	if h.Owner == nil || isPlace(h) || ls.session == nil {
		return
	}
	var here *place // the first that stands
	for _, p := range l.places {
		switch {
		case p.stands() && here == nil:
			here = p
		case !p.try || p.leaving:
		case p.ours:
			p.leaving = true
			ls.session.Leave(l.key, p.Seq)
			l.exit(p)
			p.refused()
		case here != nil:
			p.leaving = true
			ls.session.Refuse(l.key, p.Place, here.Seq)
		}
	}
	for _, a := range l.take(true) {
		a.decide(held(a.request))
	}
}

// peer says whose place it is.
func (p *place) peer() api.Peer { return p.line.lines.shard.server.daemon(p.Lease) }

// party is one that waits for nobody.
func (p *place) party() party { return party{owner: "daemon " + p.String()} }

// known is the daemon whose place it is.
func (p *place) known() *identity { return &identity{about: &about{lease: p.Lease}} }

// wait says since when the place stands there.
func (p *place) wait() (since, timeout time.Duration) { return p.waiter.Since(), 0 }

// ending is never called: it does not close.
func (p *place) ending() reason { return outOfTouch }

// taken is never called: an operator cannot take what is another daemon's.
func (p *place) taken(*shard, int) {}
