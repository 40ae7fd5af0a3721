package faults

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// verdict is what the check of a history found.
type verdict struct {
	violations []string
	sent       int64            // commands
	answers    map[string]int64 // by command and answer
	pairs      int64            // pairs of waiters whose order of arrival was confirmed, and judged
	across     int64            // of these, at two daemons of a fleet
	late       time.Duration    // by which the latest answer came after its timeout
	space      string           // that names the lock table, once a client was told
}

func (v *verdict) violate(format string, args ...any) {
	v.violations = append(v.violations, fmt.Sprintf(format, args...))
}

// answered returns the number of commands that were answered.
func (v *verdict) answered() (n int64) {
	for _, count := range v.answers {
		n += count
	}
	return n
}

// hold is a time in which a session has a key: certainly, between the answer that says so and the first byte that gives it
// up, or possibly, between the command and the answer that it was given up.
type hold struct {
	session  *session
	from, to moment
}

// keyHistory is what happened to one key.
type keyHistory struct {
	certain, possible []hold
	refusals          []claim // answers that say who has the key
	waits             []wait  // that ended with the key
	tokens            []wait  // of these, those whose token is known
	refused           []write // that a resource refused
}

// claim is an operation whose answer says who has the key at some moment between from and its answer.
type claim struct {
	session *session
	operation
	from moment
}

// wait is a lock that was granted.
type wait struct {
	session *session
	operation
	until moment // when its session began to give the key up
}

// check looks for everything that the daemon must not do.
//
//   - One answer a command, in order, that fits what the session knows itself: it holds a key from its grant to its unlock.
//   - No two sessions hold a key at a moment, as far as is certain. The end of a connection takes effect at a time that
//     nobody knows, so a session holds nothing for certain from when its connection may have ended.
//   - Who is refused was refused because of somebody: a key that times out or that "somebody else" has was possibly held, and
//     a key that is "not locked" was not certainly held all the time.
//   - No wait times out early.
//   - Who was known to wait before another asked gets the key before the other.
//   - The daemon ends no connection that has no reason to end.
//   - Of two grants of a key the later one has the greater token.
//   - All who give a name are told the same lock space.
//
// What is different for the daemons of a fleet is in fleetcheck.go.
func check(h *history) *verdict {
	v := &verdict{answers: map[string]int64{}}
	keys := map[string]*keyHistory{}
	for _, s := range h.sessions {
		v.replay(s, keys)
	}
	for key, k := range keys {
		v.checkKey(key, k)
	}
	slices.Sort(v.violations)
	return v
}

// replay follows one session and sorts what it did by key.
func (v *verdict) replay(s *session, keys map[string]*keyHistory) {
	lost := s.lostAt()
	if s.ended < lost {
		if !s.fallible() {
			v.violate("session %d: the daemon ended its connection for no reason: %s", s.id, s.end())
		}
		lost = s.ended
	}
	held := map[string]*operation{}
	silent := false
	for i := range s.operations {
		op := &s.operations[i]
		k := keys[op.key]
		if k == nil {
			k = &keyHistory{}
			keys[op.key] = k
		}
		v.sent++
		if op.answered == never {
			if lost == never && !silent {
				v.violate("session %d: %s %s got no answer", s.id, op.verb, op.key)
			}
			silent = true
			if op.verb == lock {
				k.possible = append(k.possible, hold{s, op.sent, never})
			}
			continue
		}
		v.answers[op.verb.String()+" "+kind(op.reply)]++
		v.judge(s, op, held, k, lost)
	}
	for key, op := range held {
		keys[key].hold(s, op, s.certainUntil(op, lost), never)
	}
	for _, r := range s.refused {
		keys[r.key].refused = append(keys[r.key].refused, write{s, r})
	}
}

// judge looks at one answer, and updates what the session holds.
func (v *verdict) judge(s *session, op *operation, held map[string]*operation, k *keyHistory, lost moment) {
	wrong := func() {
		state := "does not hold"
		if held[op.key] != nil {
			state = "holds"
		}
		v.violate("session %d: %s %s was answered %q, and the session %s it", s.id, op.verb, op.key, op.reply, state)
	}
	own := held[op.key]
	switch {
	case op.verb == lock && op.reply == locked && own == nil:
		held[op.key] = op
	case op.verb == lock && op.reply == timedOut && own == nil:
		from := op.sent.add(op.timeout)
		if op.answered < from {
			v.violate("session %d: lock %s timed out after %s, %s early", s.id, op.key,
				time.Duration(op.answered-op.sent), time.Duration(from-op.answered))
			from = op.sent
		}
		v.late = max(v.late, time.Duration(op.answered-from))
		k.refuse(claim{s, *op, from})
	case op.verb == lock && op.reply == alreadyLocked && own != nil:
	case op.verb == unlock && op.reply == unlocked && own != nil:
		k.hold(s, own, s.certainUntil(own, min(op.sent, lost)), op.answered)
		delete(held, op.key)
	case op.verb == fence && own != nil && kind(op.reply) == tokenIs:
		v.readToken(s, op, own)
	case op.verb == name && kind(op.reply) == named:
		v.readSpace(s, op)
	case op.verb == owner && op.reply == owned:
	case (op.verb == unlock || op.verb == fence) && (op.reply == notLocked || op.reply == notOwner) && own == nil:
		k.refuse(claim{s, *op, op.sent})
	default:
		wrong()
	}
}

