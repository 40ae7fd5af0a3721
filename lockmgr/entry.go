package lockmgr

import (
	"fmt"
	"time"
)

const (
	// inlineKey is the length, in bytes, of the longest key that lies inside its entry. It fills an entry up to 128
	// bytes, which is a size class of the allocator and two cache lines.
	inlineKey = 28

	// maxFreeEntries bounds the entries that a table keeps for later, in entries. It lets a session that held a
	// thousand keys come and go without an allocation, and costs at most 128 KiB a table with short keys. As these
	// entries may lie scattered, they can keep 8 MiB of the heap from other sizes, and no more.
	maxFreeEntries = 1024

	// maxFreeKey bounds the key storage that a free entry keeps, in bytes of capacity. Longer keys are legal and cost
	// an allocation each: storage for them all would keep 10 MiB a table for keys that hardly anybody uses.
	maxFreeKey = 512
)

// entry is one held key. It belongs to its table, which recycles it once the key is free.
type entry struct {
	chain *entry // the next in the bucket, or in the free list
	hash  uint64
	key   []byte        // lies in inline, or in storage of its own
	owner *Owner        // the holder; nil exactly while the entry is free
	since time.Duration // when it became that: see [Table.Advance]
	token uint64        // of the grant by which it became that

	// The circle of the keys that the owner holds, see [Owner].
	next, prev *entry

	// The queue, in the order of asking. Both are nil when nobody waits.
	first, last *Waiter
	waiters     uint32 // in 4 bytes, so that inline has 4 more

	inline [inlineKey]byte
}

// setKey copies key into the entry. Storage left from an earlier long key is used again for a long key and dropped for
// a short one, so that a held key never costs much more than its length.
func (e *entry) setKey(key []byte) {
	storage := e.key[:0]
	if len(key) <= inlineKey {
		storage = e.inline[:0]
	}
	storage = append(storage, key...)
	e.key = storage
}

// pool keeps entries that were released, for the next keys.
type pool struct {
	free *entry // linked through chain
	len  int    // entries, at most maxFreeEntries
}

// get returns an entry for key, in no list and with no owner.
func (p *pool) get(hash uint64, key []byte) *entry {
	e := p.free
	if e == nil {
		e = new(entry)
	} else {
		p.free = e.chain
		p.len--
		e.chain = nil
	}
	e.hash = hash
	e.setKey(key)
	return e
}

// put takes an entry that is in no list, or leaves it to the garbage collector.
func (p *pool) put(e *entry) {
	if e.owner != nil || e.first != nil {
		panic(fmt.Sprintf("lockmgr: key %q freed with owner %p and first waiter %p", e.key, e.owner, e.first))
	}
	if p.len == maxFreeEntries {
		return
	}
	if cap(e.key) > maxFreeKey {
		e.key = nil
	}
	e.chain = p.free
	p.free = e
	p.len++
}
