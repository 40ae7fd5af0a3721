package lockmgr

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is the lock table as one would write it down: a list of sessions for every held key, the holder first, then the
// waiters.
type model struct {
	line  map[string][]*place
	held  map[int][]string      // keys by owner, in the order in which it got them
	ended map[int]bool          // owners that are being closed
	since map[int]time.Duration // since when they are
	until map[int]time.Duration // and until when their keys rest
	opens time.Duration         // until then free keys rest
	token uint64                // of the next grant
	now   time.Duration
	left  time.Duration // sum of all holds that have ended
	delay time.Duration
}

// unknown is the owner of the model that may have held keys before there was a table.
const unknown = modelOwners

func newModel(firstToken uint64, delay time.Duration) model {
	return model{
		line: map[string][]*place{}, held: map[int][]string{},
		ended: map[int]bool{unknown: delay > 0}, since: map[int]time.Duration{unknown: 0}, until: map[int]time.Duration{unknown: delay},
		token: firstToken, delay: delay, opens: delay,
	}
}

// place is one waiter of the model, and what its owner holds by it.
type place struct {
	owner  int
	waiter int           // -1 where the key was free
	token  uint64        // of the grant; 0 while it waits
	since  time.Duration // of the grant, or of the wait
}

// grant makes the first in line the holder.
func (m *model) grant(key string) {
	first := m.line[key][0]
	first.token, first.since = m.token, m.now
	m.token++
	m.held[first.owner] = append(m.held[first.owner], key)
}

func (m *model) lock(owner, waiter int, key string, wait bool) Outcome {
	line := m.line[key]
	switch {
	case len(line) == 0 && m.now < m.opens && !wait:
		return Busy
	case len(line) == 0 && m.now < m.opens:
		line = []*place{{owner: unknown, waiter: -1}}
		m.held[unknown] = append(m.held[unknown], key)
	case len(line) == 0:
		m.line[key] = []*place{{owner: owner, waiter: -1}}
		m.grant(key)
		return Granted
	case line[0].owner == owner:
		return AlreadyHeld
	case m.abandoned(key):
		m.unlock(line[0].owner, key)
		return m.lock(owner, waiter, key, wait)
	case !wait:
		return Busy
	}
	m.line[key] = append(line, &place{owner: owner, waiter: waiter, since: m.now})
	return Queued
}

// unlock returns the waiters that were granted a key, none or one.
func (m *model) unlock(owner int, key string) (Outcome, []int) {
	line := m.line[key]
	if len(line) == 0 {
		return NotHeld, nil
	}
	if line[0].owner != owner {
		if m.abandoned(key) || m.rests(line[0].owner) {
			return NotHeld, nil
		}
		return NotOwner, nil
	}
	m.held[owner] = slices.DeleteFunc(m.held[owner], func(k string) bool { return k == key })
	switch {
	case line[0].token == 0: // of the unknown owner
	case m.ended[owner]:
		m.left += m.since[owner] - line[0].since
	default:
		m.left += m.now - line[0].since
	}
	line = line[1:]
	if len(line) == 0 {
		delete(m.line, key)
		return Released, nil
	}
	m.line[key] = line
	m.grant(key)
	return Released, []int{line[0].waiter}
}

// take takes a key from its holder, whoever that is.
func (m *model) take(key string) (Outcome, []int) {
	if len(m.line[key]) == 0 || m.abandoned(key) {
		return NotHeld, nil
	}
	return m.unlock(m.line[key][0].owner, key)
}

// oldest returns when the oldest hold and the oldest wait began, -1 for none.
func (m *model) oldest() (hold, wait time.Duration) {
	hold, wait = -1, -1
	for _, line := range m.line {
		if line[0].token > 0 && (hold < 0 || line[0].since < hold) {
			hold = line[0].since
		}
		if len(line) > 1 && (wait < 0 || line[1].since < wait) {
			wait = line[1].since
		}
	}
	return hold, wait
}

