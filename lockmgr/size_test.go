package lockmgr

import (
	"encoding/binary"
	"testing"
)

// A held key costs what KeySize says: the heap grows by that, or by a little less.
func TestKeySize(t *testing.T) {
	for _, length := range []int{4, inlineKey, inlineKey + 1, 64, 65, 100, 1000, 9000} {
		const bytes = 32 << 20
		keys := bytes / KeySize(length)
		r := newRig()
		var o Owner
		key := make([]byte, length)
		before := heap()
		for i := range keys {
			binary.BigEndian.PutUint32(key, uint32(i))
			if got := r.lock(&o, nil, key); got != Granted {
				t.Fatalf("key %d of %d bytes: %v", i, length, got)
			}
		}
		grown := int64(heap().HeapAlloc) - int64(before.HeapAlloc)
		if r.table.Size() != int64(keys*KeySize(length)) {
			t.Errorf("%d keys of %d bytes: size %d, want %d each", keys, length, r.table.Size(), KeySize(length))
		}
		if grown > r.table.Size()*102/100 || grown < r.table.Size()*75/100 {
			t.Errorf("%d keys of %d bytes took %d bytes, and %d are counted", keys, length, grown, r.table.Size())
		}
		var g Grants
		r.table.Close(&o, &g)
		if r.table.Size() != 0 {
			t.Errorf("%d bytes are counted for no key", r.table.Size())
		}
	}
}

// A table that was trimmed keeps nothing for reuse, and works as before.
func TestTrim(t *testing.T) {
	r := newRig()
	var o Owner
	var g Grants
	for _, key := range makeKeys("key", 10) {
		r.lock(&o, nil, key)
	}
	r.unlock(&o, []byte("key1"), &g)
	r.table.Trim()
	if r.table.pool.len != 0 || r.table.pool.free != nil {
		t.Errorf("%d entries are kept", r.table.pool.len)
	}
	r.check(t, &o)
	r.table.Close(&o, &g)
	r.check(t, &o)
}
