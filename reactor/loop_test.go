package reactor

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestPostOrder has every loop post to every loop, itself included, in batches of changing size over many turns. What
// one loop sends to another arrives in order, and all of it arrives.
func TestPostOrder(t *testing.T) {
	const loops, each = 4, 2000
	arrived := make(chan string, loops) // one verdict for each loop
	srv := start(t, setup{loops: loops, handler: func(h *handler) {
		var parcels [loops][]parcel // by destination
		for to := range parcels {
			parcels[to] = newParcels(h.loop.Index(), each)
		}
		size := h.loop.Index()
		started := false
		h.endTurn = func() (more bool) {
			if !started {
				return false
			}
			size = size%7 + 1
			for to := range parcels {
				n := min(size, len(parcels[to]))
				for i := range parcels[to][:n] {
					h.loop.Post(to, &parcels[to][i].message)
				}
				parcels[to] = parcels[to][n:]
			}
			return len(parcels[0]) > 0
		}
		var next [loops]int // by sender
		received := 0
		h.receive = func(m *Message) {
			started = true
			p := m.Body.(*parcel)
			if p.from < 0 {
				return
			}
			if p.seq != next[p.from] && received >= 0 {
				arrived <- fmt.Sprintf("from loop %d, message %d came where %d was expected", p.from, p.seq, next[p.from])
				received = -loops * each
			}
			next[p.from]++
			if received++; received == loops*each {
				arrived <- ""
			}
		}
	}})
	for _, h := range srv.handlers {
		begin := &newParcels(-1, 1)[0]
		h.loop.Send(&begin.message)
	}
	for range loops {
		if problem := receive(t, arrived, "messages are missing"); problem != "" {
			t.Error(problem)
		}
	}
}

// TestFlood keeps one loop busy with messages that are posted again as soon as they are handled. An echo client of that
// loop is served all the same, because a turn is bounded.
func TestFlood(t *testing.T) {
	const messages = 2 * turnUnits
	var handled, largest int // of one turn; they belong to the loop
	var total, stop atomic.Int64
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = echo
		h.receive = func(m *Message) {
			handled++
			total.Add(1)
			if stop.Load() == 0 {
				h.loop.Post(0, m)
			}
		}
		h.endTurn = func() bool {
			largest = max(largest, handled)
			handled = 0
			return false
		}
	}})
	client := dial(t, srv.address)
	for range messages {
		srv.handlers[0].loop.Send(&Message{})
	}
	for range 50 {
		before := total.Load()
		send(t, client, "echo")
		expect(t, client, "echo")
		eventually(t, "the flood has ended", func() bool { return total.Load() > before })
	}
	stop.Store(1)
	srv.handlers[0].do(t, func() {
		if largest > turnUnits || largest < partUnits {
			t.Errorf("a turn handled up to %d messages, want %d to %d", largest, partUnits, turnUnits)
		}
	})
}

// TestTimerFlood has more timers run out at once than one turn takes. Messages come in between.
func TestTimerFlood(t *testing.T) {
	const timers = 4*turnUnits + 1
	var handled, largest, turns int
	all := make(chan struct{})
	total := 0
	srv := start(t, setup{handler: func(h *handler) {
		h.expire = func(*Timer) {
			handled++
			if total++; total == timers {
				close(all)
			}
		}
		h.endTurn = func() bool {
			if handled > 0 {
				turns++
			}
			largest = max(largest, handled)
			handled = 0
			return false
		}
	}})
	h := srv.handlers[0]
	h.do(t, func() {
		for range timers {
			h.loop.StartTimer(&Timer{}, 0)
		}
		time.Sleep(3 * time.Millisecond) //nolint:forbidigo // all are due when this turn ends; if not, more turns are no mistake
	})
	receive(t, all, "timers are missing")
	h.do(t, func() {
		if largest > turnUnits || turns < 5 {
			t.Errorf("up to %d timers in one of %d turns, want no more than %d", largest, turns, turnUnits)
		}
	})
}

// TestEndTurnMore lets EndTurn ask for further turns: they follow by themselves, one for each time it asks.
func TestEndTurnMore(t *testing.T) {
	const asked = 100
	done := make(chan int64, 1)
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = echo
		left, first := 0, int64(0)
		h.receive = func(*Message) { left, first = asked, h.turns.Load() }
		h.endTurn = func() bool {
			switch left {
			case 0:
				return false
			case 1:
				done <- h.turns.Load() - first
			}
			left--
			return left > 0
		}
	}})
	h := srv.handlers[0]
	h.loop.Send(&Message{})
	if turns := receive(t, done, "the turns that were asked for do not come"); turns != asked {
		t.Errorf("%d turns, want %d", turns, asked)
	}
}

// TestCloseInTurn closes a connection in a turn: what Closed has put off is done in an EndTurn of the same turn.
func TestCloseInTurn(t *testing.T) {
	srv := start(t, setup{})
	_, s := srv.dial()
	h := srv.handlers[0]
	closedAt := int64(0)
	h.do(t, func() {
		before := h.turns.Load()
		s.closed = func(error) { closedAt = h.turns.Load() }
		s.conn.Close()
		if h.turns.Load() != before {
			t.Error("EndTurn came in the middle of a turn")
		}
	})
	receive(t, s.ended, "Closed was not called")
	h.do(t, func() {
		if h.turns.Load() <= closedAt {
			t.Error("no EndTurn after Closed")
		}
	})
}

// TestSendBeforeStart sends to loops while their handlers are made: the messages wait for the loops to run.
func TestSendBeforeStart(t *testing.T) {
	got := make(chan int, 3)
	start(t, setup{loops: 3, handler: func(h *handler) {
		h.receive = func(m *Message) { got <- m.Body.(int) }
		h.loop.Send(&Message{Body: h.loop.Index()})
	}})
	sum := 0
	for range 3 {
		sum += receive(t, got, "a message is missing")
	}
	if sum != 0+1+2 {
		t.Errorf("the loops' numbers add up to %d, want 3", sum)
	}
}
