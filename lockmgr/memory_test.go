package lockmgr

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// TestSteadyStateAllocs runs everything a session does, again and again. Once the pool is warm, nothing may be
// allocated.
func TestSteadyStateAllocs(t *testing.T) {
	r := newRig()
	var a, b, c Owner
	var wb, wc Waiter
	var g Grants
	short, long := []byte("short"), []byte(strings.Repeat("x", maxFreeKey))
	many := makeKeys("key", maxFreeEntries)

	contended := func(key []byte) {
		r.lock(&a, nil, key)
		r.lock(&b, &wb, key)
		r.lock(&c, &wc, key)
		r.table.Cancel(&wb)
		r.lock(&b, &wb, key)
		r.unlock(&a, key, &g)
		g.Pop()
		r.table.Close(&c, &g)
		g.Pop()
		r.unlock(&b, key, &g)
	}
	tests := map[string]func(){
		"short key":   func() { r.lock(&a, nil, short); r.unlock(&a, short, &g) },
		"long key":    func() { r.lock(&a, nil, long); r.unlock(&a, long, &g) },
		"short queue": func() { contended(short) },
		"long queue":  func() { contended(long) },
		"close": func() {
			for _, key := range many {
				r.lock(&a, nil, key)
			}
			r.table.Close(&a, &g)
		},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			if got := testing.AllocsPerRun(100, f); got != 0 {
				t.Errorf("%v allocations, want none", got)
			}
			if !a.Empty() || !b.Empty() || !c.Empty() || !g.Empty() || r.table.Keys() != 0 {
				t.Error("the run did not release everything")
			}
			r.check(t, &a, &b, &c)
		})
	}
}

// TestMemoryGoesBack locks a million keys, all held at once, and unlocks them in another order. The table keeps its
// first segment and a pool of entries, and the heap has its old size but for what the collector is free to keep.
func TestMemoryGoesBack(t *testing.T) {
	const (
		keys = 1_000_000
		// What the pool, the directory and the first segment may come to, in bytes of live objects.
		maxAlloc = 1 << 20
		// The same in pages: every free entry may keep one, 8 KiB each.
		maxInuse = maxFreeEntries*8<<10 + 4<<20
	)
	r := newRig()
	var o Owner
	var g Grants
	key := func(i int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(i)) }
	order := rand.New(rand.NewPCG(1, 2)).Perm(keys)

	before := heap()
	for i := range keys {
		if got := r.lock(&o, nil, key(i)); got != Granted {
			t.Fatalf("lock of key %d: %v", i, got)
		}
	}
	full := heap()
	for _, i := range order {
		if got := r.unlock(&o, key(i), &g); got != Released {
			t.Fatalf("unlock of key %d: %v", i, got)
		}
	}
	after := heap()

	t.Logf("live MiB: %d before, %d full, %d after", before.HeapAlloc>>20, full.HeapAlloc>>20, after.HeapAlloc>>20)
	t.Logf("in use MiB: %d before, %d full, %d after", before.HeapInuse>>20, full.HeapInuse>>20, after.HeapInuse>>20)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > maxAlloc {
		t.Errorf("%d bytes more are live than before, at most %d may be", grown, maxAlloc)
	}
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > maxInuse {
		t.Errorf("%d bytes more are in use than before, at most %d may be", grown, maxInuse)
	}
	r.check(t, &o)
	runtime.KeepAlive(order)
}

// TestLongKeysGoBack holds as many of the longest keys as the pool has room for, and gives them up: the pool keeps the
// entries without the keys.
func TestLongKeysGoBack(t *testing.T) {
	const maxAlloc = 1 << 20 // bytes
	r := newRig()
	var o Owner
	var g Grants
	key := make([]byte, 9000)

	before := heap()
	for i := range maxFreeEntries {
		binary.BigEndian.PutUint64(key, uint64(i))
		r.lock(&o, nil, key)
	}
	r.table.Close(&o, &g)
	after := heap()
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > maxAlloc {
		t.Errorf("%d bytes more are live than before, at most %d may be", grown, maxAlloc)
	}
	if r.table.pool.len != maxFreeEntries {
		t.Errorf("%d free entries, want %d", r.table.pool.len, maxFreeEntries)
	}
	r.check(t, &o)
}

// heap returns the figures of the heap without garbage. The second collection finishes the sweeping of the first.
func heap() runtime.MemStats {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}
