package server

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/reactor"
)

// The lock table and the timing wheel together, in virtual time, beside a model that is as naive as can be. The joints
// are those of shard.go: a timer starts when a request is queued and stops when its grant is delivered, which may be
// later than the grant; a timer that runs out cancels, and has come too late if there was a grant.

const (
	modelSessions = 6
	wheelTurn     = 4096 // ticks
)

// event is what a session is told.
type event struct {
	session int
	outcome proto.Reply
}

func (e event) String() string {
	return fmt.Sprintf("s%d:%s", e.session, e.outcome.Outcome())
}

// system is what is tested: the parts of a shard without its sockets.
type system struct {
	table    *lockmgr.Table
	wheel    *reactor.Wheel
	seed     lockmgr.Seed
	now      reactor.Tick
	sessions [modelSessions]struct {
		request request
		owner   lockmgr.Owner
	}
	grants lockmgr.Grants
	events []event
}

func newSystem() *system {
	s := &system{table: lockmgr.NewTable(1), wheel: reactor.NewWheel(0), seed: lockmgr.MakeSeed()}
	for i := range s.sessions {
		r := &s.sessions[i].request
		r.waiter.Tag, r.timer.Tag = r, r
	}
	return s
}

func (s *system) lock(i int, key string, timeout reactor.Tick) lockmgr.Outcome {
	session := &s.sessions[i]
	r := &session.request
	outcome := s.table.Lock(&session.owner, &r.waiter, s.seed.Hash([]byte(key)), []byte(key), timeout > 0)
	if outcome == lockmgr.Queued {
		if s.wheel.Len() == 0 {
			s.wheel.Advance(s.now)
		}
		s.wheel.Start(&r.timer, s.now+timeout)
	}
	return outcome
}

func (s *system) unlock(i int, key string) lockmgr.Outcome {
	return s.table.Unlock(&s.sessions[i].owner, s.seed.Hash([]byte(key)), []byte(key), &s.grants)
}

func (s *system) cancel(i int) bool {
	r := &s.sessions[i].request
	if !s.table.Cancel(&r.waiter) {
		return false
	}
	s.wheel.Stop(&r.timer)
	return true
}

func (s *system) release(i int) { s.table.Close(&s.sessions[i].owner, &s.grants) }

// expire handles at most n timers.
func (s *system) expire(n int) {
	if s.wheel.Len() == 0 {
		return
	}
	s.wheel.Advance(s.now)
	for range n {
		t := s.wheel.Pop()
		if t == nil {
			break
		}
		r := t.Tag.(*request)
		if s.table.Cancel(&r.waiter) {
			s.tell(r, proto.TimedOut)
		}
	}
}

// settle delivers at most n grants.
func (s *system) settle(n int) {
	for range n {
		w := s.grants.Pop()
		if w == nil {
			break
		}
		r := w.Tag.(*request)
		s.wheel.Stop(&r.timer)
		s.tell(r, proto.Locked)
	}
}

func (s *system) tell(r *request, a proto.Reply) {
	for i := range s.sessions {
		if r == &s.sessions[i].request {
			s.events = append(s.events, event{i, a})
		}
	}
}

// deadline is a running timer of the model.
type deadline struct {
	session int
	due     reactor.Tick
}

// naive is the model: lines of sessions, the holder first, and a list of deadlines in the order in which they started.
type naive struct {
	now       reactor.Tick
	lines     map[string][]int
	held      [modelSessions][]string // in the order of getting
	deadlines []deadline
	granted   []int // not told yet
	events    []event
}

func (m *naive) lock(i int, key string, timeout reactor.Tick) lockmgr.Outcome {
	line := m.lines[key]
	switch {
	case len(line) == 0:
		m.lines[key] = []int{i}
		m.held[i] = append(m.held[i], key)
		return lockmgr.Granted
	case line[0] == i:
		return lockmgr.AlreadyHeld
	case timeout <= 0:
		return lockmgr.Busy
	}
	m.lines[key] = append(line, i)
	m.deadlines = append(m.deadlines, deadline{i, m.now + timeout})
	return lockmgr.Queued
}

func (m *naive) unlock(i int, key string) lockmgr.Outcome {
	line := m.lines[key]
	switch {
	case len(line) == 0:
		return lockmgr.NotHeld
	case line[0] != i:
		return lockmgr.NotOwner
	}
	m.held[i] = slices.DeleteFunc(m.held[i], func(k string) bool { return k == key })
	if line = line[1:]; len(line) == 0 {
		delete(m.lines, key)
		return lockmgr.Released
	}
	m.lines[key] = line
	m.held[line[0]] = append(m.held[line[0]], key)
	m.granted = append(m.granted, line[0])
	return lockmgr.Released
}

// leave takes a session out of the line in which it waits.
func (m *naive) leave(i int) bool {
	for key, line := range m.lines {
		if at := slices.Index(line, i); at > 0 {
			m.lines[key] = slices.Delete(line, at, at+1)
			return true
		}
	}
	return false
}

func (m *naive) cancel(i int) bool {
	if !m.leave(i) {
		return false
	}
	m.stop(i)
	return true
}

func (m *naive) stop(i int) {
	m.deadlines = slices.DeleteFunc(m.deadlines, func(d deadline) bool { return d.session == i })
}

func (m *naive) release(i int) {
	for _, key := range slices.Clone(m.held[i]) {
		m.unlock(i, key)
	}
}

func (m *naive) expire(n int) {
	due := slices.DeleteFunc(slices.Clone(m.deadlines), func(d deadline) bool { return d.due > m.now })
	slices.SortStableFunc(due, func(a, b deadline) int { return cmp.Compare(a.due, b.due) })
	for _, d := range due[:min(n, len(due))] {
		m.stop(d.session)
		if m.leave(d.session) {
			m.events = append(m.events, event{d.session, proto.TimedOut})
		}
	}
}

