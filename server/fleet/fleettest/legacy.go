package fleettest

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"slices"
	"testing"

	"dreadlock/server/fleet"
)

// storeName is the kind of the store.
const storeName = "memory"

// Legacy returns what the daemon hands over to its successor: the session, if there is one.
func (k *Link) Legacy() (*fleet.Legacy, error) {
	l := &fleet.Legacy{Greeting: fleet.Greeting{Store: storeName}}
	if !k.Connected() {
		return l, nil
	}
	if k.MustLose() {
		return nil, errors.New("the daemon has lost touch with its fleet")
	}
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	l.Lease, l.TTL, l.Until, l.Seq, l.Revision = s.lease, k.Log.TTL, s.until, s.seq, uint64(k.seen)
	l.Queue = slices.Clone(s.queue)
	return l, nil
}

// Inherit has a link without a session go on with that of a predecessor, and returns it; nil if there was none.
func (k *Link) Inherit(l *fleet.Legacy) fleet.Session {
	if l.Lease == 0 {
		return nil
	}
	k.session = &session{link: k, lease: l.Lease, until: l.Until, seq: l.Seq, queue: slices.Clone(l.Queue)}
	k.seen = int(l.Revision)
	return k.session
}

// Yield has a link do nothing any more: its session is that of its successor, which also gets what may still arrive.
func (k *Link) Yield(successor *Link) {
	s := k.session
	if s == nil {
		return
	}
	k.session = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if successor.session != nil {
		successor.session.late = s.late
	}
}

// list tells the daemon all that is different by now from what it knows: what is gone from the last place to the first, then what came. A
// place of its own that has come and gone in between is asked for again.
func (k *Link) list() {
	l, s := k.Log, k.session
	var known []fleet.Change
	for _, c := range l.changes[:k.seen] {
		if c.Gone {
			known = slices.DeleteFunc(known, func(p fleet.Change) bool { return isSame(&p, &c) })
		} else {
			known = append(known, c)
		}
	}
	var now, all []fleet.Change
	for _, r := range l.places {
		now = append(now, r.change(false))
	}
	without := func(from []fleet.Change, those []fleet.Change) []fleet.Change {
		return slices.DeleteFunc(slices.Clone(from), func(c fleet.Change) bool {
			return slices.ContainsFunc(those, func(other fleet.Change) bool { return isSame(&c, &other) })
		})
	}
	for _, c := range slices.Backward(without(known, now)) {
		c.Gone = true
		all = append(all, c)
	}
	all = append(all, without(now, known)...)
	for _, c := range without(l.changes[k.seen:], now) {
		if !c.Gone && c.Place.Lease == s.lease {
			s.add(fleet.Operation{Key: c.Key, Place: c.Place, Join: true, Try: c.Try})
		}
	}
	k.seen = len(l.changes)
	k.Member.Changed(s, all)
}

// isSame reports whether two changes are of one place. One that was made once more is another one.
func isSame(a, b *fleet.Change) bool {
	return a.Place == b.Place && a.Revision == b.Revision && string(a.Key) == string(b.Key)
}

// TakeOver hands the session of a store that is suspended over to another one, as two processes do, and returns it.
func TakeOver(tb testing.TB, before, next fleet.Store) fleet.Session {
	tb.Helper()
	if err := next.Prepare(tb.Context(), before.Greeting()); err != nil {
		tb.Fatal(err)
	}
	l, err := before.Legacy()
	if err != nil {
		tb.Fatal(err)
	}
	if l, err = Carry(l); err != nil {
		tb.Fatal(err)
	}
	s, err := next.Inherit(l)
	if err != nil {
		tb.Fatal(err)
	}
	before.Yield()
	return s
}

// Carry returns a legacy as a successor reads it.
func Carry(l *fleet.Legacy) (*fleet.Legacy, error) {
	var text bytes.Buffer
	if err := gob.NewEncoder(&text).Encode(l); err != nil {
		return nil, fmt.Errorf("write a legacy: %w", err)
	}
	var read fleet.Legacy
	if err := gob.NewDecoder(&text).Decode(&read); err != nil {
		return nil, fmt.Errorf("read a legacy: %w", err)
	}
	return &read, nil
}
