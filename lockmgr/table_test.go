package lockmgr

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// rig is a table with what a test needs to call it.
type rig struct {
	seed  Seed
	table *Table
}

func newRig() *rig {
	return &rig{seed: MakeSeed(), table: NewTable(1)}
}

func (r *rig) lock(o *Owner, w *Waiter, key []byte) Outcome {
	return r.table.Lock(o, w, r.seed.Hash(key), key, w != nil)
}

func (r *rig) unlock(o *Owner, key []byte, g *Grants) Outcome {
	return r.table.Unlock(o, r.seed.Hash(key), key, g)
}

func (r *rig) check(t *testing.T, owners ...*Owner) {
	t.Helper()
	if err := checkTable(r.table, r.seed.Hash, owners...); err != nil {
		t.Fatal("invariant broken:", err)
	}
}

// makeKeys returns n different keys of letters and digits.
func makeKeys(prefix string, n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%s%d", prefix, i)
	}
	return keys
}

func wantPanic(t *testing.T, text string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), text) {
			t.Errorf("panic %v, want one with %q", r, text)
		}
	}()
	f()
}

func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(entry{}); got != 128 {
		t.Errorf("an entry has %d bytes, want the size class of 128", got)
	}
	if got := unsafe.Sizeof(Owner{}); got != 40 {
		t.Errorf("an owner has %d bytes, want 40", got)
	}
	if got := unsafe.Sizeof(Waiter{}); got != 72 {
		t.Errorf("a waiter has %d bytes, want 72", got)
	}
}

// TestInlineKey shows which keys need no storage of their own.
func TestInlineKey(t *testing.T) {
	key := make([]byte, inlineKey+1)
	for n, want := range map[int]bool{0: true, inlineKey: true, inlineKey + 1: false} {
		e := new(entry)
		e.setKey(key[:n])
		if got := unsafe.SliceData(e.key) == &e.inline[0]; got != want {
			t.Errorf("a key of %d bytes lies inside its entry: %t, want %t", n, got, want)
		}
	}
}

func TestOutcomeString(t *testing.T) {
	want := []string{"Outcome(0)", "granted", "queued", "busy", "already held", "released", "not held", "not owner", "Outcome(8)"}
	for o, name := range want {
		if got := Outcome(o).String(); got != name {
			t.Errorf("outcome %d is %q, want %q", o, got, name)
		}
	}
}

// TestSeeds shows that one seed always gives one hash, and two seeds two.
func TestSeeds(t *testing.T) {
	a, b := MakeSeed(), MakeSeed()
	key := []byte("key")
	if a.Hash(key) != a.Hash([]byte("key")) {
		t.Error("two hashes of one key by one seed differ")
	}
	if a.Hash(key) == b.Hash(key) {
		t.Error("two seeds give a key the same hash")
	}
}

// TestKeyIsCopied overwrites the caller's bytes after the calls, as a parser's buffer is.
func TestKeyIsCopied(t *testing.T) {
	for _, n := range []int{1, inlineKey, inlineKey + 1} {
		r := newRig()
		var o, other Owner
		var g Grants
		key := []byte(strings.Repeat("x", n))
		r.lock(&o, nil, key)
		copy(key, strings.Repeat("y", n))
		if got := r.lock(&other, nil, key); got != Granted {
			t.Errorf("a key of %d bytes changed with the caller's buffer: lock of the new bytes: %v", n, got)
		}
		if got := r.unlock(&o, []byte(strings.Repeat("x", n)), &g); got != Released {
			t.Errorf("a key of %d bytes changed with the caller's buffer: unlock of the old bytes: %v", n, got)
		}
		r.check(t, &o, &other)
	}
}