// hold notes that a session had the key, from the lock to the moment when it began to give it up, and possibly until released.
func (k *keyHistory) hold(s *session, op *operation, until, released moment) {
	if op.answered < until {
		k.certain = append(k.certain, hold{s, op.answered, until})
	}
	k.possible = append(k.possible, hold{s, op.sent, released})
	w := wait{s, *op, until}
	k.waits = append(k.waits, w)
	if op.token != 0 {
		k.tokens = append(k.tokens, w)
	}
}

// refuse notes an answer that says who has the key. In a fleet only one tells something: see fleetcheck.go.
func (k *keyHistory) refuse(c claim) {
	if c.session.node == nil || c.reply == notLocked {
		k.refusals = append(k.refusals, c)
	}
}

func (v *verdict) checkKey(key string, k *keyHistory) {
	byStart := func(a, b hold) int { return cmp.Compare(a.from, b.from) }
	slices.SortFunc(k.certain, byStart)
	slices.SortFunc(k.possible, byStart)
	for i := 1; i < len(k.certain); i++ {
		first, second := k.certain[i-1], k.certain[i]
		if second.from < first.to {
			v.violate("key %s: sessions %d and %d held it at the same time, for %s", key, first.session.id, second.session.id,
				time.Duration(min(first.to, second.to)-second.from))
		}
	}
	v.checkRefusals(key, k)
	v.checkOrder(key, k.waits)
	v.checkTokens(key, k.tokens)
	v.checkWrites(key, k)
}

// checkRefusals looks for answers that say that somebody else has a key which nobody could have, or nobody has it while
// somebody had.
func (v *verdict) checkRefusals(key string, k *keyHistory) {
	latest := longest(k.possible)
	for _, c := range k.refusals {
		if c.reply == notLocked {
			if s := alwaysHeld(k.certain, c.sent, c.answered); s != nil {
				v.violate("key %s: session %d was told that it is not locked while session %d held it", key, c.session.id, s.id)
			}
			continue
		}
		n, _ := slices.BinarySearchFunc(k.possible, c.answered, func(h hold, m moment) int {
			if h.from <= m {
				return -1
			}
			return 1
		})
		if n == 0 || !latest[n-1].reaches(c.session, c.from) {
			v.violate("key %s: session %d was answered %q, and nobody else could have it", key, c.session.id, c.reply)
		}
	}
}

// reach has the two holds that last longest, of different sessions, among the first ones of a list.
type reach [2]hold

// longest returns the reach of each beginning of the holds, which are sorted by their start.
func longest(holds []hold) []reach {
	all := make([]reach, len(holds))
	var r reach
	for i, h := range holds {
		switch {
		case r[0].session == nil || h.session == r[0].session:
			if r[0].session == nil || h.to > r[0].to {
				r[0] = h
			}
		case h.to > r[0].to:
			r[0], r[1] = h, r[0]
		case r[1].session == nil || h.to > r[1].to:
			r[1] = h
		}
		all[i] = r
	}
	return all
}

// reaches reports whether another session than s holds the key at the moment or later.
func (r *reach) reaches(s *session, m moment) bool {
	for _, h := range r {
		if h.session != nil && h.session != s && h.to >= m {
			return true
		}
	}
	return false
}

// alwaysHeld returns the session that certainly had the key all the time, nil if there is none.
func alwaysHeld(certain []hold, from, to moment) *session {
	n, _ := slices.BinarySearchFunc(certain, from, func(h hold, m moment) int {
		if h.from < m {
			return -1
		}
		return 1
	})
	if n > 0 && certain[n-1].to > to {
		return certain[n-1].session
	}
	return nil
}

// checkOrder looks for a waiter that was overtaken: a second session asked when the first was known to wait, and had the
// key before the first began to give it up. The waits are those that ended with the key.
func (v *verdict) checkOrder(key string, waits []wait) {
	slices.SortFunc(waits, func(a, b wait) int { return cmp.Compare(a.sent, b.sent) })
	var confirmed []*wait // may still wait
	for i := range waits {
		second := &waits[i]
		confirmed = slices.DeleteFunc(confirmed, func(first *wait) bool { return first.answered <= second.sent })
		for _, first := range confirmed {
			if first.session == second.session || first.queued == never || first.queued.add(slack(first.session, second.session)) >= second.sent {
				continue
			}
			v.pairs++
			if first.session.node != second.session.node {
				v.across++
			}
			if second.answered < first.until {
				v.violate("key %s: session %d was overtaken by session %d, which asked %s after it was known to wait", key,
					first.session.id, second.session.id, time.Duration(second.sent-first.queued))
			}
		}
		if second.queued != never {
			confirmed = append(confirmed, second)
		}
	}
}
