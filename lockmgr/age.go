package lockmgr

import "time"

// age is when something began, and its place among all that the table has of that kind, in the order in which they began. A
// grant has one in its entry, a wait in its waiter. So the oldest of each kind is known at any time, for the price of a few
// pointers.
type age struct {
	since        time.Duration
	older, newer *age // nil while it is in no list
}

// ages lists ages, the oldest first. The list is circular, with the head between the newest and the oldest: its newer is the
// oldest of all.
type ages struct {
	head age
}

func (l *ages) init() { l.head.older, l.head.newer = &l.head, &l.head }

// add makes a, which is in no list, the newest: it begins now, and time does not go back.
func (l *ages) add(a *age, now time.Duration) {
	newest := l.head.older
	a.since, a.older, a.newer = now, newest, &l.head
	newest.newer, l.head.older = a, a
}

// remove takes a out of its list. When it began remains known.
func (a *age) remove() {
	a.older.newer, a.newer.older = a.newer, a.older
	a.older, a.newer = nil, nil
}

// oldest returns when the oldest began; false if the list is empty.
func (l *ages) oldest() (since time.Duration, ok bool) {
	first := l.head.newer
	return first.since, first != &l.head
}

// OldestHold returns when the oldest of all grants that hold a key was made: see [Table.Advance]. It is false if no key is held.
// Keys of closed owners count until they have been passed on: see [Table.CloseSome].
func (t *Table) OldestHold() (since time.Duration, ok bool) { return t.holds.oldest() }

// OldestWait returns when the oldest of all waits began; false if nobody waits.
func (t *Table) OldestWait() (since time.Duration, ok bool) { return t.waits.oldest() }

// Since returns when the wait began, as far as [Table.Advance] had told. It remains known after the wait, until the next one.
func (w *Waiter) Since() time.Duration { return w.age.since }

// OnLeave has the table call f whenever a key leaves its holder, with the time for which he had it. f must not use the table.
func (t *Table) OnLeave(f func(held time.Duration)) { t.left = f }