// TestGrantsOfSeveralCalls collects grants over calls before any is popped.
func TestGrantsOfSeveralCalls(t *testing.T) {
	r := newRig()
	var holder, waiting Owner
	var g Grants
	keys := makeKeys("k", 3)
	waiters := make([]Waiter, len(keys))
	for i, key := range keys {
		waiters[i].Tag = i
		r.lock(&holder, nil, key)
		r.lock(&waiting, &waiters[i], key)
	}
	r.unlock(&holder, keys[1], &g)
	r.table.Close(&holder, &g)
	r.check(t, &holder, &waiting)

	for _, want := range []int{1, 0, 2} {
		w := g.Pop()
		if w == nil || w.Tag != want || w.Queued() {
			t.Fatalf("popped %+v, want waiter %d, not queued", w, want)
		}
		// It may be used again at once.
		if got := r.lock(&holder, w, keys[want]); got != Queued {
			t.Errorf("lock with a popped waiter: %v", got)
		}
	}
	if w := g.Pop(); w != nil || !g.Empty() {
		t.Errorf("popped %+v from an empty list", w)
	}
	r.check(t, &holder, &waiting)
}

// TestOneOwnerTwice lets an owner stand twice in the line for one key. The second place waits like any other's.
func TestOneOwnerTwice(t *testing.T) {
	r := newRig()
	var a, b Owner
	var w1, w2 Waiter
	var g Grants
	key := []byte("k")
	r.lock(&a, nil, key)
	r.lock(&b, &w1, key)
	r.lock(&b, &w2, key)
	r.unlock(&a, key, &g)
	if got := g.Pop(); got != &w1 || !w2.Queued() || b.queued != 1 {
		t.Fatalf("the first place of b was not granted: %+v", got)
	}
	r.unlock(&b, key, &g)
	if got := g.Pop(); got != &w2 || r.table.Keys() != 1 {
		t.Fatalf("the second place of b was not granted: %+v", got)
	}
	r.check(t, &a, &b)
}

// TestMisuse shows that a caller that breaks the contract is stopped before the table is changed.
func TestMisuse(t *testing.T) {
	r := newRig()
	var holder, waiting Owner
	var w Waiter
	var g Grants
	a, b := []byte("a"), []byte("b")
	r.lock(&holder, nil, a)
	r.lock(&holder, nil, b)
	r.lock(&waiting, &w, a)

	wantPanic(t, "first token is 0", func() { NewTable(0) })
	wantPanic(t, "still in use", func() { r.lock(&waiting, &w, b) })
	wantPanic(t, "1 waiters queued", func() { r.table.Close(&waiting, &g) })
	r.check(t, &holder, &waiting)

	// A grant that was not popped keeps the waiter busy, and cannot be undone.
	r.unlock(&holder, a, &g)
	wantPanic(t, "still in use", func() { r.lock(&waiting, &w, b) })
	if r.table.Cancel(&w) {
		t.Error("a granted waiter was cancelled")
	}
	if got := g.Pop(); got != &w {
		t.Errorf("popped %+v, want %+v", got, &w)
	}
	r.check(t, &holder, &waiting)
}

// TestBrokenInvariants breaks a table by hand. It must stop, and say where.
func TestBrokenInvariants(t *testing.T) {
	key := []byte("lost")
	t.Run("held key not in the index", func(t *testing.T) {
		r := newRig()
		var o Owner
		r.lock(&o, nil, key)
		*r.table.index.bucket(uint64(o.held.hash)) = nil
		wantPanic(t, `"lost"`, func() { r.table.Close(&o, &Grants{}) })
	})
	t.Run("waiter in a foreign queue", func(t *testing.T) {
		r := newRig()
		var holder, waiting Owner
		var w Waiter
		r.lock(&holder, nil, key)
		r.lock(&waiting, &w, key)
		w.entry = &entry{}
		wantPanic(t, `"lost"`, func() { r.unlock(&holder, key, &Grants{}) })
	})
	t.Run("held key freed", func(t *testing.T) {
		r := newRig()
		var o Owner
		r.lock(&o, nil, key)
		wantPanic(t, `"lost"`, func() { r.table.pool.put(o.held) })
	})
}

