package reactor

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// modelTimer is a running timer of the model: a list in the order of starting.
type modelTimer struct {
	timer *Timer
	due   Tick
}

// wheelModel steps a wheel beside a list that is sorted when it is popped from.
type wheelModel struct {
	wheel   *Wheel
	now     Tick
	running []modelTimer
	resting []*Timer
}

// TestWheelModel steps a wheel and the model through random histories in virtual time.
func TestWheelModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := Tick(rapid.Int64Range(0, 3*wheelSlots).Draw(t, "begin"))
		m := &wheelModel{wheel: NewWheel(now), now: now}
		for range 40 {
			m.resting = append(m.resting, &Timer{})
		}
		t.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"start":   m.start,
			"stop":    m.stop,
			"restart": m.restart,
			"advance": m.advance,
			"pop":     func(t *rapid.T) { m.pop(t, rapid.IntRange(0, 3).Draw(t, "pops")) },
		})
		m.pop(t, len(m.running))
	})
}

func (m *wheelModel) start(t *rapid.T) {
	if len(m.resting) == 0 {
		t.Skip("all timers run")
	}
	timer := m.resting[0]
	m.resting = m.resting[1:]
	m.startTimer(t, timer)
}

func (m *wheelModel) startTimer(t *rapid.T, timer *Timer) {
	due := m.drawDue(t)
	m.wheel.Start(timer, due)
	m.running = append(m.running, modelTimer{timer, max(due, m.now+1)})
}

// drawDue draws ticks that lie behind, near, about whole turns ahead, in slots that are in use, and at the end of time.
func (m *wheelModel) drawDue(t *rapid.T) Tick {
	near := Tick(rapid.Int64Range(-3, 20).Draw(t, "near"))
	turns := Tick(rapid.Int64Range(1, 4).Draw(t, "turns"))
	switch rapid.IntRange(0, 4).Draw(t, "kind of due") {
	case 0:
		return m.now + near
	case 1:
		return m.now + turns*wheelSlots + near
	case 2:
		return m.now + Tick(rapid.Int64Range(0, 2*wheelSlots).Draw(t, "due"))
	case 3:
		if len(m.running) > 0 {
			due := rapid.SampledFrom(m.running).Draw(t, "same slot as").due
			return min(due, 1<<50) + (turns-1)*wheelSlots
		}
	}
	return Never - 1
}

func (m *wheelModel) stop(t *rapid.T) { m.stopTimer(t) }

func (m *wheelModel) restart(t *rapid.T) {
	timer := m.stopTimer(t)
	m.resting = m.resting[:len(m.resting)-1]
	m.startTimer(t, timer)
}

// stopTimer stops a timer that runs, whether it has expired or not.
func (m *wheelModel) stopTimer(t *rapid.T) *Timer {
	if len(m.running) == 0 {
		t.Skip("no timer runs")
	}
	i := rapid.IntRange(0, len(m.running)-1).Draw(t, "which")
	timer := m.running[i].timer
	if !m.wheel.Stop(timer) {
		t.Fatalf("Stop of a running timer: false")
	}
	if m.wheel.Stop(timer) {
		t.Fatalf("second Stop of a timer: true")
	}
	m.running = slices.Delete(m.running, i, i+1)
	m.resting = append(m.resting, timer)
	return timer
}

// advance goes by small steps, by about a turn, far beyond one, exactly to what comes next, and back.
func (m *wheelModel) advance(t *rapid.T) {
	now := m.now
	switch rapid.IntRange(0, 4).Draw(t, "kind of step") {
	case 0:
		now += Tick(rapid.Int64Range(-2, 20).Draw(t, "step"))
	case 1:
		now += wheelSlots + Tick(rapid.Int64Range(-2, 2).Draw(t, "about a turn"))
	case 2:
		now += Tick(rapid.Int64Range(1, 20*wheelSlots).Draw(t, "huge step"))
	case 3:
		if len(m.running) > 0 {
			if due := rapid.SampledFrom(m.running).Draw(t, "due of").due; due < 1<<50 {
				now = due - Tick(rapid.Int64Range(0, 1).Draw(t, "before"))
			}
		}
	case 4:
		if next := m.wheel.Next(); next != Never {
			now = next
		}
	}
	m.wheel.Advance(now)
	m.now = max(m.now, now)
}

// pop pops up to n timers: those that are due in the order of their ticks, then nothing.
func (m *wheelModel) pop(t *rapid.T, n int) {
	for range n {
		due := m.due()
		timer := m.wheel.Pop()
		switch {
		case len(due) == 0 && timer == nil:
			return
		case len(due) == 0:
			t.Fatalf("popped a timer due at %d, at %d already", timer.due, m.now)
		case timer == nil:
			t.Fatalf("popped nothing at %d, a timer was due at %d", m.now, due[0].due)
		case timer != due[0].timer:
			t.Fatalf("popped a timer due at %d, the first was due at %d", timer.due, due[0].due)
		case timer.Running():
			t.Fatalf("a popped timer runs")
		}
		m.running = slices.DeleteFunc(m.running, func(r modelTimer) bool { return r.timer == timer })
		m.resting = append(m.resting, timer)
	}
}

// due returns what the model says is due, in order.
func (m *wheelModel) due() []modelTimer {
	due := slices.DeleteFunc(slices.Clone(m.running), func(r modelTimer) bool { return r.due > m.now })
	slices.SortStableFunc(due, func(a, b modelTimer) int { return cmp.Compare(a.due, b.due) })
	return due
}

