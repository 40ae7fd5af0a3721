package lockmgr

import (
	"math/bits"
	"time"
)

// Holding describes a key that is held or rests. It is valid, and its Key may be read, until the next change of the table.
type Holding struct {
	Key   []byte
	Owner *Owner
	// Closed says that the owner has closed: nobody holds the key, and it has not gone on yet.
	Closed bool
	// Until is when a key goes on whose owner has closed: it rests until then, see [Table.SetDelay].
	Until time.Duration
	// Since is when the owner was granted the key, see [Table.Advance].
	Since time.Duration
	// Token is the fencing token of that grant, and identifies it among all grants of the table; 0 if there was none, see
	// [Table.SetDelay]. The tokens of a table count up by one with every grant.
	Token uint64
	// Waiters is the length of the queue, and First is its first waiter, nil if there is none.
	Waiters int
	First   *Waiter
}

// Observer is told of every grant and of its end, as they happen: each grant ends once, before the next one of its key. It is
// called in the middle of an operation, so it must not call the table, and the key may be read until it returns. What it is told
// fits into registers: it is called on the way of every command.
type Observer interface {
	// Granted says that the owner holds the key from now on, by the grant with that token. w is the waiter that was granted it,
	// which has not been popped yet; nil if the key was granted at once.
	Granted(key []byte, o *Owner, token uint64, now time.Duration, w *Waiter)
	// Ended says that a grant is over, after the owner has held the key for a time: it gave the key up or, if it has closed, lost
	// it. A key that rests is lost when that is over, and was held until the owner closed.
	Ended(key []byte, o *Owner, token uint64, now, held time.Duration)
}

func (e *entry) holding() Holding {
	h := Holding{Key: e.key, Owner: e.owner, Since: e.age.since, Token: e.token, Waiters: int(e.waiters), First: e.first}
	if e.owner.isClosed() {
		h.Closed, h.Until = true, e.owner.until
	}
	return h
}

// Find returns the holding of key; its Owner is nil if nobody holds the key and it does not rest.
func (t *Table) Find(hash uint64, key []byte) Holding {
	if e := *t.index.find(hash, key); e != nil && !t.abandoned(e) {
		return e.holding()
	}
	return Holding{}
}

// Walk visits the keys that are held or rest, of the given number of buckets, one key a bucket on average, and returns the cursor for the
// next call. A walk begins with the cursor 0 and is over when Walk returns 0. In between, the table may change in any way:
// a key that is held or rests from the beginning of the walk to its end is visited, perhaps more than once.
func (t *Table) Walk(cursor uint64, buckets int, visit func(Holding)) (next uint64) {
	for range buckets {
		chain, covered := t.index.chainAt(cursor)
		for e := chain; e != nil; e = e.chain {
			if !t.abandoned(e) {
				visit(e.holding())
			}
		}
		if cursor = nextCursor(cursor, covered); cursor == 0 {
			break
		}
	}
	return cursor
}

// chainAt returns the chain of the bucket for a hash with the low bits of the cursor, and the mask of the bits that all
// hashes of that bucket share.
func (x *index) chainAt(cursor uint64) (chain *entry, covered uint64) {
	covered = x.mask
	b := cursor & covered
	if half := x.mask >> 1; b&half|(half+1) >= x.n { // the bucket has not been split, or does not exist yet
		covered, b = half, b&half
	}
	return *x.slot(b), covered
}

// nextCursor returns the cursor after all hashes that share the covered bits of this one. It counts with the order of
// the bits reversed, so that the highest of these changes first, as redis's SCAN does. The hashes that were visited are
// then those with smaller cursors, however many bits a bucket has: a split or a merge only changes the length of a step.
func nextCursor(cursor, covered uint64) uint64 {
	return bits.Reverse64(bits.Reverse64(cursor|^covered) + 1)
}

// Closed reports whether the owner is being closed, see [Table.CloseSome].
func (o *Owner) Closed() bool { return o.isClosed() }

// Keys returns the number of keys that the owner holds. If it is closed, these are those that were not passed on yet.
func (o *Owner) Keys() int { return int(o.keys) }

// Each visits the keys that the owner holds, the one it has held longest first, until visit returns false.
func (o *Owner) Each(visit func(Holding) bool) {
	if o.isClosed() {
		return
	}
	for e := o.held; e != nil; e = e.next {
		if !visit(e.holding()) || e.next == o.held {
			return
		}
	}
}

// WaitsFor returns the holding of the key in whose queue the waiter is; its Owner is nil if the waiter is not queued.
func (w *Waiter) WaitsFor() Holding {
	if w.entry == nil {
		return Holding{}
	}
	return w.entry.holding()
}

// Next returns the waiter after this one in the queue, nil for the last and for one that is not queued.
func (w *Waiter) Next() *Waiter {
	if w.entry == nil {
		return nil
	}
	return w.next
}
