package server

import (
	"encoding/binary"
	"fmt"
	"time"

	"dreadlock/server/api"
)

// inlineKey is the length, in bytes, of the longest key that a record has room for. It fills a record up to 64 bytes, a cache
// line: of what an event costs a busy machine, the most is to get at the line of the next record.
const inlineKey = 20

// record is an event as a ring keeps it. All records have one size, and what they point to is immutable or guarded.
type record struct {
	at        time.Duration    // since the loops began
	span      time.Duration    // what was waited or held
	token     uint64           // of the grant; of a deadlock its number
	who       *identity        // the client
	heldBy    api.ConnectionID // of a deadlock: who holds the key
	kind      eventKind
	reason    uint8 // its meaning depends on the kind
	keyLength uint16
	inline    [inlineKey]byte // the key or, if that is longer, where it begins in the ring
}

// eventRing keeps the latest records, and their keys. It allocates nothing after [newEventRing]. Keys that are too long for their record
// lie in a ring of bytes of their own. A record that has to make room for a key goes, and all older ones with it, so that what
// is kept is whole: from the oldest record on nothing is missing.
type eventRing struct {
	records []record
	first   uint64 // number of the oldest record that is kept, counted from 0
	next    uint64 // number of the next one
	oldest  int    // place of the first
	free    int    // place of the next

	keys    []byte
	written uint64 // bytes of keys, ever
	dropped uint64 // how many of these are not needed any more
}

const (
	// keyBytesPerRecord is what the ring of bytes has for each record.
	keyBytesPerRecord = 32
	// minKeyBytes has room for the longest key there is, which is shorter than a command: see package proto.
	minKeyBytes = 16 << 10
)

func newEventRing(records int) eventRing {
	return eventRing{records: make([]record, records), keys: make([]byte, max(keyBytesPerRecord*records, minKeyBytes))}
}

// len returns the number of records that are kept.
func (r *eventRing) len() int { return int(r.next - r.first) }

// add adds a record with its key, in the place of the oldest if there is no other. Everything else in it is left from an
// older one, and is to be set.
func (r *eventRing) add(key []byte) *record {
	long := len(key) > inlineKey
	if long {
		r.makeRoom(len(key))
	}
	if r.len() == len(r.records) {
		r.drop()
	}
	rec := &r.records[r.free]
	if r.free++; r.free == len(r.records) {
		r.free = 0
	}
	r.next++
	rec.keyLength = uint16(len(key))
	if !long {
		copy(rec.inline[:], key)
		return rec
	}
	binary.LittleEndian.PutUint64(rec.inline[:], r.written)
	at := int(r.written % uint64(len(r.keys)))
	n := copy(r.keys[at:], key)
	copy(r.keys, key[n:])
	r.written += uint64(len(key))
	return rec
}

// makeRoom drops records until there is room for a key.
func (r *eventRing) makeRoom(length int) {
	if length > len(r.keys) {
		panic(fmt.Sprintf("server: a key of %d bytes for a ring of %d", length, len(r.keys)))
	}
	for r.written-r.dropped+uint64(length) > uint64(len(r.keys)) {
		r.drop()
	}
}

// drop drops the oldest record.
func (r *eventRing) drop() {
	if r.written != r.dropped { // otherwise no key is long, and the record, which is in no cache, need not be read
		if n := int(r.records[r.oldest].keyLength); n > inlineKey {
			r.dropped += uint64(n)
		}
	}
	if r.oldest++; r.oldest == len(r.records) {
		r.oldest = 0
	}
	r.first++
}

// at returns the record with a number, which must be kept.
func (r *eventRing) at(number uint64) *record {
	place := r.oldest + int(number-r.first)
	if place >= len(r.records) {
		place -= len(r.records)
	}
	return &r.records[place]
}

// appendKey appends the key of a record that is kept.
func (r *eventRing) appendKey(to []byte, rec *record) []byte {
	n := int(rec.keyLength)
	if n <= inlineKey {
		return append(to, rec.inline[:n]...)
	}
	at := int(binary.LittleEndian.Uint64(rec.inline[:]) % uint64(len(r.keys)))
	piece := r.keys[at:min(at+n, len(r.keys))]
	to = append(to, piece...)
	return append(to, r.keys[:n-len(piece)]...)
}

// hasKey reports whether a record is about that key.
func (r *eventRing) hasKey(rec *record, key string) bool {
	if int(rec.keyLength) != len(key) {
		return false
	}
	if len(key) <= inlineKey {
		return string(rec.inline[:len(key)]) == key
	}
	at := int(binary.LittleEndian.Uint64(rec.inline[:]) % uint64(len(r.keys)))
	piece := r.keys[at:min(at+len(key), len(r.keys))]
	return string(piece) == key[:len(piece)] && string(r.keys[:len(key)-len(piece)]) == key[len(piece):]
}

// hasRoom reports whether a record can be added with a key of that length, and none is dropped.
func (r *eventRing) hasRoom(length int) bool {
	return r.len() < len(r.records) &&
		(length <= inlineKey || r.written-r.dropped+uint64(length) <= uint64(len(r.keys)))
}

// copyFrom adds a copy of a record of another ring.
func (r *eventRing) copyFrom(other *eventRing, rec *record) *record {
	var short [inlineKey]byte
	key := other.appendKey(short[:0], rec)
	added := r.add(key)
	length, inline := added.keyLength, added.inline
	*added = *rec
	added.keyLength, added.inline = length, inline
	return added
}

// clear drops all records.
func (r *eventRing) clear() {
	clear(r.records)
	*r = eventRing{records: r.records, keys: r.keys}
}
