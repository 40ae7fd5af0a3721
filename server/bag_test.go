package server

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type token struct{ at int32 }

func (t *token) place() *int32 { return &t.at }

// checkBag compares a bag with the members that it should have.
func checkBag(t *rapid.T, b *bag[*token], want map[*token]bool) {
	if b.len() != len(want) {
		t.Fatalf("%d members, want %d", b.len(), len(want))
	}
	for i, m := range b.members {
		if !want[m] || m.at != int32(i+1) {
			t.Fatalf("member %d is wanted: %t, and says it is at %d", i, want[m], m.at)
		}
	}
	for i, m := range b.members[b.len():cap(b.members)] {
		if m != nil {
			t.Fatalf("a member is kept %d places after the end", i+1)
		}
	}
}

// Every member that is in the bag all the time is visited, while others are added and removed between the steps of a walk
// and by the visits.
func TestBag(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bag[*token]
		want := make(map[*token]bool)
		var removed []*token // may be added again
		var stays []*token   // those that were there at the beginning of the walk and still are
		remove := func(m *token) {
			if b.remove(m) != want[m] || b.remove(m) {
				t.Fatal("a member was not removed once")
			}
			if want[m] {
				removed = append(removed, m)
			}
			delete(want, m)
			stays = slices.DeleteFunc(stays, func(s *token) bool { return s == m })
		}
		change := func(label string) {
			for range rapid.IntRange(0, 8).Draw(t, label) {
				if rapid.Bool().Draw(t, "add") {
					m := &token{}
					if len(removed) > 0 && rapid.Bool().Draw(t, "again") {
						m, removed = removed[0], removed[1:]
					}
					b.add(m)
					want[m] = true
				} else if b.len() > 0 {
					m := b.members[rapid.IntRange(0, b.len()-1).Draw(t, "which")]
					remove(m)
				}
				checkBag(t, &b, want)
			}
		}
		change("before")
		stays = slices.Clone(b.members)
		var w bagWalk
		visited := make(map[*token]bool)
		for steps, more := 0, true; more; steps++ {
			if steps > 1000 {
				t.Fatal("the walk does not end")
			}
			n := rapid.IntRange(1, 4).Draw(t, "step")
			visits, stop := 0, rapid.IntRange(1, 5).Draw(t, "stop")
			more = b.walk(&w, n, func(m *token) bool {
				visited[m] = true
				visits++
				if rapid.IntRange(0, 3).Draw(t, "remove") == 3 {
					remove(m)
				}
				if steps < 20 {
					change("during")
				}
				return visits < stop
			})
			if visits > min(n, stop) {
				t.Fatalf("%d visits in a step of %d that was to stop at %d", visits, n, stop)
			}
			checkBag(t, &b, want)
			if steps < 20 {
				change("between")
			}
		}
		for i, m := range stays {
			if !visited[m] {
				t.Fatalf("member %d of those that stayed was not visited", i)
			}
		}
	})
}
