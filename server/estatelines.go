package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/fleet"
)

// What a server that is one of a fleet hands over besides: the session with the store, and the lines. What places have in the table goes
// over with the table.

// linesLeft are the lines of a loop.
type linesLeft struct {
	Places   []placeLeft // of all lines
	Lines    []lineLeft
	SweepsAt time.Duration // when kept ones are looked at next; 0 if there are none
	Tries    uint64
}

// lineLeft is a line.
type lineLeft struct {
	Key     []byte
	Places  int        // how many of the list of the loop are its own: those after the ones of the lines before
	Joining *placeLeft // ours, and under way
	Asked   []askLeft
	Kept    int // its place among the kept ones, counted from 1; 0 if it is none of them
	Used    bool
	Under   uint64 // see line
	Number  uint64
}

// placeLeft is a place.
type placeLeft struct {
	Lease    int64
	Seq      uint64
	Revision uint64
	Ours     bool
	Try      bool
	Leaving  bool
	InTable  bool
	Asked    []askLeft
}

// askLeft is a request that stands behind a place which is to come.
type askLeft struct {
	Session uint64 // the number of the connection
	Kind    string // the word of the command
	Since   time.Duration
	Timeout time.Duration
	Suspect bool // see waitLeft
	Try     bool
}

// left returns the lines, and the number of each place in the list, counted from 1. Nothing may be left to tell.
func (ls *lines) left() (left *linesLeft, number map[*place]int) {
	if len(ls.decided) > 0 {
		panic(fmt.Sprintf("server: %d decisions are not told", len(ls.decided)))
	}
	left, number = &linesLeft{Tries: ls.tries}, make(map[*place]int)
	kept := make(map[*line]int, len(ls.kept))
	for i, l := range ls.kept {
		kept[l] = i + 1
	}
	for _, l := range ls.sorted() {
		one := lineLeft{
			Key: l.key, Places: len(l.places), Asked: asksLeft(l.asked), Kept: kept[l], Used: l.used, Under: l.under, Number: l.number,
		}
		if one.Kept > 0 {
			left.SweepsAt = ls.sweepsAt
		}
		if l.joining != nil {
			joining := l.joining.left()
			one.Joining = &joining
		}
		for _, p := range l.places {
			left.Places = append(left.Places, p.left())
			number[p] = len(left.Places)
		}
		left.Lines = append(left.Lines, one)
	}
	return left, number
}

func (p *place) left() placeLeft {
	return placeLeft{
		Lease: p.Lease, Seq: p.Seq, Revision: p.revision, Ours: p.ours, Try: p.try, Leaving: p.leaving, InTable: p.inTable,
		Asked: asksLeft(p.asked),
	}
}

func asksLeft(all []*asked) (left []askLeft) {
	for _, a := range all {
		if r := a.request; r != nil {
			left = append(left, askLeft{
				Session: uint64(r.session.id()), Kind: r.kind.String(), Since: r.waiter.Since(), Timeout: r.timeout, Suspect: r.suspicious, Try: a.try,
			})
		}
	}
	return left
}

// linesHeir makes the lines of a shard out of those that the loops of a predecessor have left.
//
//	newLinesHeir ──► addPlaces, for each of the loops before ──► addAsked ──► begin, on the loop
type linesHeir struct {
	*lines
	from map[*line]*lineLeft
	asks map[*place][]askLeft
	// waits are the requests that stand behind a place which is to come.
	waits []*asked
}

// newLinesHeir returns what makes the lines of a new shard. The session is that of the predecessor, nil if it had none.
func newLinesHeir(ls *lines, session fleet.Session) *linesHeir {
	ls.session = session
	return &linesHeir{lines: ls, from: make(map[*line]*lineLeft), asks: make(map[*place][]askLeft)}
}

// addPlaces makes the lines of one loop of the predecessor, as far as their keys are those of the shard. places gets their places by the
// numbers in the list, from 0 on; the others are left as they are. Places that stand in the table are put there by who restores that.
func (h *linesHeir) addPlaces(left *linesLeft, places []*place) error {
	at := 0
	for i := range left.Lines {
		one := &left.Lines[i]
		first := at
		if at += one.Places; one.Places < 0 || at > len(left.Places) {
			return fmt.Errorf("the line of %.64q has more places than there are", one.Key)
		}
		hash := h.shard.server.seed.Hash(one.Key)
		if h.shard.server.shardOf(hash) != h.shard.index {
			continue
		}
		if err := h.addLine(one, hash, left.Places[first:at], places[first:at]); err != nil {
			return fmt.Errorf("the line of %.64q: %w", one.Key, err)
		}
	}
	return nil
}

