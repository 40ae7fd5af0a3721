package reactor

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// stopwatch is a timer with what is needed to say whether it came early. It belongs to its loop.
type stopwatch struct {
	timer   Timer // Tag: the stopwatch
	begin   time.Time
	runs    time.Duration
	stopped bool
}

// TestTimers runs many timers on several loops. Each comes once and never early, by the monotonic clock; those that are
// stopped do not come.
func TestTimers(t *testing.T) {
	const loops, each = 3, 300
	expired := make(chan *stopwatch, loops*each)
	early := make(chan time.Duration, loops*each)
	srv := start(t, setup{loops: loops, tick: 5 * time.Millisecond, handler: func(h *handler) {
		h.expire = func(timer *Timer) {
			w := timer.Tag.(*stopwatch)
			if took := time.Since(w.begin); took < w.runs {
				early <- w.runs - took
			}
			expired <- w
		}
	}})
	for i, h := range srv.handlers {
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		// In several turns, so that the ticker sleeps in between.
		for range each / 10 {
			h.do(t, func() {
				for n := range 10 {
					w := &stopwatch{begin: time.Now(), runs: time.Duration(rng.Int64N(int64(300 * time.Millisecond)))}
					w.timer.Tag = w
					h.loop.StartTimer(&w.timer, w.runs)
					if n%5 == 0 {
						w.stopped = h.loop.StopTimer(&w.timer)
					}
				}
			})
		}
	}
	for range loops * each * 4 / 5 {
		if w := receive(t, expired, "a timer has not expired"); w.stopped {
			t.Error("a stopped timer has expired")
		}
	}
	for _, h := range srv.handlers {
		h.do(t, func() {
			if n := h.loop.wheel.Len(); n > 0 {
				t.Errorf("loop %d: %d timers still run", h.loop.Index(), n)
			}
		})
	}
	for len(early) > 0 {
		t.Errorf("a timer came %s early", <-early)
	}
	if len(expired) > 0 {
		t.Errorf("%d timers came that were stopped", len(expired))
	}
}

// TestTimerBeforeAlarm sets a timer while the ticker sleeps for a later one, on the same loop and on another: the ticks
// are so long that the ticker would not wake up in time by itself.
func TestTimerBeforeAlarm(t *testing.T) {
	expired := make(chan *Timer, 2)
	srv := start(t, setup{loops: 2, tick: 50 * time.Millisecond, handler: func(h *handler) {
		h.expire = func(timer *Timer) { expired <- timer }
	}})
	var far, near, nearer Timer
	first, second := srv.handlers[0], srv.handlers[1]
	r := first.loop.reactor
	asleep := func(h *handler) {
		eventually(t, "the ticker does not take the alarm", func() bool {
			alarm := h.loop.alarm.Load()
			return alarm != int64(Never) && alarm == r.ticker.target.Load()
		})
	}
	first.do(t, func() { first.loop.StartTimer(&far, time.Hour) })
	asleep(first)
	first.do(t, func() { first.loop.StartTimer(&near, 100*time.Millisecond) })
	if timer := receive(t, expired, "the earlier timer has not expired"); timer != &near {
		t.Error("the later timer has expired first")
	}
	asleep(first)
	second.do(t, func() { second.loop.StartTimer(&nearer, 100*time.Millisecond) })
	if timer := receive(t, expired, "the earlier timer of another loop has not expired"); timer != &nearer {
		t.Error("the later timer has expired first")
	}
}

// TestAlarmOfOneLoop runs timers on one loop. The others, one with a timer that is not due, are not woken for them.
func TestAlarmOfOneLoop(t *testing.T) {
	expired := make(chan *Timer, 1)
	srv := start(t, setup{loops: 3, handler: func(h *handler) {
		h.expire = func(timer *Timer) { expired <- timer }
	}})
	busy, waiting, idle := srv.handlers[0], srv.handlers[1], srv.handlers[2]
	waiting.do(t, func() { waiting.loop.StartTimer(&Timer{}, time.Hour) })
	turns := func() (sum int64) {
		for _, h := range []*handler{waiting, idle} {
			h.do(t, func() { sum += h.turns.Load() })
		}
		return sum
	}
	before, alarm := turns(), waiting.loop.alarm.Load()
	for range 20 {
		busy.do(t, func() { busy.loop.StartTimer(&Timer{}, time.Millisecond) })
		receive(t, expired, "the timer has not expired")
	}
	const asked = 2 // the turns that counted before have ended since
	if n := turns() - before - asked; n != 0 && int64(busy.loop.reactor.tick()) < alarm {
		t.Errorf("%d turns of the loops without a timer that was due", n)
	}
}

