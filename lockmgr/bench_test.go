package lockmgr

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"
)

// mapTable is the simple implementation that the index and the pool have to beat: a Go map and a new entry for every key
// that is locked. Owners are as in the table.
type mapTable map[string]*entry

func (m mapTable) lock(o *Owner, key []byte) Outcome {
	if e := m[string(key)]; e != nil {
		if e.owner == o {
			return AlreadyHeld
		}
		return Busy
	}
	e := new(entry)
	o.add(e)
	m[string(key)] = e
	return Granted
}

func (m mapTable) unlock(o *Owner, key []byte) Outcome {
	e := m[string(key)]
	switch {
	case e == nil:
		return NotHeld
	case e.owner != o:
		return NotOwner
	}
	delete(m, string(key))
	o.remove(e)
	return Released
}

// lockable is what the benchmarks need of a table or of its baseline.
type lockable interface {
	lockKey(o *Owner, key []byte)
	unlockKey(o *Owner, key []byte)
}

func (r *rig) lockKey(o *Owner, key []byte)       { r.lock(o, nil, key) }
func (r *rig) unlockKey(o *Owner, key []byte)     { r.unlock(o, key, nil) }
func (m mapTable) lockKey(o *Owner, key []byte)   { m.lock(o, key) }
func (m mapTable) unlockKey(o *Owner, key []byte) { m.unlock(o, key) }

func lockAndUnlock(l lockable, o *Owner, key []byte) {
	l.lockKey(o, key)
	l.unlockKey(o, key)
}

// fill locks keys for an owner that keeps them.
func fill(l lockable, keys [][]byte) {
	owner := new(Owner)
	for _, key := range keys {
		l.lockKey(owner, key)
	}
}

// spread returns keys to lock and unlock in turn, in a table that holds others: so many that they do not all share a few
// cache lines.
func spread() [][]byte { return makeKeys("spread", 4096) }

// BenchmarkLockUnlock is an uncontended lock and its unlock, hash included, while other keys are held.
func BenchmarkLockUnlock(b *testing.B) {
	for _, n := range []int{50, 100_000} {
		b.Run(fmt.Sprintf("table/keys=%d", n), func(b *testing.B) { benchLockUnlock(b, newRig(), n) })
		b.Run(fmt.Sprintf("map/keys=%d", n), func(b *testing.B) { benchLockUnlock(b, mapTable{}, n) })
	}
}

func benchLockUnlock(b *testing.B, l lockable, n int) {
	fill(l, makeKeys("held", n))
	keys := spread()
	var o Owner
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		lockAndUnlock(l, &o, keys[i%len(keys)])
		i++
	}
}

// BenchmarkMapRatio measures the table and the map in turns within one run, and reports how many times as long the map
// takes.
func BenchmarkMapRatio(b *testing.B) {
	for _, n := range []int{50, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			r, m := newRig(), mapTable{}
			held := makeKeys("held", n)
			fill(r, held)
			fill(m, held)
			keys := spread()
			round := func(l lockable) time.Duration {
				var o Owner
				start := time.Now()
				for _, key := range keys {
					lockAndUnlock(l, &o, key)
				}
				return time.Since(start)
			}
			var table, plain time.Duration
			for b.Loop() {
				table += round(r)
				plain += round(m)
			}
			b.ReportMetric(float64(plain)/float64(table), "map/table")
		})
	}
}

// BenchmarkContended is the life of a waiter in a long queue. Its cost must not depend on the length.
func BenchmarkContended(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("enqueue-cancel/waiters=%d", n), func(b *testing.B) {
			l := newLine(n)
			w := &Waiter{Tag: new(Owner)}
			b.ReportAllocs()
			for b.Loop() {
				l.enqueue(w)
				l.table.Cancel(w)
			}
		})
		b.Run(fmt.Sprintf("cancel-middle/waiters=%d", n), func(b *testing.B) {
			l := newLine(n)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				// The waiter goes to the end of the queue again, so that the next one comes from anywhere in the middle.
				w := &l.waiters[i*7919%n]
				l.table.Cancel(w)
				l.enqueue(w)
				i++
			}
		})
		b.Run(fmt.Sprintf("handover/waiters=%d", n), func(b *testing.B) {
			l := newLine(n)
			b.ReportAllocs()
			for b.Loop() {
				l.handOver()
			}
		})
	}
}

// line is a key with a holder and n waiters, each with an owner of its own.
type line struct {
	*rig
	key     []byte
	holder  *Owner
	owners  []Owner
	waiters []Waiter
	grants  Grants
}

func newLine(n int) *line {
	l := &line{rig: newRig(), key: []byte("key"), holder: new(Owner), owners: make([]Owner, n), waiters: make([]Waiter, n)}
	l.lock(l.holder, nil, l.key)
	for i := range l.waiters {
		l.waiters[i].Tag = &l.owners[i]
		l.enqueue(&l.waiters[i])
	}
	return l
}

func (l *line) enqueue(w *Waiter) {
	l.lock(w.Tag.(*Owner), w, l.key)
}

// handOver unlocks the key, which its first waiter holds next, and queues the owner that held it, with that waiter, at the
// end.
func (l *line) handOver() {
	l.unlock(l.holder, l.key, &l.grants)
	w := l.grants.Pop()
	before := l.holder
	l.holder = w.Tag.(*Owner)
	w.Tag = before
	l.enqueue(w)
}

// BenchmarkClose is a session that takes a thousand keys and ends; the time is that of all of it.
func BenchmarkClose(b *testing.B) {
	const n = 1000
	r := newRig()
	keys := makeKeys("key", n)
	var o Owner
	var g Grants
	b.ReportAllocs()
	for b.Loop() {
		for _, key := range keys {
			r.lock(&o, nil, key)
		}
		r.table.Close(&o, &g)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
}

// BenchmarkGrowth takes an empty table to a million keys and back, and reports the time of a key on each way.
func BenchmarkGrowth(b *testing.B) {
	b.Run("table", func(b *testing.B) { benchGrowth(b, func() lockable { return newRig() }) })
	b.Run("map", func(b *testing.B) { benchGrowth(b, func() lockable { return mapTable{} }) })
}

func benchGrowth(b *testing.B, empty func() lockable) {
	const n = 1_000_000
	var up, down time.Duration
	b.ReportAllocs()
	for b.Loop() {
		l := empty()
		var o Owner
		var key [8]byte
		each := func(f func(*Owner, []byte)) time.Duration {
			start := time.Now()
			for i := range uint64(n) {
				binary.BigEndian.PutUint64(key[:], i)
				f(&o, key[:])
			}
			return time.Since(start)
		}
		up += each(l.lockKey)
		down += each(l.unlockKey)
	}
	b.ReportMetric(float64(up.Nanoseconds())/float64(b.N)/n, "ns/lock")
	b.ReportMetric(float64(down.Nanoseconds())/float64(b.N)/n, "ns/unlock")
}

// BenchmarkHash is the share of hashing in the above.
func BenchmarkHash(b *testing.B) {
	seed := MakeSeed()
	keys := spread()
	var sum uint64
	i := 0
	for b.Loop() {
		sum += seed.Hash(keys[i%len(keys)])
		i++
	}
	_ = sum
}