// check compares what can be seen without a change, and the wheel's own invariants.
func (m *wheelModel) check(t *rapid.T) {
	if m.wheel.Len() != len(m.running) {
		t.Fatalf("Len is %d, want %d", m.wheel.Len(), len(m.running))
	}
	first := Never
	for _, r := range m.running {
		first = min(first, r.due)
		if !r.timer.Running() {
			t.Fatalf("the timer due at %d does not run", r.due)
		}
	}
	next := m.wheel.Next()
	switch {
	case len(m.running) == 0 && next != Never:
		t.Fatalf("Next of an empty wheel is %d", next)
	case first <= m.now && next > m.now:
		t.Fatalf("Next is %d, at %d, with a timer due at %d", next, m.now, first)
	case first > m.now && next <= m.now:
		t.Fatalf("Next is %d, at %d, with nothing due before %d", next, m.now, first)
	case next > max(first, m.now):
		t.Fatalf("Next is %d, later than the first timer at %d", next, first)
	case len(m.running) > 0 && next > m.now+wheelSlots:
		t.Fatalf("Next is %d, more than a turn from %d", next, m.now)
	}
	checkWheel(t, m.wheel)
}

// checkWheel checks that every timer hangs in its slot, and that the two levels of bits say which slots are in use.
func checkWheel(tb rapid.TB, w *Wheel) {
	count := 0
	var words uint64
	var used [64]uint64
	for i := range w.slots {
		for timer := w.slots[i].head; timer != nil; timer = timer.next {
			if timer.list != &w.slots[i] || int(timer.due%wheelSlots) != i || timer.due <= w.now {
				tb.Fatalf("at %d, slot %d has a timer due at %d", w.now, i, timer.due)
			}
			used[i/64] |= 1 << (i % 64)
			words |= 1 << (i / 64)
			count++
		}
	}
	for timer := w.expired.head; timer != nil; timer = timer.next {
		if timer.list != &w.expired || timer.due > w.now {
			tb.Fatalf("at %d, a timer due at %d has expired", w.now, timer.due)
		}
		count++
	}
	if count != w.count || words != w.words || used != w.used {
		tb.Fatalf("%d timers where %d are counted, words %#x where the bits say %#x", count, w.count, words, w.words)
	}
}

// TestWheelOrderBehindStall jumps over whole turns, as after a stall: the order is still that of the due ticks.
func TestWheelOrderBehindStall(t *testing.T) {
	w := NewWheel(0)
	dues := []Tick{3*wheelSlots + 4, 4, wheelSlots + 4, 5, 4, wheelSlots, 2*wheelSlots + 1}
	timers := make([]Timer, len(dues))
	for i, due := range dues {
		timers[i].Tag = i
		w.Start(&timers[i], due)
	}
	w.Advance(5 * wheelSlots)
	var got []any
	for timer := w.Pop(); timer != nil; timer = w.Pop() {
		got = append(got, timer.Tag)
	}
	if want := []any{1, 4, 3, 5, 2, 6, 0}; !slices.Equal(got, want) {
		t.Errorf("popped in the order %v, want %v", got, want)
	}
}

// TestWheelStopExpired stops a timer that has expired and was not popped yet: it is not popped any more.
func TestWheelStopExpired(t *testing.T) {
	w := NewWheel(0)
	var a, b, c Timer
	for _, timer := range []*Timer{&a, &b, &c} {
		w.Start(timer, 1)
	}
	w.Advance(1)
	if !w.Stop(&b) || w.Len() != 2 {
		t.Fatalf("Stop of an expired timer leaves %d, want 2", w.Len())
	}
	if first, second, third := w.Pop(), w.Pop(), w.Pop(); first != &a || second != &c || third != nil {
		t.Error("popped something else than the two that were not stopped")
	}
	checkWheel(t, w)
}

func TestWheelStartTwice(t *testing.T) {
	w := NewWheel(0)
	var timer Timer
	w.Start(&timer, 7)
	defer func() {
		if recover() == nil {
			t.Error("a running timer was started without a panic")
		}
	}()
	w.Start(&timer, 8)
}

func TestWheelAllocs(t *testing.T) {
	w := NewWheel(0)
	var timer Timer
	now := Tick(0)
	if n := testing.AllocsPerRun(1000, func() {
		now++
		w.Start(&timer, now+3*wheelSlots)
		w.Stop(&timer)
		w.Start(&timer, now)
		w.Advance(now)
		w.Pop()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// fullWheel returns a wheel with n timers, spread over three turns.
func fullWheel(n int) *Wheel {
	w := NewWheel(0)
	timers := make([]Timer, n)
	for i := range timers {
		w.Start(&timers[i], Tick(1+i*3%(3*wheelSlots)))
	}
	return w
}

func BenchmarkWheelStartStop(b *testing.B) {
	for _, n := range []int{0, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("running=%d", n), func(b *testing.B) {
			w := fullWheel(n)
			var timer Timer
			b.ReportAllocs()
			for due := Tick(1); b.Loop(); due += 61 {
				w.Start(&timer, due)
				w.Stop(&timer)
			}
		})
	}
}

// BenchmarkWheelAdvance advances by one tick, over an empty wheel and over full ones whose timers start again.
func BenchmarkWheelAdvance(b *testing.B) {
	for _, n := range []int{0, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("running=%d", n), func(b *testing.B) {
			w := fullWheel(n)
			popped := 0
			b.ReportAllocs()
			for now := Tick(1); b.Loop(); now++ {
				w.Advance(now)
				for timer := w.Pop(); timer != nil; timer = w.Pop() {
					w.Start(timer, now+3*wheelSlots)
					popped++
				}
			}
			b.ReportMetric(float64(popped)/float64(b.N), "timers/op")
		})
	}
}
