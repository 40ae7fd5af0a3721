package lockmgr

import "fmt"

const (
	// inlineKey is the length, in bytes, of the longest key that is stored inside its entry. It fills an entry up to 128
	// bytes, which is a size class of the allocator and two cache lines.
	inlineKey = 24

	// maxFreeEntries is how many free entries a table keeps for reuse. It lets a session that held a thousand keys come
	// and go without an allocation, and costs at most 128 KiB a table with short keys. Each free entry may be the only
	// one on its page, so that together they can keep 8 MiB of the heap from other uses, and no more.
	maxFreeEntries = 1024

	// maxFreeKey bounds the key storage that a free entry keeps, in bytes of capacity. Longer keys are valid and cost
	// an allocation each: keeping storage for them would cost 10 MiB a table for keys that hardly anybody uses.
	maxFreeKey = 512
)

// entry is one key that is held or rests. It belongs to its table, which recycles it once the key is free.
type entry struct {
	chain *entry // the next in the bucket, or in the free list
	key   []byte // in inline, or in storage of its own
	owner *Owner // the holder; nil exactly while the entry is free
	age   age    // of the grant by which it is held
	token uint64 // of that grant

	// The circular list of the keys that the owner holds, see [Owner].
	next, prev *entry

	first   *Waiter // of the queue, the longest wait; nil when nobody waits. Its prev is the last.
	waiters uint32  // in 4 bytes, as hash, so that inline has 8 more
	hash    uint32  // the low half, which is enough for the index

	inline [inlineKey]byte
}

// setKey copies key into the entry. Storage of an earlier long key is reused for a long key and dropped for a short
// one, so that a held key never costs much more than its length.
func (e *entry) setKey(key []byte) {
	storage := e.key[:0]
	if len(key) <= inlineKey {
		storage = e.inline[:0]
	}
	storage = append(storage, key...)
	e.key = storage
}

// pool keeps free entries for reuse.
type pool struct {
	free *entry // linked through chain
	len  int    // entries, at most maxFreeEntries
}

// get returns an entry for key that is in no list and has no owner.
func (p *pool) get(hash uint64, key []byte) *entry {
	e := p.free
	if e == nil {
		e = new(entry)
	} else {
		p.free = e.chain
		p.len--
		e.chain = nil
	}
	e.hash = uint32(hash)
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
