package lockmgr

import (
	"math/bits"
	"time"
)

// Holding is what can be seen of a held key. It is true until the table is changed next, and so long its key is valid.
type Holding struct {
	Key   []byte
	Owner *Owner
	// Since is when the owner got the key.
	Since time.Duration
	// Token is the number of the grant by which the owner got the key, 0 if nobody holds it. The grants of a table have
	// consecutive tokens, so that a later grant has a greater one, and each names its grant.
	Token uint64
	// Waiters is the length of the queue, First its first waiter, nil if it is empty.
	Waiters int
	First   *Waiter
}

func (e *entry) holding() Holding {
	return Holding{
		Key: e.key, Owner: e.owner, Since: e.since, Token: e.token, Waiters: int(e.waiters), First: e.first,
	}
}

// Find returns the holding of a key; its Owner is nil if nobody holds it.
func (t *Table) Find(hash uint64, key []byte) Holding {
	if e := *t.index.find(hash, key); e != nil {
		return e.holding()
	}
	return Holding{}
}

// Walk visits the held keys of some buckets, one key a bucket on average, and returns the cursor of those that follow. A
// walk begins with the cursor 0, and is over when Walk returns 0. In between, the table may change as it likes: a key that
// is held from the begin of the walk to its end is visited, perhaps more than once.
func (t *Table) Walk(cursor uint64, buckets int, visit func(Holding)) (next uint64) {
	for range buckets {
		chain, covered := t.index.at(cursor)
		for e := chain; e != nil; e = e.chain {
			visit(e.holding())
		}
		if cursor = following(cursor, covered); cursor == 0 {
			break
		}
	}
	return cursor
}

// at returns the chain of the bucket that a hash with the low bits of the cursor is in, and the mask of the bits that all
// hashes of that bucket share.
func (x *index) at(cursor uint64) (chain *entry, covered uint64) {
	covered = x.mask
	b := cursor & covered
	if half := x.mask >> 1; b&half|(half+1) >= x.n { // the bucket has not been split, or is yet to be made
		covered, b = half, b&half
	}
	return *x.slot(b), covered
}

// following returns the cursor behind all hashes that share the covered bits of this one. It counts from the highest of
// these bits to the lowest, as the SCAN of redis does. So the hashes that were visited are those with smaller cursors,
// however many bits a bucket has by then: a split or a merge changes how far one step goes, and nothing else.
func following(cursor, covered uint64) uint64 {
	return bits.Reverse64(bits.Reverse64(cursor|^covered) + 1)
}

// Each visits what the owner holds in the table, the key that it has held longest first, until visit returns false.
func (o *Owner) Each(visit func(Holding) bool) {
	for e := o.held; e != nil; e = e.next {
		if !visit(e.holding()) || e.next == o.held {
			return
		}
	}
}

// WaitsFor returns the holding of the key in whose queue the waiter stands; its Owner is nil if it does not.
func (w *Waiter) WaitsFor() Holding {
	if w.entry == nil {
		return Holding{}
	}
	return w.entry.holding()
}

// Behind returns the next waiter in the queue, nil for the last.
func (w *Waiter) Behind() *Waiter {
	if w.entry == nil {
		return nil
	}
	return w.next
}
