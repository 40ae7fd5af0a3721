package server

import (
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"dreadlock/proto"
)

func TestRecordSize(t *testing.T) {
	if n := unsafe.Sizeof(record{}); n != 64 {
		t.Errorf("a record has %d bytes, want a cache line", n)
	}
	if minKeyBytes < proto.MaxCommand {
		t.Errorf("a ring has %d bytes for keys, and a command may have %d", minKeyBytes, proto.MaxCommand)
	}
}

// A ring keeps the latest records with their keys, as a slice would: as many as there is room for, and none with half a key.
func TestEventRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 40).Draw(t, "records")
		r := newEventRing(size)
		var want []string // all keys that were ever added
		length := rapid.OneOf(rapid.IntRange(0, 2*inlineKey), rapid.Just(inlineKey), rapid.Just(inlineKey+1), rapid.IntRange(1000, 9979))
		for i := range rapid.IntRange(0, 200).Draw(t, "events") {
			key := strings.Repeat(string(rune('a'+i%26)), length.Draw(t, "length"))
			r.add([]byte(key)).token = uint64(i)
			want = append(want, key)

			kept, bytes := 0, 0
			for kept < min(size, len(want)) {
				if n := len(want[len(want)-1-kept]); n > inlineKey {
					bytes += n
				}
				if bytes > minKeyBytes {
					break
				}
				kept++
			}
			if r.next != uint64(len(want)) || r.len() != kept {
				t.Fatalf("%d records of %d are kept, want %d of %d", r.len(), r.next, kept, len(want))
			}
			for n := r.first; n < r.next; n++ {
				rec := r.at(n)
				if got := string(r.appendKey(nil, rec)); got != want[n] || rec.token != n || !r.hasKey(rec, want[n]) || r.hasKey(rec, want[n]+"x") {
					t.Fatalf("record %d has the key %.40q of event %d, want %.40q", n, got, rec.token, want[n])
				}
			}
		}
	})
}

// A copy has the key of its own ring, and the rest of the record.
func TestCopyFrom(t *testing.T) {
	for _, key := range []string{"", "short", strings.Repeat("long", 2000)} {
		from, to := newEventRing(3), newEventRing(5)
		from.add([]byte(strings.Repeat("x", 9000)))
		to.add([]byte("y"))
		rec := from.add([]byte(key))
		rec.token, rec.kind = 7, eventLost
		got := to.copyFrom(&from, rec)
		if string(to.appendKey(nil, got)) != key || got.token != 7 || got.kind != eventLost || to.len() != 2 {
			t.Errorf("%.20q: the copy has the key %.20q and is %+v", key, to.appendKey(nil, got), got)
		}
	}
}

// A ring allocates nothing, whatever it is given.
func TestEventRingAllocations(t *testing.T) {
	r := newEventRing(16)
	short, long := []byte("short"), []byte(strings.Repeat("long", 500))
	if n := testing.AllocsPerRun(100, func() { r.add(short); r.add(long) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