// TestTimerFromSocket starts timers where only a socket has made the loop run: nothing else looks at the wheel then.
func TestTimerFromSocket(t *testing.T) {
	expired := make(chan any, 1)
	srv := start(t, setup{handler: func(h *handler) {
		startTimer := func(tag string) { h.loop.StartTimer(&Timer{Tag: tag}, time.Millisecond) }
		h.opened = func(s *session) {
			startTimer("opened")
			s.data = func([]byte) { startTimer("data") }
			s.closed = func(error) { startTimer("closed") }
		}
		h.expire = func(timer *Timer) { expired <- timer.Tag }
	}})
	expectExpired := func(want string) {
		t.Helper()
		if got := receive(t, expired, "the timer has not expired: "+want); got != want {
			t.Errorf("the timer %q has expired, want %q", got, want)
		}
	}
	client := dial(t, srv.address)
	expectExpired("opened")
	send(t, client, "input")
	expectExpired("data")
	_ = client.Close()
	expectExpired("closed")
}

// TestTimerForEver starts timers that no clock reaches: they run, and can be stopped.
func TestTimerForEver(t *testing.T) {
	srv := start(t, setup{})
	h := srv.handlers[0]
	h.do(t, func() {
		for _, d := range []time.Duration{1<<63 - 1, 1<<63 - 2, 1 << 62} {
			var timer Timer
			h.loop.StartTimer(&timer, d)
			if timer.due < Tick(d/h.loop.reactor.cfg.Tick) {
				t.Errorf("%d: due at tick %d already", d, timer.due)
			}
			if !h.loop.StopTimer(&timer) {
				t.Errorf("%d: not running", d)
			}
		}
	})
}

// TestIdle leaves clients and a far-away timer alone. Nothing happens then: no loop runs a turn, the ticker sleeps.
func TestIdle(t *testing.T) {
	srv := start(t, setup{loops: 2, tick: 5 * time.Millisecond})
	h := srv.handlers[0]
	r := h.loop.reactor
	for range 20 {
		srv.dial()
	}
	var timer Timer
	h.do(t, func() { h.loop.StartTimer(&timer, time.Hour) })
	eventually(t, "the ticker does not take the alarm", func() bool {
		return r.ticker.target.Load() == h.loop.alarm.Load()
	})
	for _, h := range srv.handlers {
		h.settleSockets(t)
	}
	turns := func() (sum int64) {
		for _, h := range srv.handlers {
			sum += h.turns.Load()
		}
		return sum
	}
	eventually(t, "the loops do not come to rest", func() bool {
		before := turns()
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // rest is seen over a time
		return turns() == before
	})

	// That nothing happens can only be seen over a time. A longer one would find more, a busy machine finds nothing
	// that is not there: the next turn is due when the wheel has gone round once, in 20 seconds. Whenever the ticker
	// wakes up it stores its target: here it would replace another value.
	before, target := turns(), r.ticker.target.Load()
	r.ticker.target.Store(target - 1)
	for range 20 {
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // see above
		if state := tickerState(); state != "select" {
			t.Fatalf("the ticker is in state %q, want it to wait in a select", state)
		}
	}
	if n := turns() - before; n != 0 {
		t.Errorf("%d turns while nothing happened", n)
	}
	if r.ticker.target.Load() != target-1 {
		t.Error("the ticker woke up while nothing happened")
	}

	h.do(t, func() { h.loop.StopTimer(&timer) })
	h.do(t, func() {
		if h.loop.wheel.Len() != 0 {
			t.Error("the timer still runs")
		}
	})
}

// tickerState returns what the goroutine of the ticker waits for, as a stack trace puts it.
func tickerState() string {
	buf := make([]byte, 1<<20)
	for goroutine := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(goroutine, "reactor.(*ticker).run") {
			_, state, _ := strings.Cut(goroutine, "[")
			state, _, _ = strings.Cut(state, "]")
			state, _, _ = strings.Cut(state, ",") // the minutes that it has been waiting
			return state
		}
	}
	return "not running"
}
