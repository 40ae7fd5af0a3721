package server

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"dreadlock/server/api"
)

// naivePage returns the page after a cursor of all rows that came, by sorting them, and whether there are more.
func naivePage(came []rank, after *rank, limit int) (rows []rank, more bool) {
	sorted := slices.Clone(came)
	slices.SortFunc(sorted, func(a, b rank) int {
		switch {
		case a.number > b.number || a.number == b.number && a.name < b.name:
			return -1
		case a == b:
			return 0
		}
		return 1
	})
	met := make(map[string]bool)
	for _, r := range sorted {
		follows := after == nil || r.number < after.number || r.number == after.number && r.name > after.name
		if !follows || met[r.name] {
			continue
		}
		if len(rows) == limit {
			return rows, true
		}
		met[r.name] = true
		rows = append(rows, r)
	}
	return rows, false
}

// Pages that are collected on several shards and merged are those of everything sorted, also where a row is met more than
// once, with another number or on another shard.
func TestPage(t *testing.T) {
	numbers := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64}))
	rows := rapid.Custom(func(t *rapid.T) rank {
		return rank{numbers.Draw(t, "number"), strconv.Itoa(rapid.IntRange(0, 30).Draw(t, "name"))}
	})
	rapid.Check(t, func(t *rapid.T) {
		came := rapid.SliceOfN(rapid.SliceOfN(rows, 0, 40), 1, 4).Draw(t, "shards")
		limit := rapid.IntRange(1, 12).Draw(t, "limit")
		all := slices.Concat(came...)
		var after *rank
		for pages := 0; ; pages++ {
			if pages > len(all) {
				t.Fatal("the pages have no end")
			}
			var collected []*page[rankRow]
			for _, shard := range came {
				p := &page[rankRow]{limit: limit, after: after}
				for _, r := range shard {
					if p.wants(r.number, []byte(r.name)) {
						p.add(rankRow(r))
					}
					if len(p.rows) >= 2*limit+2 {
						t.Fatalf("%d rows are kept for a page of %d", len(p.rows), limit)
					}
				}
				collected = append(collected, p)
			}
			merged := page[rankRow]{limit: limit}
			rows, next := merged.merge("order", collected)
			var got []rank
			for _, r := range rows {
				got = append(got, rank(r))
			}
			want, more := naivePage(all, after, limit)
			if !slices.Equal(got, want) || more != (next != "") || merged.matching != len(all) {
				t.Fatalf("after %v: got %v and %q, %d in all, want %v, more: %t, %d", after, got, next, merged.matching, want, more, len(all))
			}
			if !more {
				return
			}
			var err error
			if after, err = parseCursor("order", next); err != nil || *after != want[limit-1] {
				t.Fatalf("cursor %q: %v, %v, want %v", next, after, err, want[limit-1])
			}
		}
	})
}

// rankRow is a row that has nothing but its rank.
type rankRow rank

func (r rankRow) rank() rank { return rank(r) }

func TestCursor(t *testing.T) {
	for _, r := range []rank{{0, "a"}, {math.MinInt64, "Z9"}, {math.MaxInt64, "0"}, {-1, ""}} {
		text := cursor("age", r)
		if got, err := parseCursor("age", text); err != nil || *got != r {
			t.Errorf("%v: got %v, %v", r, got, err)
		}
		if got, err := parseCursor("wait", text); !errors.Is(err, api.ErrQuery) {
			t.Errorf("%v, of another order: got %v, %v, want ErrQuery", r, got, err)
		}
	}
	if got, err := parseCursor("age", ""); got != nil || err != nil {
		t.Errorf("no cursor: got %v, %v", got, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "cursor")
		if got, err := parseCursor("age", text); (err == nil) != (got != nil || text == "") || err != nil && !errors.Is(err, api.ErrQuery) {
			t.Fatalf("got %v, %v", got, err)
		}
	})
}
