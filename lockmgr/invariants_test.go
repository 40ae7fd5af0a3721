package lockmgr

import "fmt"

// checkTable checks every invariant of a table and returns the first that is broken. hash is the function that the calls
// used, and owners are all owners that ever used the table.
func checkTable(tb *Table, hash func([]byte) uint64, owners ...*Owner) error {
	held, err := checkIndex(&tb.index, hash)
	if err != nil {
		return err
	}

	grants := map[uint64]bool{}
	for e := range held {
		if e.owner == tb.unknown {
			if e.token != 0 || e.first == nil {
				return fmt.Errorf("key %q of the unknown owner is held by grant %d, with %d waiters", e.key, e.token, e.waiters)
			}
			continue
		}
		if e.token == 0 || tb.tokenOf == nil && e.token >= tb.token || grants[e.token] {
			return fmt.Errorf("key %q is held by grant %d; the next one is %d", e.key, e.token, tb.token)
		}
		grants[e.token] = true
	}

	size := int64(0)
	for e := range held {
		size += int64(KeySize(len(e.key)))
	}
	if size != tb.Size() {
		return fmt.Errorf("the keys cost %d bytes, Size says %d", size, tb.Size())
	}

	waiters := 0
	queued := map[*Owner]int32{}
	for e := range held {
		n, err := checkQueue(e, queued)
		if err != nil {
			return err
		}
		waiters += n
	}
	if waiters != tb.waiters || tb.Waiters() != waiters {
		return fmt.Errorf("%d waiters queued, %d counted", waiters, tb.waiters)
	}
	if err := checkAges(tb, held); err != nil {
		return err
	}
	closing, apart := 0, 0
	for e := range held {
		switch {
		case e.owner.isClosed():
			closing++
		case e.owner.isApart():
			apart++
		}
	}
	if tb.Keys() != len(held)-closing-apart || tb.Resting() != closing {
		return fmt.Errorf("%d keys in the index, %d of them of closed owners, %d of owners apart, Keys says %d, Resting %d",
			len(held), closing, apart, tb.Keys(), tb.Resting())
	}

	keys := 0
	for i, o := range owners {
		n, err := checkOwner(o, held)
		if err != nil {
			return fmt.Errorf("owner %d: %w", i, err)
		}
		if o.queued != queued[o] && (!o.isClosed() || queued[o] != 0) {
			return fmt.Errorf("owner %d has %d waiters queued, %d counted", i, queued[o], o.queued)
		}
		if o.Empty() != (n == 0 && queued[o] == 0) {
			return fmt.Errorf("owner %d with %d keys and %d waiters: Empty is %t", i, n, queued[o], o.Empty())
		}
		keys += n
	}
	if keys != len(held) {
		return fmt.Errorf("owners hold %d keys of %d", keys, len(held))
	}
	return checkPool(&tb.pool, held)
}

// checkAges checks that the held keys and the waiters, and nobody else, are in the lists of their kind, in the order in which
// they began.
func checkAges(tb *Table, held map[*entry]bool) error {
	grants := map[*age]uint64{}
	waits := map[*age]bool{}
	for e := range held {
		if e.token != 0 && !e.owner.isApart() { // else there was no grant, or it has no age
			grants[&e.age] = e.token
		}
		for w := e.first; w != nil; w = w.next {
			if !w.owner.isApart() {
				waits[&w.age] = true
			}
		}
	}
	token, n := uint64(0), 0
	err := walkAges(&tb.holds, len(grants), func(a *age) error {
		if n++; grants[a] <= token {
			return fmt.Errorf("grant %d of %d in the list of holds is %d, after %d", n, len(grants), grants[a], token)
		}
		token = grants[a]
		return nil
	})
	if err != nil {
		return err
	}
	return walkAges(&tb.waits, len(waits), func(a *age) error {
		if !waits[a] {
			return fmt.Errorf("somebody is in the list of waits who does not wait")
		}
		delete(waits, a)
		return nil
	})
}

// walkAges visits a list that should have n members.
func walkAges(l *ages, n int, visit func(*age) error) error {
	for a := l.head.newer; a != &l.head; a = a.newer {
		if a.newer.older != a || a.older.newer != a || a.newer != &l.head && a.newer.since < a.since {
			return fmt.Errorf("what began at %s is linked badly: %+v", a.since, a)
		}
		if n--; n < 0 {
			break
		}
		if err := visit(a); err != nil {
			return err
		}
	}
	if n != 0 {
		return fmt.Errorf("a list of ages has %d members too few", n)
	}
	return nil
}

