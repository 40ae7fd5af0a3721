package reactor

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Tick is a point in time, counted in ticks since the reactor started.
type Tick int64

// Never is the tick that does not come.
const Never Tick = math.MaxInt64

// wheelSlots is the number of ticks in one turn of the wheel: 20 seconds of the default 5 ms. A timer that is due later
// than that is passed over once a turn, which costs less than a second wheel would. It is 64 times 64 because two
// levels of 64-bit words find the next slot in use.
const wheelSlots = 64 * 64

// Timer is an entry of a wheel, embedded in what it times. It belongs to the loop whose wheel it runs in. The zero
// value is a timer at rest.
type Timer struct {
	prev, next *Timer
	list       *timerList // where it is linked: a slot, or the expired ones; nil at rest
	due        Tick
	// Tag is the caller's own; the wheel never looks at it.
	Tag any
}

// Running reports whether the timer has been started and was neither popped nor stopped.
func (t *Timer) Running() bool { return t.list != nil }

// Wheel is a hashed timing wheel: a timer hangs in the slot of its due tick modulo the number of slots. Starting and
// stopping are O(1) and allocate nothing. It has no clock; whoever owns it says what time it is.
//
// Timers are popped in the order of their due ticks, those of one tick in the order in which they were started.
type Wheel struct {
	now     Tick // Advance has been here: whatever was due is in expired
	count   int
	expired timerList
	words   uint64     // bit i: used[i] is not zero
	used    [64]uint64 // bit s of the 4096: slots[s] is not empty
	slots   [wheelSlots]timerList
}

// NewWheel returns an empty wheel that stands at now.
func NewWheel(now Tick) *Wheel { return &Wheel{now: now} }

// Len returns the number of running timers.
func (w *Wheel) Len() int { return w.count }

// Start runs t until the tick due; one that has passed means the next. It panics if t is running.
func (w *Wheel) Start(t *Timer, due Tick) {
	if t.list != nil {
		panic(fmt.Sprintf("reactor: timer due at tick %d started again for tick %d", t.due, due))
	}
	t.due = max(due, w.now+1)
	slot := int(t.due & (wheelSlots - 1))
	w.slots[slot].push(t)
	w.used[slot>>6] |= 1 << (slot & 63)
	w.words |= 1 << (slot >> 6)
	w.count++
}

// Stop takes t out, also when it has expired and was not popped yet. It reports whether t was running.
func (w *Wheel) Stop(t *Timer) bool {
	if t.list == nil {
		return false
	}
	w.unlink(t)
	w.count--
	return true
}

// Advance moves the wheel to now; Pop then gives what is due. An earlier tick changes nothing.
func (w *Wheel) Advance(now Tick) {
	stalled := now-w.now > wheelSlots
	if stalled {
		w.now = now - wheelSlots // one whole turn visits every slot, but not in the order of what hangs there
	}
	for {
		next := w.nextUsed()
		if next > now {
			break
		}
		w.now = next
		w.collect(&w.slots[next&(wheelSlots-1)], now)
	}
	w.now = max(w.now, now)
	if stalled {
		w.expired.sort()
	}
}

// Pop returns the next timer that is due, at rest, or nil.
func (w *Wheel) Pop() *Timer {
	t := w.expired.head
	if t != nil {
		w.expired.remove(t)
		w.count--
	}
	return t
}

// Next returns the first tick at which there may be something to do, never later than the first due timer and at most
// one turn of the wheel away; [Never] if no timer runs.
func (w *Wheel) Next() Tick {
	if w.expired.head != nil {
		return w.now
	}
	return w.nextUsed()
}

// collect moves the timers of a slot that are due at now to the expired ones.
func (w *Wheel) collect(slot *timerList, now Tick) {
	for t := slot.head; t != nil; {
		next := t.next
		if t.due <= now {
			w.unlink(t)
			w.expired.push(t)
		}
		t = next
	}
}

func (w *Wheel) unlink(t *Timer) {
	list := t.list
	list.remove(t)
	if list.head == nil && list != &w.expired {
		slot := int(t.due & (wheelSlots - 1))
		if w.used[slot>>6] &^= 1 << (slot & 63); w.used[slot>>6] == 0 {
			w.words &^= 1 << (slot >> 6)
		}
	}
}

// nextUsed returns the first tick after now whose slot is in use.
func (w *Wheel) nextUsed() Tick {
	if w.words == 0 {
		return Never
	}
	first := int((w.now + 1) & (wheelSlots - 1))
	word := first >> 6
	var slot int
	if rest := w.used[word] >> (first & 63); rest != 0 {
		slot = first + bits.TrailingZeros64(rest)
	} else {
		// The words after this one, round to this one itself.
		rest := bits.RotateLeft64(w.words, -(word + 1))
		word = (word + 1 + bits.TrailingZeros64(rest)) & 63
		slot = word<<6 + bits.TrailingZeros64(w.used[word])
	}
	return w.now + 1 + Tick((slot-first)&(wheelSlots-1))
}

// timerList is a doubly linked list in the order of insertion.
type timerList struct {
	head, tail *Timer
}

func (l *timerList) push(t *Timer) {
	t.list, t.prev, t.next = l, l.tail, nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
}

func (l *timerList) remove(t *Timer) {
	if t.prev == nil {
		l.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.list, t.prev, t.next = nil, nil, nil
}

// sort puts the list in the order of the due ticks, and keeps the order within one tick.
func (l *timerList) sort() {
	var timers []*Timer
	for t := l.head; t != nil; t = t.next {
		timers = append(timers, t)
	}
	slices.SortStableFunc(timers, func(a, b *Timer) int { return cmp.Compare(a.due, b.due) })
	l.head, l.tail = nil, nil
	for _, t := range timers {
		l.push(t)
	}
}
