package lockmgr

import "fmt"

// Waiter is one place in the queue of a key. The caller embeds it in its request; it is linked into the table from the
// Lock that returned Queued until Cancel, or until a grant and the Pop of it. The zero value is ready, and so is a
// waiter that has left; before that it must not be copied.
type Waiter struct {
	// Tag leads from a grant back to the request. It is the caller's own: the table never looks at it and never changes
	// it.
	Tag any

	// A waiter is unused (owner nil), queued (owner and entry set), or granted and on its way to the caller (owner set,
	// entry nil).
	owner *Owner
	entry *entry

	// next leads to the waiter behind in the queue, or in the grants; prev to the one in front, in the queue alone.
	next, prev *Waiter
}

// Queued reports whether the waiter stands in the queue of a key.
func (w *Waiter) Queued() bool {
	return w.entry != nil
}

// enqueue puts w, which waits for o, behind all other waiters of e.
func (e *entry) enqueue(w *Waiter, o *Owner) {
	if w.owner != nil {
		panic(fmt.Sprintf("lockmgr: waiter %p of owner %p, still in use, asks for key %q", w, w.owner, e.key))
	}
	w.owner, w.entry = o, e
	w.prev = e.last
	if e.last == nil {
		e.first = w
	} else {
		e.last.next = w
	}
	e.last = w
	e.waiters++
	o.queued++
}

// dequeue takes w out of the queue of e, wherever it stands. Its owner is left in place.
func (e *entry) dequeue(w *Waiter) {
	if w.entry != e || w.owner.queued <= 0 {
		panic(fmt.Sprintf("lockmgr: waiter %p in the queue of key %q points at entry %p, its owner has %d waiters",
			w, e.key, w.entry, w.owner.queued))
	}
	if w.prev == nil {
		e.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		e.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.entry, w.next, w.prev = nil, nil, nil
	e.waiters--
	w.owner.queued--
}

// Grants is the list of the waiters that became holders, in the order in which they did. It is linked through the
// waiters and never allocates. The zero value is empty and ready.
//
// A waiter in the list holds its key already. Pop it before anything else happens to its owner: after an Unlock or a
// Close by that owner the list would tell of a grant that is no longer true.
type Grants struct {
	first, last *Waiter
}

// Empty reports whether no grant is left in the list.
func (g *Grants) Empty() bool {
	return g.first == nil
}

// Pop takes the oldest grant out of the list and returns its waiter, which may be used again at once. It returns nil
// when the list is empty.
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

// push appends w, which has left its queue and keeps its owner.
func (g *Grants) push(w *Waiter) {
	if g.last == nil {
		g.first = w
	} else {
		g.last.next = w
	}
	g.last = w
}