func (m *naive) settle(n int) {
	for range min(n, len(m.granted)) {
		i := m.granted[0]
		m.granted = m.granted[1:]
		m.stop(i)
		m.events = append(m.events, event{i, proto.Locked})
	}
}

// busy reports whether the session's request is under way: queued, or granted and not told.
func (m *naive) busy(i int) bool { return m.waits(i) || slices.Contains(m.granted, i) }

func (m *naive) waits(i int) bool {
	for _, line := range m.lines {
		if slices.Index(line, i) > 0 {
			return true
		}
	}
	return false
}

func (m *naive) waiters() (n int) {
	for _, line := range m.lines {
		n += len(line) - 1
	}
	return n
}

// compare looks at everything that can be seen from outside, and at what each session was told since the last time.
func compare(t *rapid.T, s *system, m *naive) {
	if !slices.Equal(s.events, m.events) {
		t.Fatalf("tick %d: told %v, want %v", m.now, s.events, m.events)
	}
	s.events, m.events = nil, nil
	if s.table.Keys() != len(m.lines) || s.table.Waiters() != m.waiters() || s.wheel.Len() != len(m.deadlines) {
		t.Fatalf("tick %d: %d keys, %d waiters, %d timers, want %d, %d, %d", m.now,
			s.table.Keys(), s.table.Waiters(), s.wheel.Len(), len(m.lines), m.waiters(), len(m.deadlines))
	}
	for i := range s.sessions {
		session := &s.sessions[i]
		runs := slices.ContainsFunc(m.deadlines, func(d deadline) bool { return d.session == i })
		if session.request.waiter.Queued() != m.waits(i) || session.request.timer.Running() != runs {
			t.Fatalf("tick %d: session %d queued: %t, timer: %t, want %t, %t", m.now, i,
				session.request.waiter.Queued(), session.request.timer.Running(), m.waits(i), runs)
		}
		if empty := len(m.held[i]) == 0 && !m.waits(i); session.owner.Empty() != empty {
			t.Fatalf("tick %d: owner %d is empty: %t, want %t", m.now, i, session.owner.Empty(), empty)
		}
	}
	next, first := s.wheel.Next(), reactor.Never
	for _, d := range m.deadlines {
		first = min(first, d.due)
	}
	if next > first && next > m.now || next == reactor.Never != (first == reactor.Never) {
		t.Fatalf("tick %d: the wheel looks again at tick %d, the first timer is due at %d", m.now, next, first)
	}
}

// TestTimedTable steps the table and the wheel beside the model. The grants of a turn are delivered at its end, and a
// turn may leave expired timers to the next: both are operations here, so that everything can come between.
func TestTimedTable(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = flag.Set(checks.Name, "4000") // a run is short, and what can go wrong is rare
		defer func() { _ = flag.Set(checks.Name, checks.DefValue) }()
	}
	rapid.Check(t, func(t *rapid.T) {
		s, m := newSystem(), &naive{lines: map[string][]int{}}
		session := rapid.IntRange(0, modelSessions-1)
		key := rapid.SampledFrom([]string{"a", "b", "c"})
		// Timeouts that meet each other, and some around whole turns of the wheel.
		ticks := rapid.SampledFrom([]reactor.Tick{0, 1, 1, 2, 2, 3, 5, 9, 70, wheelTurn - 1, wheelTurn, wheelTurn + 1, 2*wheelTurn + 3})
		batch := rapid.SampledFrom([]int{1, 2, 100})

		// free draws a session that may give a command.
		free := func(t *rapid.T) int {
			i := session.Draw(t, "session")
			if m.busy(i) {
				t.Skip("it waits")
			}
			return i
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { compare(t, s, m) },
			"lock": func(t *rapid.T) {
				i, k, timeout := free(t), key.Draw(t, "key"), ticks.Draw(t, "timeout")
				if got, want := s.lock(i, k, timeout), m.lock(i, k, timeout); got != want {
					t.Fatalf("lock: %v, want %v", got, want)
				}
			},
			"unlock": func(t *rapid.T) {
				i, k := free(t), key.Draw(t, "key")
				if got, want := s.unlock(i, k), m.unlock(i, k); got != want {
					t.Fatalf("unlock: %v, want %v", got, want)
				}
			},
			"cancel": func(t *rapid.T) { // the end of the input
				i := session.Draw(t, "session")
				if got, want := s.cancel(i), m.cancel(i); got != want {
					t.Fatalf("cancel: %t, want %t", got, want)
				}
			},
			"close": func(t *rapid.T) { // perhaps with a grant that has not been told
				i := session.Draw(t, "session")
				if got, want := s.cancel(i), m.cancel(i); got != want {
					t.Fatalf("cancel: %t, want %t", got, want)
				}
				s.release(i)
				m.release(i)
			},
			"settle": func(t *rapid.T) {
				n := batch.Draw(t, "grants")
				s.settle(n)
				m.settle(n)
			},
			"expire": func(t *rapid.T) {
				n := batch.Draw(t, "timers")
				s.expire(n)
				m.expire(n)
			},
			"pass": func(t *rapid.T) {
				d := ticks.Draw(t, "ticks")
				s.now += d
				m.now += d
			},
		})

		// Everybody who still waits is told in the end, once.
		s.now, m.now = s.now+3*wheelTurn, m.now+3*wheelTurn
		s.settle(1000)
		m.settle(1000)
		s.expire(1000)
		m.expire(1000)
		compare(t, s, m)
		if s.table.Waiters() != 0 || s.wheel.Len() != 0 {
			t.Fatalf("%d waiters and %d timers are left", s.table.Waiters(), s.wheel.Len())
		}
	})
}