func (m *model) cancel(waiter int) bool {
	for key, line := range m.line {
		for i, p := range line {
			if i > 0 && p.waiter == waiter {
				m.line[key] = slices.Delete(line, i, i+1)
				if len(line) == 2 && line[0].owner == unknown {
					m.unlock(unknown, key)
				}
				return true
			}
		}
	}
	return false
}

// rests reports whether the keys of an owner rest.
func (m *model) rests(owner int) bool { return m.ended[owner] && m.now < m.until[owner] }

// abandoned reports whether a key is nobody's, and only waits to be freed.
func (m *model) abandoned(key string) bool {
	line := m.line[key]
	return len(line) == 1 && m.ended[line[0].owner] && !m.rests(line[0].owner)
}

// close gives up at most n keys if they do not rest, and returns the waiters that were granted one.
func (m *model) close(owner, n int) (granted []int) {
	if !m.ended[owner] && len(m.held[owner]) > 0 {
		m.ended[owner], m.since[owner], m.until[owner] = true, m.now, m.now+m.delay
	}
	if m.rests(owner) {
		return nil
	}
	for _, key := range slices.Clone(m.held[owner][:min(n, len(m.held[owner]))]) {
		_, g := m.unlock(owner, key)
		granted = append(granted, g...)
	}
	if len(m.held[owner]) == 0 {
		delete(m.ended, owner)
	}
	return granted
}

// keys counts the keys that somebody holds.
func (m *model) keys() (n int) {
	for _, line := range m.line {
		if !m.ended[line[0].owner] {
			n++
		}
	}
	return n
}

func (m *model) waiters() int {
	n := 0
	for _, line := range m.line {
		n += len(line) - 1
	}
	return n
}

const (
	modelOwners  = 5
	modelWaiters = 15 // waiter w belongs to owner w % modelOwners
)

// machine steps a table beside a model.
type machine struct {
	table   *Table
	mask    uint64
	owners  [modelOwners + 1]Owner // the last is the unknown one
	waiters [modelWaiters]Waiter
	grants  Grants
	left    time.Duration // as the table has told: see OnLeave
	model   model
	closed  [modelOwners + 1]bool // being closed, or just about to be
	seen    map[string]place      // the grants that the table has told of, and no end of them
	fault   string                // the first thing that it must not have told
}

// Granted and Ended make the machine the observer of its table.
func (m *machine) Granted(key []byte, o *Owner, token uint64, now time.Duration, w *Waiter) {
	p := place{owner: o.Tag.(int), waiter: -1, token: token, since: now}
	if w != nil {
		p.waiter = w.Tag.(int)
	}
	if before, ok := m.seen[string(key)]; ok {
		m.fault = fmt.Sprintf("%q is granted to %+v, and %+v has not ended", key, p, before)
	}
	m.seen[string(key)] = p
}

func (m *machine) Ended(key []byte, o *Owner, token uint64, _, _ time.Duration) {
	if p := m.seen[string(key)]; p.token != token || p.owner != o.Tag.(int) || o.Closed() != m.closed[p.owner] {
		m.fault = fmt.Sprintf("an end of grant %d of %q is told, closed: %t, after %+v", token, key, o.Closed(), p)
	}
	delete(m.seen, string(key))
}

// checkSeen compares what the table has told with what is held.
func (m *machine) checkSeen(t *rapid.T) {
	if m.fault != "" {
		t.Fatal(m.fault)
	}
	granted := 0
	for key, line := range m.model.line {
		if line[0].owner == unknown {
			continue
		}
		granted++
		if m.seen[key] != *line[0] {
			t.Fatalf("%q is held by %+v, and the table has told of %+v", key, *line[0], m.seen[key])
		}
	}
	if len(m.seen) != granted {
		t.Fatalf("%d grants were told and have not ended, want %d", len(m.seen), granted)
	}
}

func (m *machine) hash(key []byte) uint64 {
	h := fnv.New64a()
	h.Write(key)
	return h.Sum64() & m.mask
}

