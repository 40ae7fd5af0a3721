package lockmgr

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A walk visits every key that is held from its begin to its end, while other keys come and go so that the index grows and
// shrinks in between.
func TestWalkMissesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table, seed := NewTable(1), MakeSeed()
		var stays, comes Owner
		var g Grants
		lock := func(o *Owner, key string) {
			if got := table.Lock(o, nil, seed.Hash([]byte(key)), []byte(key), false); got != Granted {
				rt.Fatalf("lock %s: %v", key, got)
			}
		}
		want := map[string]bool{}
		for i := range rapid.IntRange(0, 300).Draw(rt, "staying") {
			key := fmt.Sprintf("stays%d", i)
			want[key] = true
			lock(&stays, key)
		}
		var passing []string
		named := 0
		swing := func(label string) {
			n := rapid.IntRange(0, 4000).Draw(rt, label)
			for len(passing) < n {
				key := fmt.Sprintf("comes%d", named)
				named++
				passing = append(passing, key)
				lock(&comes, key)
			}
			for _, key := range passing[n:] {
				if got := table.Unlock(&comes, seed.Hash([]byte(key)), []byte(key), &g); got != Released {
					rt.Fatalf("unlock %s: %v", key, got)
				}
			}
			passing = passing[:n]
		}
		swing("before")
		step := rapid.IntRange(1, 700).Draw(rt, "buckets")
		seen := map[string]bool{}
		steps := 0
		for cursor, begun := uint64(0), false; cursor != 0 || !begun; begun = true {
			cursor = table.Walk(cursor, step, func(h Holding) { seen[string(h.Key)] = true })
			if steps++; steps < 10 {
				swing("between")
			} else if steps > 1<<16 {
				rt.Fatal("the walk does not end")
			}
		}
		for key := range want {
			if !seen[key] {
				rt.Fatalf("key %s was held all the time and not visited", key)
			}
		}
	})
}

// A walk over a table that does not change visits each key once.
func TestWalkVisitsOnce(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 1024, 1025, 1500, 2047, 2048, 2049, 5000} {
		table, seed := NewTable(1), MakeSeed()
		var o Owner
		for i := range n {
			key := []byte(fmt.Sprint("key", i))
			table.Lock(&o, nil, seed.Hash(key), key, false)
		}
		visits := map[string]int{}
		for cursor, begun := uint64(0), false; cursor != 0 || !begun; begun = true {
			cursor = table.Walk(cursor, 100, func(h Holding) { visits[string(h.Key)]++ })
		}
		if len(visits) != n {
			t.Errorf("%d keys of %d were visited", len(visits), n)
		}
		for key, times := range visits {
			if times != 1 {
				t.Errorf("of %d keys, %s was visited %d times", n, key, times)
			}
		}
	}
}

// What is seen of a key, a holder and a queue is what they are.
func TestView(t *testing.T) {
	table, seed := NewTable(1), MakeSeed()
	hash := func(key string) uint64 { return seed.Hash([]byte(key)) }
	a, b, c := Owner{Tag: "a"}, Owner{Tag: "b"}, Owner{Tag: "c"}
	wb, wc := Waiter{Tag: "b"}, Waiter{Tag: "c"}
	var g Grants

	if h := table.Find(hash("k"), []byte("k")); h.Owner != nil || h.Token != 0 {
		t.Errorf("a free key is held by grant %d", h.Token)
	}
	table.Advance(5 * time.Second)
	table.Lock(&a, nil, hash("k"), []byte("k"), false)
	table.Advance(time.Second) // time does not go back
	table.Lock(&a, nil, hash("l"), []byte("l"), false)
	table.Lock(&b, &wb, hash("k"), []byte("k"), true)
	table.Lock(&c, &wc, hash("k"), []byte("k"), true)

	h := table.Find(hash("k"), []byte("k"))
	if string(h.Key) != "k" || h.Owner != &a || h.Waiters != 2 || h.First != &wb || wb.Next() != &wc || wc.Next() != nil {
		t.Errorf("the holding is %+v", h)
	}
	if h.Since != 5*time.Second || h.Token != 1 {
		t.Errorf("held since %s by grant %d, want 5s and 1", h.Since, h.Token)
	}
	if l := table.Find(hash("l"), []byte("l")); l.Since != h.Since || l.Token != 2 {
		t.Errorf("l is held since %s by grant %d, want %s and 2", l.Since, l.Token, h.Since)
	}
	if w := wc.WaitsFor(); w.Owner != &a || string(w.Key) != "k" {
		t.Errorf("c waits for %+v", w)
	}
	var keys []string
	a.Each(func(h Holding) bool {
		keys = append(keys, string(h.Key))
		return true
	})
	if !slices.Equal(keys, []string{"k", "l"}) {
		t.Errorf("a holds %v", keys)
	}
	a.Each(func(h Holding) bool {
		if string(h.Key) != "k" {
			t.Errorf("went on to %s", h.Key)
		}
		return false
	})
	b.Each(func(h Holding) bool {
		t.Errorf("b holds %s", h.Key)
		return true
	})

	table.Advance(9 * time.Second)
	table.Unlock(&a, hash("k"), []byte("k"), &g)
	h = table.Find(hash("k"), []byte("k"))
	if h.Owner != &b || h.Waiters != 1 || h.First != &wc || h.Since != 9*time.Second || h.Token != 3 {
		t.Errorf("after the grant the holding is %+v", h)
	}
	if w := wb.WaitsFor(); w.Owner != nil || wb.Next() != nil {
		t.Errorf("a holder waits for %+v", w)
	}
}