// An owner apart stands in line and holds like any other, and is in none of the numbers.
func TestOwnerApart(t *testing.T) {
	r := newRig()
	seen := &grantLog{}
	r.table.Observe(seen)
	left := 0
	r.table.OnLeave(func(time.Duration) { left++ })
	r.table.Advance(time.Second)
	key := []byte("a")
	var far, near Owner
	var farWaits, nearWaits, farAgain Waiter
	var g Grants
	far.SetApart()
	wantNumbers := func(keys, waiters int) {
		t.Helper()
		_, holds := r.table.OldestHold()
		_, waits := r.table.OldestWait()
		if r.table.Keys() != keys || r.table.Waiters() != waiters || holds != (keys > 0) || waits != (waiters > 0) {
			t.Errorf("%d keys, %d waiters, want %d and %d; oldest hold %v, oldest wait %v", r.table.Keys(), r.table.Waiters(), keys, waiters, holds, waits)
		}
		r.check(t, &far, &near)
	}
	if got := r.lock(&far, &farWaits, key); got != Granted {
		t.Fatal(got)
	}
	wantNumbers(0, 0)
	if got := r.lock(&near, &nearWaits, key); got != Queued {
		t.Fatal(got)
	}
	nearWaits.SetSince(time.Millisecond)
	wantNumbers(0, 1)
	r.unlock(&far, key, &g)
	if w := g.Pop(); w != &nearWaits || w.Since() != time.Millisecond {
		t.Fatalf("granted to %p, who has waited since %s", w, w.Since())
	}
	r.table.Advance(time.Hour)
	if got := r.lock(&far, &farAgain, key); got != Queued || farAgain.Since() != time.Hour {
		t.Fatalf("%v, since %s", got, farAgain.Since())
	}
	wantNumbers(1, 0)
	r.unlock(&near, key, &g)
	if g.Pop() != &farAgain {
		t.Fatal("the owner apart is not granted the key")
	}
	wantNumbers(0, 0)
	if len(*seen) != 2 || left != 1 {
		t.Errorf("the observer has seen %v, and %d keys have left their holders", *seen, left)
	}
	r.unlock(&far, key, &g)
	wantNumbers(0, 0)
	if r.table.Size() != 0 {
		t.Errorf("%d bytes are left", r.table.Size())
	}
}

// grantLog has the tokens of all grants, and of their ends.
type grantLog []uint64

func (l *grantLog) Granted(_ []byte, _ *Owner, token uint64, _ time.Duration, _ *Waiter) {
	*l = append(*l, token)
}
func (l *grantLog) Ended(_ []byte, _ *Owner, token uint64, _, _ time.Duration) {
	*l = append(*l, token)
}

// A transfer is a grant of its own, before those who wait; tokens may come from elsewhere.
func TestTransfer(t *testing.T) {
	r := newRig()
	next := uint64(100)
	r.table.SetTokens(func(key []byte, _ *Owner) uint64 {
		if string(key) != "a" {
			t.Errorf("a token for %q", key)
		}
		next += 7
		return next
	})
	key := []byte("a")
	var from, to, third Owner
	var waits Waiter
	var g Grants
	r.lock(&from, nil, key)
	r.lock(&third, &waits, key)
	r.table.Transfer(&from, &to, r.seed.Hash(key), key)
	r.check(t, &from, &to, &third)
	if h := r.table.Find(r.seed.Hash(key), key); h.Owner != &to || h.Token != 114 || h.Waiters != 1 || !from.Empty() {
		t.Errorf("after the transfer: %+v", h)
	}
	r.unlock(&to, key, &g)
	if g.Pop() != &waits {
		t.Error("who waits is not granted the key")
	}
	wantPanic(t, "does not hold", func() { r.table.Transfer(&from, &to, r.seed.Hash(key), key) })
}