func (h *linesHeir) addLine(one *lineLeft, hash uint64, from []placeLeft, to []*place) (err error) {
	switch {
	case h.byKey[string(one.Key)] != nil:
		return errors.New("it is there twice")
	case len(from) == 0 && one.Joining == nil && len(one.Asked) == 0:
		return errors.New("it has neither places nor requests")
	}
	l := h.open(one.Key, hash)
	h.from[l] = one
	l.used, l.under, l.number = one.Used, one.Under, one.Number
	for i := range from {
		p, err := h.addPlace(l, &from[i])
		if err != nil {
			return err
		}
		to[i] = p
		l.places = append(l.places, p)
		h.size += placeSize
		if p.inTable {
			l.inTable++
		}
	}
	if one.Joining != nil {
		l.joining, err = h.addPlace(l, one.Joining)
	}
	return err
}

func (h *linesHeir) addPlace(l *line, left *placeLeft) (*place, error) {
	name := fleet.Place{Lease: left.Lease, Seq: left.Seq}
	switch {
	case h.session == nil:
		return nil, fmt.Errorf("there is the place %s, and no session", name)
	case left.Ours != (left.Lease == h.session.Lease()):
		return nil, fmt.Errorf("the place %s is said to be of the session %x: %t", name, h.session.Lease(), left.Ours)
	case slices.ContainsFunc(l.places, func(p *place) bool { return p.Place == name }):
		return nil, fmt.Errorf("the place %s is there twice", name)
	}
	p := l.newPlace(name, left.Try)
	p.ours, p.leaving, p.inTable, p.revision = left.Ours, left.Leaving, left.InTable, left.Revision
	h.asks[p] = left.Asked
	return p, nil
}

// addAsked has requests stand behind places that are to come. ask returns the request of a session that asks for what was left of it, and
// an error if there is none: it must not wait for anything else.
func (h *linesHeir) addAsked(ask func(key []byte, hash uint64, left *askLeft) (*request, error)) (err error) {
	add := func(l *line, from []askLeft) (all []*asked) {
		for i := range from {
			r, failed := ask(l.key, l.hash, &from[i])
			if failed != nil {
				err = failed
				return nil
			}
			a := &asked{request: r, line: l, try: from[i].Try}
			r.timer.Tag = a
			r.waited = true
			r.waiter.SetSince(from[i].Since)
			all = append(all, a)
			h.waits = append(h.waits, a)
		}
		return all
	}
	for _, l := range h.sorted() {
		l.asked = add(l, h.from[l].Asked)
		for _, a := range l.asked {
			if !a.try {
				l.waiters++
			}
		}
		for _, p := range l.places {
			p.asked = add(l, h.asks[p])
		}
	}
	return err
}

// begin starts the timers of the lines. Those that are kept are looked at in the order of before, as far as all loops had a common one, and
// from the given time on, 0 if that is not known.
func (h *linesHeir) begin(sweepsAt time.Duration) {
	sh := h.shard
	for _, a := range h.waits {
		r, timeout := a.request, a.request.timeout
		if a.try {
			timeout = tryTime
		}
		sh.loop.StartTimer(&r.timer, max(timeout-(sh.loop.Now()-r.waiter.Since()), 0))
		if r.suspicious && !a.try {
			sh.suspect(r)
		}
	}
	for l, one := range h.from {
		if one.Kept > 0 {
			l.isKept = true
			h.kept = append(h.kept, l)
		}
	}
	slices.SortFunc(h.kept, func(a, b *line) int {
		return cmp.Or(cmp.Compare(h.from[a].Kept, h.from[b].Kept), bytes.Compare(a.key, b.key))
	})
	if len(h.kept) > 0 {
		h.startSweeper(max(sweepsAt-sh.loop.Now(), 0))
	}
}

// verify returns what is wrong with lines that were restored, and with what the table has of them.
func (ls *lines) verify() (wrong error) {
	ls.shard.table.Walk(0, math.MaxInt, func(h lockmgr.Holding) {
		if h.Closed || isPlace(h) {
			return
		}
		if l := ls.byKey[string(h.Key)]; l == nil || l.ours() == nil {
			wrong = fmt.Errorf("%q is held by a client, and there is no place for it", h.Key)
		}
	})
	if wrong != nil {
		return wrong
	}
	for _, l := range ls.byKey {
		inTable := 0
		for _, p := range l.places {
			if p.owner.Empty() == p.inTable {
				return fmt.Errorf("place %s of %q is to stand in the table: %t, and that is not so", p, l.key, p.inTable)
			}
			if p.inTable {
				inTable++
			}
		}
		if inTable != l.inTable {
			return fmt.Errorf("%d places of %q stand in the table, and %d are counted", inTable, l.key, l.inTable)
		}
	}
	return nil
}
