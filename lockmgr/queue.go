package lockmgr

import (
	"fmt"
	"time"
)

// Waiter is one place in the queue of a key. The caller embeds it in its request. It is linked into the table from the
// Lock that returned Queued until Cancel, or until the Pop of its grant; until then it must not be copied. The zero value
// is ready to use, and so is a waiter that is not linked any more.
type Waiter struct {
	// Tag leads from a grant back to the request. It is the caller's own: the table neither reads nor changes it.
	Tag any

	// A waiter is unused (owner nil), queued (owner and entry set), or granted and not yet popped (owner set, entry nil).
	owner *Owner
	entry *entry

	// next is the waiter after this one in the queue or in the grants, nil for the last. prev is the one before it in the queue;
	// that of the first is the last, so that the entry needs no pointer to it.
	next, prev *Waiter

	age age // of the wait, among all waits of the table
}

// SetSince says when the wait began, if that was before the Lock by which the waiter was queued. [Table.OldestWait] does not heed
// it.
func (w *Waiter) SetSince(since time.Duration) { w.age.since = since }

// Queued reports whether the waiter is in the queue of a key.
func (w *Waiter) Queued() bool {
	return w.entry != nil
}

// enqueue puts w, which waits for o, at the end of the queue of e.
func (e *entry) enqueue(w *Waiter, o *Owner) {
	if o.isClosed() {
		panic(fmt.Sprintf("lockmgr: closed owner %p asks for key %q", o, e.key))
	}
	if w.owner != nil {
		panic(fmt.Sprintf("lockmgr: waiter %p of owner %p, still in use, asks for key %q", w, w.owner, e.key))
	}
	w.owner, w.entry = o, e
	if e.first == nil {
		e.first, w.prev = w, w
	} else {
		last := e.first.prev
		last.next, w.prev = w, last
		e.first.prev = w
	}
	e.waiters++
	o.queued++
}

// dequeue takes w out of the queue of e, from whatever place. Its owner stays set.
func (e *entry) dequeue(w *Waiter) {
	if w.entry != e || w.owner.queued <= 0 {
		panic(fmt.Sprintf("lockmgr: waiter %p in the queue of key %q points at entry %p, its owner has %d waiters",
			w, e.key, w.entry, w.owner.queued))
	}
	if w.next == nil {
		e.first.prev = w.prev
	} else {
		w.next.prev = w.prev
	}
	if w == e.first {
		e.first = w.next
	} else {
		w.prev.next = w.next
	}
	w.entry, w.next, w.prev = nil, nil, nil
	e.waiters--
	w.owner.queued--
}

// Grants is the list of the waiters that became holders, oldest grant first. It is linked through the waiters and never
// allocates. The zero value is empty and ready to use.
//
// A waiter in the list holds its key already. Pop it before anything else happens to its owner: after an Unlock or a
// Close of that owner, or a Take, the list would name a holder that no longer holds.
type Grants struct {
	first, last *Waiter
}

// Empty reports whether no grant is left in the list.
func (g *Grants) Empty() bool {
	return g.first == nil
}

// Has reports whether a grant to o is in the list. It looks at all of them.
func (g *Grants) Has(o *Owner) bool {
	for w := g.first; w != nil; w = w.next {
		if w.owner == o {
			return true
		}
	}
	return false
}

// Pop takes the oldest grant out of the list and returns its waiter, which may be reused at once. It returns nil when
// the list is empty.
func (g *Grants) Pop() *Waiter {
	w := g.first
	if w == nil {
		return nil
	}
	g.first = w.next
	if g.first == nil {
		g.last = nil
	}
	w.owner, w.next = nil, nil
	return w
}

// push appends w, which has left its queue and still has its owner.
func (g *Grants) push(w *Waiter) {
	if g.last == nil {
		g.first = w
	} else {
		g.last.next = w
	}
	g.last = w
}
