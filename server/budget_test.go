package server

import (
	"testing"
	"time"
)

// The level follows what is reserved, and ends a little below where it began.
func TestLevels(t *testing.T) {
	b := newBudget(3200, 1)
	for _, step := range []struct {
		used int64
		want level
	}{
		{2399, roomy}, {2400, tight}, {2000, tight}, {1999, roomy},
		{3199, tight}, {3200, full}, {3000, full}, {2999, tight},
		{3400, over}, {3300, over}, {3299, full}, {5000, over}, {0, roomy},
	} {
		b.reserve(step.used - b.reserved.Load())
		if got := b.now(); got != step.want {
			t.Errorf("%d of 3200: level %d, want %d", step.used, got, step.want)
		}
	}
}

// A loop reserves in advance, so that what varies a little does not change what all share.
func TestAccount(t *testing.T) {
	b := newBudget(minMaxMemory, 2)
	a, other := account{budget: b}, account{budget: b}
	changes, last := 0, int64(0)
	use := func(a *account, n int64) {
		a.settle(n)
		if now := b.reserved.Load(); now != last {
			changes, last = changes+1, now
		}
		if a.reserved < n || a.reserved > n+chunksAtEase*b.chunk {
			t.Fatalf("%d are reserved for %d", a.reserved, n)
		}
		if sum := a.reserved + other.reserved; a != &other && b.reserved.Load() != sum {
			t.Fatalf("%d are reserved by both, and %d in all", sum, b.reserved.Load())
		}
	}
	use(&other, 12345)
	use(&a, 1_000_000)
	changes = 0
	for i := range int64(1000) {
		use(&a, 1_000_000+i%2*b.chunk)
	}
	if changes > 1 {
		t.Errorf("%d changes", changes)
	}
	use(&a, 0)
	if most := chunksAtEase * b.chunk * 2; b.reserved.Load() > 12345+most {
		t.Errorf("%d are reserved", b.reserved.Load())
	}
}

// Memory is given back once after much of it was given up: when that is over for a while, or goes on for long.
func TestGiveBack(t *testing.T) {
	b := newBudget(1<<30, 1)
	var back giveBack
	now := time.Now()
	use := func(n int64) { b.reserve(n - b.reserved.Load()) }
	due := func(want bool, what string) {
		t.Helper()
		if got := back.due(b, now); got != want {
			t.Errorf("%s: due is %t", what, got)
		}
	}
	use(100 << 20)
	due(false, "nothing was given up")
	use(100<<20 - minGiveBack + 1)
	due(false, "little was given up")
	use(10 << 20)
	due(false, "just given up")
	if !back.pending() {
		t.Error("it is not pending")
	}
	now = now.Add(giveBackAfter - 1)
	use(9 << 20)
	due(false, "some more was given up")
	now = now.Add(giveBackAfter)
	due(true, "nothing more for a while")
	due(false, "it was given back")
	if back.pending() {
		t.Error("it is pending again")
	}
	use(200 << 20)
	for n := int64(150 << 20); ; n -= 1 << 20 {
		use(n)
		if back.due(b, now) {
			break
		}
		now = now.Add(giveBackAfter / 2)
		if n == 0 {
			t.Fatal("it is never given back while more and more is given up")
		}
	}
	use(150 << 20)
	use(100 << 20)
	due(false, "it begins")
	use(150 << 20)
	due(false, "it is in use again")
}

// The log says at once that the memory is used up, and that it is not any more when that has lasted: once each, however often
// the level changes meanwhile.
func TestShortage(t *testing.T) {
	var s shortage
	now := time.Now()
	changes := func(l level, want bool) {
		t.Helper()
		if got := s.changes(l, now); got != want {
			t.Errorf("level %d: changes is %t", l, got)
		}
	}
	changes(tight, false)
	changes(full, true)
	for range 100 {
		now = now.Add(calmTime - 1)
		changes(tight, false)
		changes(over, false)
	}
	now = now.Add(calmTime - 1)
	changes(roomy, false)
	now = now.Add(1)
	changes(tight, true)
	changes(roomy, false)
	changes(over, true)
}
