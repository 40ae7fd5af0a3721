package bench

import (
	"testing"
	"time"
)

func TestScheduleKeepsItsRate(t *testing.T) {
	const start, tick = time.Second, 200 * time.Microsecond
	for _, rate := range []float64{1, 333, 5000, 123_456, 2e6} {
		s := newSchedule(start, rate, tick)
		var taken int64
		for now := int64(0); now <= int64(start+2*time.Second); now += int64(tick) {
			for {
				wanted, due := s.take(now)
				if !due {
					break
				}
				if wanted != now { // the ticks are on time, so nothing is late
					t.Fatalf("rate %g: at %d a job of %d", rate, now, wanted)
				}
				taken++
			}
		}
		if want := int64(2*rate) + 1; taken != want { // the first is due at once
			t.Errorf("rate %g: %d jobs in 2 s, want %d", rate, taken, want)
		}
	}
}

// A generator that was delayed gets all the jobs that it missed, with the times at which they should have begun.
func TestScheduleRemembersWhatWasMissed(t *testing.T) {
	s := newSchedule(0, 1000, time.Millisecond)
	const late = int64(50 * time.Millisecond)
	for i := range int64(51) {
		if wanted, due := s.take(late); !due || wanted != i*int64(time.Millisecond) {
			t.Fatalf("job %d: wanted at %d, due %t", i, wanted, due)
		}
	}
	if _, due := s.take(late); due {
		t.Error("a future job is due")
	}
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	conns := []*conn{{id: 0}, {id: 1}, {id: 2}}
	var q fifo
	q.fill(conns)
	for want := range 10 {
		c := q.pop()
		if c.id != want%3 {
			t.Fatalf("turn %d: connection %d", want, c.id)
		}
		q.push(c)
	}
	if q.n != 3 {
		t.Errorf("%d left", q.n)
	}
}
