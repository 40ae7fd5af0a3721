package lockmgr

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// indexKey makes a key of a number, and hashKey its hash: spread well, and the same in every run.
func indexKey(i int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i))
}

func hashKey(key []byte) uint64 {
	return rand.NewPCG(binary.BigEndian.Uint64(key), 1).Uint64()
}

// indexInsert and indexRemove work on an index alone, without a table.
func indexInsert(t *testing.T, x *index, hash uint64, key []byte) *entry {
	t.Helper()
	link := x.find(hash, key)
	if *link != nil {
		t.Fatalf("key %x is in the index before its insert", key)
	}
	e := &entry{hash: uint32(hash), owner: new(Owner)}
	e.setKey(key)
	x.insert(link, e)
	return e
}

func indexRemove(t *testing.T, x *index, hash uint64, key []byte) {
	t.Helper()
	link := x.find(hash, key)
	if *link == nil || string((*link).key) != string(key) {
		t.Fatalf("key %x is not in the index", key)
	}
	if e := *link; x.remove(link) != e || e.chain != nil {
		t.Fatalf("key %x was removed badly", key)
	}
}

func indexCheck(t *testing.T, x *index, hash func([]byte) uint64) {
	t.Helper()
	if _, err := checkIndex(x, hash); err != nil {
		t.Fatal("invariant broken:", err)
	}
}

// TestIndexSizes takes the index up through many sizes and down again. At many of them, and on both sides of every
// segment, all keys must be found and one that was never there must not. No step may split or merge more than it is
// allowed to, and the last size is the first.
func TestIndexSizes(t *testing.T) {
	const top = 4 * segmentBuckets
	x := newIndex()
	look := func(n int) {
		for i := range n {
			key := indexKey(i)
			e := *x.find(hashKey(key), key)
			if e == nil || x.linkTo(e) == nil {
				t.Fatalf("key %d of %d is lost", i, n)
			}
		}
		if key := indexKey(n); *x.find(hashKey(key), key) != nil {
			t.Fatalf("key %d was never there", n)
		}
	}

	borders := func() bool { return x.n > minBuckets && x.n%segmentBuckets <= 1 }

	for i := range top {
		key, before := indexKey(i), x.n
		indexInsert(t, &x, hashKey(key), key)
		if x.n > before+1 {
			t.Fatalf("one insert took the index from %d buckets to %d", before, x.n)
		}
		if i%101 == 0 || borders() {
			indexCheck(t, &x, hashKey)
			look(i + 1)
		}
	}
	if x.n != top {
		t.Errorf("%d buckets for %d keys on the way up", x.n, top)
	}
	for i := top - 1; i >= 0; i-- {
		key, before := indexKey(i), x.n
		indexRemove(t, &x, hashKey(key), key)
		if x.n+mergesPerRemove < before {
			t.Fatalf("one removal took the index from %d buckets to %d", before, x.n)
		}
		if i%101 == 0 || borders() && x.n != before {
			indexCheck(t, &x, hashKey)
			look(i)
		}
	}
	if x.keys != 0 || x.n != minBuckets || len(x.segments) != 1 {
		t.Errorf("empty, the index has %d keys, %d buckets, %d segments", x.keys, x.n, len(x.segments))
	}
}

// TestIndexRests shows that a size that swings by less than half costs neither splits nor merges.
func TestIndexRests(t *testing.T) {
	const top = 4 * segmentBuckets
	x := newIndex()
	for i := range top {
		key := indexKey(i)
		indexInsert(t, &x, hashKey(key), key)
	}
	for range 2 {
		for i := top/2 + 1; i < top; i++ {
			key := indexKey(i)
			indexRemove(t, &x, hashKey(key), key)
		}
		if x.n != top {
			t.Fatalf("%d buckets for %d keys, want the %d from before", x.n, x.keys, top)
		}
		for i := top/2 + 1; i < top; i++ {
			key := indexKey(i)
			indexInsert(t, &x, hashKey(key), key)
		}
		if x.n != top {
			t.Fatalf("%d buckets for %d keys again, want the %d from before", x.n, x.keys, top)
		}
	}
}

// TestIndexDirectory takes away a directory that has become far too long.
func TestIndexDirectory(t *testing.T) {
	const top = 150 * segmentBuckets
	x := newIndex()
	for i := range top {
		key := indexKey(i)
		indexInsert(t, &x, hashKey(key), key)
	}
	indexCheck(t, &x, hashKey)
	for i := range top {
		key := indexKey(i)
		indexRemove(t, &x, hashKey(key), key)
		if x.keys%(30*segmentBuckets) == 0 {
			indexCheck(t, &x, hashKey)
		}
	}
	if cap(x.segments) > minDirectory*2 {
		t.Errorf("empty, the index keeps a directory for %d segments", cap(x.segments))
	}
}

// TestIndexCollisions fills the index with hashes that no honest seed makes: equal low bits, equal high bits, all bits
// equal. It slows down, as it must, and nothing else.
func TestIndexCollisions(t *testing.T) {
	const keys = 3 * segmentBuckets
	hashes := map[string]func([]byte) uint64{
		"equal":            func([]byte) uint64 { return 42 },
		"equal low bits":   func(key []byte) uint64 { return hashKey(key)<<32 | 7 },
		"equal high bits":  func(key []byte) uint64 { return hashKey(key) >> 48 },
		"two buckets":      func(key []byte) uint64 { return hashKey(key) | (1<<20 - 2) },
		"one by one":       binary.BigEndian.Uint64,
		"every 1024th":     func(key []byte) uint64 { return binary.BigEndian.Uint64(key) * segmentBuckets },
		"all bits but one": func(key []byte) uint64 { return ^uint64(0) - hashKey(key)&1 },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			x := newIndex()
			order := rand.New(rand.NewPCG(1, 2))
			for _, i := range order.Perm(keys) {
				key := indexKey(i)
				indexInsert(t, &x, hash(key), key)
			}
			indexCheck(t, &x, hash)
			for n, i := range order.Perm(keys) {
				key := indexKey(i)
				indexRemove(t, &x, hash(key), key)
				if n%97 == 0 {
					indexCheck(t, &x, hash)
				}
			}
			indexCheck(t, &x, hash)
			if x.keys != 0 {
				t.Errorf("%d keys are left", x.keys)
			}
		})
	}
}