func (m *machine) popGrants() []int {
	var granted []int
	for w := m.grants.Pop(); w != nil; w = m.grants.Pop() {
		granted = append(granted, w.Tag.(int))
	}
	return granted
}

func (m *machine) lock(t *rapid.T, owner, waiter int, key string, wait bool) {
	got := m.table.Lock(&m.owners[owner], &m.waiters[waiter], m.hash([]byte(key)), []byte(key), wait)
	if want := m.model.lock(owner, waiter, key, wait); got != want {
		t.Fatalf("lock of %q by owner %d: %v, want %v", key, owner, got, want)
	}
}

func (m *machine) unlock(t *rapid.T, owner int, key string) {
	got := m.table.Unlock(&m.owners[owner], m.hash([]byte(key)), []byte(key), &m.grants)
	want, grants := m.model.unlock(owner, key)
	if got != want {
		t.Fatalf("unlock of %q by owner %d: %v, want %v", key, owner, got, want)
	}
	m.compareGrants(t, grants)
}

func (m *machine) take(t *rapid.T, key string) {
	got := m.table.Take(m.hash([]byte(key)), []byte(key), &m.grants)
	want, grants := m.model.take(key)
	if got != want {
		t.Fatalf("take of %q: %v, want %v", key, got, want)
	}
	m.compareGrants(t, grants)
}

// checkTimes compares when the oldest hold and the oldest wait began, and how long all holds took that are over.
func (m *machine) checkTimes(t *rapid.T) {
	hold, ok := m.table.OldestHold()
	if !ok {
		hold = -1
	}
	wait, ok := m.table.OldestWait()
	if !ok {
		wait = -1
	}
	if wantHold, wantWait := m.model.oldest(); hold != wantHold || wait != wantWait {
		t.Fatalf("the oldest hold began at %d, and the oldest wait at %d; want %d and %d", hold, wait, wantHold, wantWait)
	}
	if m.left != m.model.left {
		t.Fatalf("what was held was held for %s in all, want %s", m.left, m.model.left)
	}
}

func (m *machine) compareGrants(t *rapid.T, want []int) {
	if got := m.popGrants(); !slices.Equal(got, want) {
		t.Fatalf("granted to waiters %v, want %v", got, want)
	}
}

func (m *machine) cancel(t *rapid.T, waiter int) {
	got := m.table.Cancel(&m.waiters[waiter])
	if want := m.model.cancel(waiter); got != want {
		t.Fatalf("cancel of waiter %d: %t, want %t", waiter, got, want)
	}
}

func (m *machine) check(t *rapid.T) {
	m.checkSeen(t)
	var owners []*Owner
	for i := range m.owners {
		owners = append(owners, &m.owners[i])
	}
	if err := checkTable(m.table, m.hash, owners...); err != nil {
		t.Fatalf("invariant broken: %v", err)
	}
	if m.table.Keys() != m.model.keys() || m.table.Waiters() != m.model.waiters() {
		t.Fatalf("%d keys and %d waiters, want %d and %d",
			m.table.Keys(), m.table.Waiters(), m.model.keys(), m.model.waiters())
	}
	m.checkTimes(t)
	for i := range m.owners {
		keys := heldKeys(&m.owners[i])
		if !slices.Equal(keys, m.model.held[i]) {
			t.Fatalf("owner %d holds %q, want %q", i, keys, m.model.held[i])
		}
	}
	for key, line := range m.model.line {
		want := line[0].token
		if m.model.abandoned(key) {
			want = 0
		}
		h := m.table.Find(m.hash([]byte(key)), []byte(key))
		closed := m.model.ended[line[0].owner] && !m.model.abandoned(key)
		if h.Token != want || h.Closed != closed {
			t.Fatalf("key %q is held by grant %d of an owner that has closed: %t, want grant %d: %t", key, h.Token, h.Closed, want, closed)
		}
		if until := m.model.until[line[0].owner]; closed && h.Until != until {
			t.Fatalf("key %q rests until %s, want %s", key, h.Until, until)
		}
	}
}

