package lockmgr

import "fmt"

const (
	// segmentBits is the power of two of the buckets in a segment. The index grows and gives memory back by a segment:
	// 1024 buckets, 8 KiB, the size of a page of the allocator.
	segmentBits    = 10
	segmentBuckets = 1 << segmentBits

	// minBuckets is the size, in buckets, below which the index never shrinks: its first segment, which is never given
	// back. A table of at most that many keys, for which the pool keeps entries, grows and shrinks without allocating.
	minBuckets = segmentBuckets

	// mergesPerRemove is how many buckets one removal may merge. The index shrinks when it has more than two buckets a
	// key, so two merges a removal are enough.
	mergesPerRemove = 2

	// minDirectory is the capacity, in segments, below which the directory is never reallocated: 512 bytes are not worth
	// a copy.
	minDirectory = 64
)

// index finds the entry of a key by its hash. It is a linear hash table (Litwin, "Linear hashing: a new tool for file
// and table addressing", VLDB 1980): it grows by splitting one bucket in two and shrinks by merging two into one, in a
// fixed order, so that no operation ever stops to move all keys.
//
// Bucket b holds the hashes whose low bits are b. With n buckets, the smallest mask that covers n-1 says how many bits.
// Where these name a bucket that does not exist yet, one bit less names the bucket that will be split to make it:
//
//	n = 6, mask = 7    0 1 2 3 4 5        hash ...110 is in bucket 2, until the
//	                                      seventh bucket takes it over as bucket 6
//
// Invariant: keys <= n <= max(minBuckets, 2*keys). The gap between the bounds keeps a table whose size varies a little
// from splitting and merging all the time.
//
// One pause remains: the directory doubles like any slice, which copies 8 bytes for every 1024 keys, and takes a
// millisecond at some hundred million keys.
type index struct {
	segments []*segment // the directory: n buckets and no more
	mask     uint64     // the smallest 2^k - 1 that is not below n-1
	n        uint64     // buckets
	keys     uint64
}

// segment is a run of buckets; each is a chain through its entries.
type segment [segmentBuckets]*entry

func newIndex() index {
	return index{
		segments: []*segment{new(segment)},
		mask:     minBuckets - 1,
		n:        minBuckets,
	}
}

// slot returns bucket b, the head of a chain.
func (x *index) slot(b uint64) **entry {
	return &x.segments[b>>segmentBits][b%segmentBuckets]
}

// bucket returns the head of the chain that entries with this hash are in.
func (x *index) bucket(hash uint64) **entry {
	b := hash & x.mask
	if b >= x.n {
		b &= x.mask >> 1
	}
	return x.slot(b)
}

// find returns the link that leads to the entry of key, or the nil link at the end of its chain, where it belongs. The
// link is valid until the next insert or remove.
func (x *index) find(hash uint64, key []byte) **entry {
	link := x.bucket(hash)
	for e := *link; e != nil; e = *link {
		if e.hash == uint32(hash) && string(e.key) == string(key) {
			break
		}
		link = &e.chain
	}
	return link
}

// linkTo returns the link that leads to e, which must be in the index.
func (x *index) linkTo(e *entry) **entry {
	link := x.bucket(uint64(e.hash))
	for *link != e {
		if *link == nil {
			panic(fmt.Sprintf("lockmgr: held key %q with hash %#x is not in the index of %d keys", e.key, e.hash, x.keys))
		}
		link = &(*link).chain
	}
	return link
}

// insert puts e at link, which find returned for its key.
func (x *index) insert(link **entry, e *entry) {
	*link = e
	x.keys++
	if x.keys > x.n {
		x.split()
	}
}

// remove takes the entry at link out of the index and returns it.
func (x *index) remove(link **entry) *entry {
	e := *link
	*link = e.chain
	e.chain = nil
	x.keys--
	for range mergesPerRemove {
		if x.n > minBuckets && x.n > 2*x.keys {
			x.merge()
		}
	}
	return e
}

// split adds bucket n and moves into it the entries that belong there, from the bucket that has held them so far.
func (x *index) split() {
	added := x.n
	x.n++
	if added > x.mask {
		x.mask = x.mask<<1 | 1
	}
	if added%segmentBuckets == 0 {
		x.segments = append(x.segments, new(segment))
	}

	from, to := x.slot(added&(x.mask>>1)), x.slot(added)
	for e := *from; e != nil; e = *from {
		if uint64(e.hash)&x.mask != added {
			from = &e.chain
			continue
		}
		*from = e.chain
		*to, e.chain = e, nil
		to = &e.chain
	}
}

// merge removes the last bucket and moves its entries to the bucket that holds them from now on.
func (x *index) merge() {
	x.n--
	removed := x.n
	from, to := x.slot(removed), x.slot(removed&(x.mask>>1))
	for *to != nil {
		to = &(*to).chain
	}
	*to, *from = *from, nil

	if removed == x.mask>>1+1 {
		x.mask >>= 1
	}
	if removed%segmentBuckets == 0 {
		x.dropSegment()
	}
}

// dropSegment gives back the last segment, and most of the directory once it is far too long.
func (x *index) dropSegment() {
	last := len(x.segments) - 1
	x.segments[last] = nil
	x.segments = x.segments[:last]
	if cap(x.segments) > minDirectory && cap(x.segments) > 4*last {
		x.segments = append(make([]*segment, 0, 2*last), x.segments...)
	}
}
