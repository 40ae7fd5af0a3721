package reactor

import (
	"testing"
	"time"
)

// spendAll spends units one by one at a time of day, and returns how many there were.
func spendAll(b *budget, now func() time.Duration) (spent int) {
	for {
		ok, look := b.spend(1)
		if !ok {
			return spent
		}
		if spent++; look {
			b.tell(now())
		}
	}
}

// TestBudget says how much a turn, and a part of it, may spend.
func TestBudget(t *testing.T) {
	noon := func() time.Duration { return time.Hour }
	var b budget
	b.renew()
	if n := spendAll(&b, noon); n != turnUnits {
		t.Errorf("a turn has %d units, want %d", n, turnUnits)
	}
	b.nextPart()
	if n := spendAll(&b, noon); n != partUnits {
		t.Errorf("a part has %d units when the turn's are spent, want %d", n, partUnits)
	}
	b.nextPart()
	if ok, _ := b.spend(10 * partUnits); !ok {
		t.Error("what is dearer than what is left may not be done")
	}
	if ok, _ := b.spend(1); ok {
		t.Error("more may be spent than that")
	}
}

// TestBudgetTime ends a turn by time, in which a unit takes long.
func TestBudgetTime(t *testing.T) {
	now := time.Duration(0)
	looks := 0
	var b budget
	b.renew()
	n := spendAll(&b, func() time.Duration {
		looks++
		now += 300 * time.Microsecond
		return now
	})
	if want := 5 * partUnits; n != want || looks != 5 {
		t.Errorf("%d units were spent and the clock was read %d times, want %d and 5: after a millisecond it is over", n, looks, want)
	}
	b.renew()
	if ok, look := b.spend(partUnits); !ok || !look {
		t.Error("the clock is not read after what takes long")
	}
}

// TestBudgetOfRound has a loop leave work. Until it goes on with that, the turns of its sockets have one budget, and each the
// units of a part.
func TestBudgetOfRound(t *testing.T) {
	left := false // nothing is left of the budget of the round
	var parts []int
	done := make(chan struct{})
	srv := start(t, setup{handler: func(h *handler) {
		more := false
		h.opened = func(s *session) {
			s.data = func([]byte) {
				n := 0
				for h.loop.Spend(1) {
					n++
				}
				if left {
					parts = append(parts, n)
				}
				left, more = true, true
			}
		}
		h.goOn = func() {
			if left && len(parts) > 0 {
				left, more = false, false
				close(done)
			}
		}
		h.endTurn = func() bool { return more }
	}})
	h := srv.handlers[0]
	first, _ := srv.dial()
	second, _ := srv.dial()
	release := h.hold(t) // so that both sockets are read in one round
	send(t, first, "x")
	send(t, second, "x")
	release()
	receive(t, done, "it does not go on")
	h.do(t, func() {
		if parts[0] != partUnits {
			t.Errorf("the second of two turns has %d units, want %d", parts[0], partUnits)
		}
	})
}