func heldKeys(o *Owner) []string {
	var keys []string
	for e := o.held; e != nil; {
		keys = append(keys, string(e.key))
		if e = e.next; e == o.held {
			break
		}
	}
	return keys
}

// TestModel steps the table beside the model. Some runs cut the hashes down to a few bits, so that many keys share a
// bucket or a whole hash; batches of keys make the index grow and shrink under the others.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, 1<<62).Draw(t, "first token")
		delay := rapid.SampledFrom([]time.Duration{0, 0, 1, 3, 10}).Draw(t, "delay")
		m := &machine{
			table: NewTable(first),
			mask:  rapid.SampledFrom([]uint64{^uint64(0), 0xffffffff00000007, 3, 0}).Draw(t, "mask"),
			model: newModel(first, delay),
			seen:  map[string]place{},
		}
		m.prepare()
		if delay > 0 {
			m.table.SetDelay(delay, &m.owners[unknown])
		}

		// Few keys, that sessions may meet at one; some of them long, around the bounds of the storage inside an entry
		// and in a free one.
		keys := []string{"", "a", "b", "c"}
		for _, n := range []int{inlineKey, inlineKey + 1, maxFreeKey, maxFreeKey + 1, 9000} {
			keys = append(keys, string(make([]byte, n)))
		}
		owner := rapid.IntRange(0, modelOwners-1)
		anyOwner := rapid.IntRange(0, unknown)
		waiter := rapid.IntRange(0, modelWaiters-1)
		// open draws an owner, or a waiter of one, that is not being closed.
		open := func(t *rapid.T, which *rapid.Generator[int], label string) int {
			i := which.Draw(t, label)
			if m.model.ended[i%modelOwners] {
				t.Skip("it is being closed")
			}
			return i
		}
		key := rapid.SampledFrom(keys)
		batch := rapid.SampledFrom([]int{1, 10, segmentBuckets / 2, segmentBuckets + 200})

		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"lock": func(t *rapid.T) {
				w := open(t, waiter, "waiter")
				wait := !m.waiters[w].Queued() && rapid.Bool().Draw(t, "wait")
				m.lock(t, w%modelOwners, w, key.Draw(t, "key"), wait)
			},
			"unlock": func(t *rapid.T) {
				m.unlock(t, open(t, owner, "owner"), key.Draw(t, "key"))
			},
			"take": func(t *rapid.T) { m.take(t, key.Draw(t, "key")) },
			"pass": func(t *rapid.T) {
				m.model.now += time.Duration(rapid.IntRange(0, 4).Draw(t, "ns"))
				m.table.Advance(m.model.now)
			},
			"cancel": func(t *rapid.T) {
				m.cancel(t, waiter.Draw(t, "waiter"))
			},
			"close": func(t *rapid.T) {
				o := anyOwner.Draw(t, "owner")
				for w := o; o != unknown && w < modelWaiters; w += modelOwners {
					m.cancel(t, w)
				}
				n := rapid.SampledFrom([]int{0, 1, 2, 1000, math.MaxInt}).Draw(t, "keys at most")
				m.closed[o] = true
				more := m.table.CloseSome(&m.owners[o], n, &m.grants)
				m.compareGrants(t, m.model.close(o, n))
				m.closed[o] = more
				if more != m.model.ended[o] {
					t.Fatalf("owner %d has more to give up: %t, want %t", o, more, m.model.ended[o])
				}
			},
			"restore": func(t *rapid.T) {
				m.restore(t, rapid.SampledFrom([]time.Duration{0, 1, 3, 10}).Draw(t, "delay"))
			},
			"lock batch": func(t *rapid.T) {
				w := open(t, waiter, "waiter")
				for i := range batch.Draw(t, "n") {
					m.lock(t, w%modelOwners, w, strconv.Itoa(i), false)
				}
			},
			"unlock batch": func(t *rapid.T) {
				o := open(t, owner, "owner")
				for i := range batch.Draw(t, "n") {
					m.unlock(t, o, strconv.Itoa(i))
				}
			},
		})
	})
}