// checkIndex returns the set of entries in the index.
func checkIndex(x *index, hash func([]byte) uint64) (map[*entry]bool, error) {
	if x.n < minBuckets || x.n < x.keys || x.n > max(minBuckets, 2*x.keys) {
		return nil, fmt.Errorf("%d buckets for %d keys", x.n, x.keys)
	}
	if x.mask&(x.mask+1) != 0 || x.n-1 > x.mask || x.n-1 <= x.mask>>1 {
		return nil, fmt.Errorf("mask %#x for %d buckets", x.mask, x.n)
	}
	segments := (int(x.n) + segmentBuckets - 1) / segmentBuckets
	if len(x.segments) != segments || cap(x.segments) > max(minDirectory, 4*segments) {
		return nil, fmt.Errorf("directory of length %d, capacity %d for %d buckets", len(x.segments), cap(x.segments), x.n)
	}
	for _, s := range x.segments[len(x.segments):cap(x.segments)] {
		if s != nil {
			return nil, fmt.Errorf("a segment is kept beyond the end of the directory")
		}
	}

	held := map[*entry]bool{}
	names := map[string]bool{}
	for b := range uint64(len(x.segments) * segmentBuckets) {
		head := *x.slot(b)
		if b >= x.n && head != nil {
			return nil, fmt.Errorf("key %q in bucket %d of %d", head.key, b, x.n)
		}
		for e := head; e != nil; e = e.chain {
			switch {
			case held[e] || names[string(e.key)]:
				return nil, fmt.Errorf("key %q is in the index twice", e.key)
			case e.hash != uint32(hash(e.key)):
				return nil, fmt.Errorf("key %q has hash %#x, want %#x", e.key, e.hash, hash(e.key))
			case x.bucket(uint64(e.hash)) != x.slot(b):
				return nil, fmt.Errorf("key %q with hash %#x is in the wrong bucket %d of %d", e.key, e.hash, b, x.n)
			case e.owner == nil:
				return nil, fmt.Errorf("key %q has an entry and no holder", e.key)
			}
			held[e], names[string(e.key)] = true, true
		}
	}
	if uint64(len(held)) != x.keys {
		return nil, fmt.Errorf("%d entries in the index, %d counted", len(held), x.keys)
	}
	return held, nil
}

// checkQueue returns the number of waiters of a key, without those of owners apart, and adds all to queued.
func checkQueue(e *entry, queued map[*Owner]int32) (counted int, err error) {
	n := 0
	var prev *Waiter
	for w := e.first; w != nil; prev, w = w, w.next {
		if w.entry != e || w.owner == nil || prev != nil && w.prev != prev || !w.Queued() {
			return 0, fmt.Errorf("waiter %d of key %q is linked badly: %+v", n, e.key, w)
		}
		queued[w.owner]++
		n++
		if !w.owner.isApart() {
			counted++
		}
	}
	if n != int(e.waiters) {
		return 0, fmt.Errorf("key %q has %d waiters, %d counted", e.key, n, e.waiters)
	}
	if prev != nil && e.first.prev != prev {
		return 0, fmt.Errorf("the queue of key %q has its end in the wrong place", e.key)
	}
	return counted, nil
}

// checkOwner returns the number of keys in the list of o.
func checkOwner(o *Owner, held map[*entry]bool) (int, error) {
	if o.held == nil {
		if o.keys != 0 {
			return 0, fmt.Errorf("it has no keys, %d counted", o.keys)
		}
		return 0, nil
	}
	n := 0
	for e := o.held; ; e = e.next {
		if e.owner != o || !held[e] || e.next.prev != e || e.prev.next != e {
			return 0, fmt.Errorf("key %q is linked badly: %+v", e.key, e)
		}
		n++
		if e.next == o.held {
			if n != int(o.keys) {
				return n, fmt.Errorf("it has %d keys, %d counted", n, o.keys)
			}
			return n, nil
		}
		if n > len(held) {
			return 0, fmt.Errorf("the circular list of its keys does not close")
		}
	}
}

func checkPool(p *pool, held map[*entry]bool) error {
	n := 0
	for e := p.free; e != nil; e = e.chain {
		if held[e] || e.owner != nil || e.next != nil || e.prev != nil || e.first != nil || e.age.newer != nil || e.age.older != nil {
			return fmt.Errorf("free entry %d is still in use: %+v", n, e)
		}
		if cap(e.key) > maxFreeKey {
			return fmt.Errorf("free entry %d keeps %d bytes for a key", n, cap(e.key))
		}
		n++
	}
	if n != p.len || n > maxFreeEntries {
		return fmt.Errorf("%d free entries, %d counted, %d allowed", n, p.len, maxFreeEntries)
	}
	return nil
}
