package faults

import (
	"io"
	"strings"
	"testing"
	"time"
)

// script is a history that somebody has made up: each line is one operation of a session.
type script struct {
	history
}

// op adds an operation. A reply of "" is an answer that never came.
func (s *script) op(session int, v verb, timeout time.Duration, reply string, sent, answered int) *operation {
	o := command(v, "key", timeout)
	o.reply, o.sent = reply, moment(sent)
	if reply != "" {
		o.answered = moment(answered)
	}
	of := s.session(session)
	of.operations = append(of.operations, o)
	return &of.operations[len(of.operations)-1]
}

func (s *script) session(n int) *session {
	for len(s.sessions) <= n {
		s.add()
	}
	return s.sessions[n]
}

func (s *script) lost(session, at int) { s.session(session).lost.Store(int64(at)) }

// TestCheck: histories of a sound daemon are found without fault, and each kind of violation is found in a history that has it.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		story func(s *script)
		want  string // a part of the violation; empty: there is none
	}{
		{"handed over", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 9, locked, 3, 6)
			s.op(0, unlock, 0, unlocked, 4, 5)
			s.op(1, unlock, 0, unlocked, 7, 8)
		}, ""},
		{"two holders", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 0, locked, 3, 4)
			s.op(0, unlock, 0, unlocked, 7, 8)
			s.op(1, unlock, 0, unlocked, 9, 10)
		}, "held it at the same time"},
		{"two holders, one for ever", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 0, locked, 3, 4)
		}, "held it at the same time"},
		{"two holders, one of them in a pipeline", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 0, locked, 3, 6)
			s.op(1, unlock, 0, unlocked, 3, 6)
			s.op(0, unlock, 0, notOwner, 7, 8)
		}, "the session holds it"},
		{"granted after the holder was lost", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.lost(0, 3)
			s.op(1, lock, 9, locked, 2, 4)
		}, ""},
		{"granted before the holder was lost", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.lost(0, 7)
			s.op(1, lock, 9, locked, 2, 4)
		}, "held it at the same time"},
		{"a connection is ended for no reason", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.session(0).ended, s.session(0).cause = moment(2*time.Second+2), io.EOF
		}, "ended its connection for no reason: EOF, 2s after its last command or answer"},
		{"a connection is ended that had to", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.lost(0, 4)
			s.session(0).ended = 5
		}, ""},
		{"no answer", func(s *script) { s.op(0, lock, 0, "", 1, 0) }, "got no answer"},
		{"no answer to one that is lost", func(s *script) {
			s.op(0, lock, 0, "", 1, 0)
			s.lost(0, 4)
		}, ""},
		{"an early timeout", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 50, timedOut, 10, 59)
		}, "1ns early"},
		{"a timeout in time", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 50, timedOut, 10, 60)
		}, ""},
		{"a timeout of a free key", func(s *script) { s.op(0, lock, 5, timedOut, 10, 16) }, "nobody else could have it"},
		{"a timeout of a key that came free", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, lock, 20, timedOut, 3, 30)
			s.op(0, unlock, 0, unlocked, 4, 5)
		}, "nobody else could have it"},
		{"a timeout for which its own key is no reason", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(0, unlock, 0, unlocked, 3, 6)
			s.op(0, lock, 0, timedOut, 3, 6)
		}, "nobody else could have it"},
		{"the key may be held by one who got no answer", func(s *script) {
			s.op(0, lock, 0, "", 1, 0)
			s.lost(0, 2)
			s.op(1, lock, 0, timedOut, 8, 9)
		}, ""},
		{"not owner of a free key", func(s *script) { s.op(0, unlock, 0, notOwner, 1, 2) }, "nobody else could have it"},
		{"not locked, and somebody has it", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, unlock, 0, notLocked, 3, 4)
		}, "told that it is not locked"},
		{"not locked, and somebody may just have got it", func(s *script) {
			s.op(0, lock, 0, locked, 1, 4)
			s.op(1, unlock, 0, notLocked, 3, 5)
		}, ""},
		{"a stranger unlocks", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(1, unlock, 0, unlocked, 3, 4)
		}, "does not hold"},
		{"locked twice", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(0, lock, 0, locked, 3, 4)
		}, "the session holds it"},
		{"already locked", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(0, lock, 0, alreadyLocked, 3, 4)
		}, ""},
		{"already locked, and it is not", func(s *script) { s.op(0, lock, 0, alreadyLocked, 3, 4) }, "does not hold"},
		{"an answer that there is not", func(s *script) { s.op(0, lock, 0, unlocked, 3, 4) }, "was answered"},
		{"overtaken", func(s *script) {
			s.op(0, lock, 90, locked, 1, 20).queued = 3
			s.op(0, unlock, 0, unlocked, 21, 22)
			s.op(1, lock, 90, locked, 4, 10)
			s.op(1, unlock, 0, unlocked, 11, 12)
		}, "was overtaken"},
		{"in order", func(s *script) {
			s.op(0, lock, 90, locked, 1, 8).queued = 3
			s.op(0, unlock, 0, unlocked, 9, 10)
			s.op(1, lock, 90, locked, 4, 15)
			s.op(1, unlock, 0, unlocked, 16, 17)
		}, ""},
		{"in an order that nobody knows", func(s *script) {
			s.op(0, lock, 90, locked, 1, 20).queued = 5
			s.op(0, unlock, 0, unlocked, 21, 22)
			s.op(1, lock, 90, locked, 4, 10)
			s.op(1, unlock, 0, unlocked, 11, 12)
		}, ""},
		{"names and owners", func(s *script) {
			s.op(0, name, 0, "n named 62000 00000000000000aa", 1, 2)
			s.op(0, owner, 0, owned, 3, 4)
			s.op(1, name, 0, "n named 62000 00000000000000aa", 1, 2)
		}, ""},
		{"two spaces", func(s *script) {
			s.op(0, name, 0, "n named 62000 00000000000000aa", 1, 2)
			s.op(1, name, 0, "n named 62000 00000000000000ab", 3, 4)
		}, "another session was told the space"},
		{"a name without a space", func(s *script) { s.op(0, name, 0, "n named 62000", 1, 2) }, "was answered"},
		{"an owner that is not locked", func(s *script) { s.op(0, owner, 0, notLocked, 1, 2) }, "was answered"},
		{"a token that grows", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(0, fence, 0, "f 7", 3, 4)
			s.op(0, unlock, 0, unlocked, 5, 6)
			s.op(1, lock, 0, locked, 7, 8)
			s.op(1, fence, 0, "f 8", 9, 10)
		}, ""},
		{"a token that was given before", func(s *script) {
			s.op(0, lock, 0, locked, 1, 2)
			s.op(0, fence, 0, "f 7", 3, 4)
			s.op(0, unlock, 0, unlocked, 5, 6)
			s.op(1, lock, 0, locked, 7, 8)
			s.op(1, fence, 0, "f 7", 9, 10)
		}, "the same token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &script{}
			tc.story(s)
			v := check(&s.history)
			got := strings.Join(v.violations, "\n")
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("want a violation with %q, got %q", tc.want, got)
			}
		})
	}
}

// TestCheckLate: how late the latest timeout is, is found.
func TestCheckLate(t *testing.T) {
	s := &script{}
	s.op(0, lock, 0, locked, 1, 2)
	s.op(1, lock, 50, timedOut, 10, 63)
	s.op(2, lock, 50, timedOut, 10, 61)
	if v := check(&s.history); v.late != 3 || len(v.violations) > 0 {
		t.Errorf("late by %d, violations %q; want 3 and none", v.late, v.violations)
	}
}

// TestCheckPairs: the pairs whose order is known are counted, so that a run that judges none is seen.
func TestCheckPairs(t *testing.T) {
	s := &script{}
	s.op(0, lock, 90, locked, 1, 8).queued = 3
	s.op(1, lock, 90, locked, 2, 15)
	s.op(2, lock, 90, locked, 4, 25)
	s.lost(0, 9)
	s.lost(1, 16)
	if v := check(&s.history); v.pairs != 1 || len(v.violations) > 0 {
		t.Errorf("%d pairs, violations %q; want 1 and none", v.pairs, v.violations)
	}
}
