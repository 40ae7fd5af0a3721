package server

import (
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// eventKind is what has happened.
type eventKind uint8

const (
	eventGranted eventKind = iota
	eventReleased
	eventLost // its reason is a reason
	eventTimeout
	eventKicked
	eventDeadlock
	eventDeadlockOver     // its reason is a deadlockEnd
	eventRefused          // its reason is a barrier
	eventElsewhere        // another daemon of the fleet
	eventKinds        int = iota
)

var eventWords = [eventKinds]string{
	eventGranted:      api.EventGranted,
	eventReleased:     api.EventReleased,
	eventLost:         api.EventLost,
	eventTimeout:      api.EventTimeout,
	eventKicked:       api.EventKicked,
	eventDeadlock:     api.EventDeadlock,
	eventDeadlockOver: api.EventDeadlockOver,
	eventRefused:      api.EventRefused,
	eventElsewhere:    api.EventElsewhere,
}

// deadlockEnd is how a deadlock has ended for one of its waits.
type deadlockEnd uint8

const (
	dissolved deadlockEnd = iota
	wasBroken
)

var deadlockEndWords = [...]string{dissolved: api.DeadlockDissolved, wasBroken: api.DeadlockBroken}

// journal keeps the latest events of one loop. It is written on the way of every command, so it is plain memory that belongs
// to the loop: an event costs a copy, no allocation, no clock and nothing that another loop touches. See history for who
// reads it.
type journal struct {
	loop  loop
	ring  eventRing
	watch *watch
	armed bool  // the next event is to be reported to the watch
	taker *kick // who takes a key from its holder right now, nil for nobody
}

// watch tells whoever collects events that there are new ones.
type watch struct {
	news chan struct{} // has a token if there is an event after a look that wanted to know
}

// notify never blocks.
func (w *watch) notify() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// add adds an event of a client. The key may be nil.
func (j *journal) add(kind eventKind, key []byte, who *identity, now time.Duration) *record {
	rec := j.ring.add(key)
	rec.kind, rec.reason, rec.at, rec.span, rec.token, rec.who, rec.heldBy = kind, 0, now, 0, 0, who, 0
	if j.armed {
		j.armed = false
		j.watch.notify()
	}
	return rec
}

// Granted makes the journal a [lockmgr.Observer].
func (j *journal) Granted(key []byte, o *lockmgr.Owner, token uint64, now time.Duration, w *lockmgr.Waiter) {
	rec := j.add(eventGranted, key, identityOf(o), now)
	rec.token = token
	if w != nil {
		rec.span = max(now-sinceOf(w), 0)
	}
}

// Ended is that of a [lockmgr.Observer].
func (j *journal) Ended(key []byte, o *lockmgr.Owner, token uint64, now, held time.Duration) {
	rec := j.add(eventReleased, key, identityOf(o), now)
	rec.token, rec.span = token, max(held, 0)
	if o.Closed() {
		rec.kind, rec.reason = eventLost, uint8(o.Tag.(holder).ending())
	}
	if j.taker != nil {
		a := rec.who.more()
		a.kick = j.taker
		rec.kind, rec.reason, rec.who = eventLost, uint8(reasons), rec.who.with(a)
	}
}

// passedOn takes note that a key goes on to another daemon of the fleet.
func (j *journal) passedOn(key []byte, p *place) {
	if j != nil {
		j.add(eventElsewhere, key, p.known(), j.loop.Now())
	}
}

// identityOf returns who holds a key.
func identityOf(o *lockmgr.Owner) *identity {
	if s, ok := o.Tag.(*session); ok { // which costs less than to ask for the methods of a holder
		return s.identity.Load()
	}
	return o.Tag.(holder).known()
}

// timedOut takes note of a wait that has ended without a grant.
func (j *journal) timedOut(key []byte, r *request) {
	if j != nil {
		now := j.loop.Now()
		j.add(eventTimeout, key, r.session.known(), now).span = max(now-r.waiter.Since(), 0)
	}
}

// taking says who takes a key from its holder, for as long as take runs.
func (j *journal) taking(by string, take func()) {
	if j != nil {
		j.taker = &kick{by: by}
		defer func() { j.taker = nil }()
	}
	take()
}

// kicked takes note that a session is kicked: its identity says by whom.
func (j *journal) kicked(s *session) {
	if j != nil {
		j.add(eventKicked, nil, s.known(), j.loop.Now())
	}
}

// excerpt is a part of a journal, or of the events outside of the loops, as one look has found it.
type excerpt struct {
	ring eventRing // a copy
	from uint64    // number of its first record in the journal
	all  bool      // the journal has no more
	// upTo is a time: of the events until then none is missing that comes after the excerpt.
	upTo time.Duration
}

// excerptRecords is the number of records that are copied in one turn.
const excerptRecords = 256

func newExcerpt(records int) *excerpt {
	return &excerpt{ring: newEventRing(min(records, excerptRecords))}
}

// read fills the excerpt with what a journal has from a number on, as much as there is room for. now is the time of the journal.
func (e *excerpt) read(r *eventRing, from uint64, now time.Duration) {
	e.ring.clear()
	e.from, e.all = max(from, r.first), false
	for n := e.from; n < r.next; n++ {
		rec := r.at(n)
		if !e.ring.hasRoom(int(rec.keyLength)) {
			return
		}
		e.ring.copyFrom(r, rec)
		e.upTo = rec.at
	}
	e.upTo, e.all = now, true
}

// read fills an excerpt. If it has all that there is, the next event is reported to the watch.
func (j *journal) read(e *excerpt, from uint64) {
	e.read(&j.ring, from, j.loop.Now())
	j.armed = e.all
}
