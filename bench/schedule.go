package bench

import (
	"math"
	"time"
)

// schedule says when an open loop wants its jobs to begin: at a constant rate, in ticks. The jobs of a tick are all
// wanted at its end, so that the grain of the generator's timer is no latency of the server. It has no clock; times are
// nanoseconds since the generator's own beginning.
type schedule struct {
	start int64
	every float64 // ns between two jobs
	tick  int64   // ns
	next  int64   // number of the next job, from 0
}

func newSchedule(start time.Duration, perSecond float64, tick time.Duration) *schedule {
	return &schedule{start: int64(start), every: float64(time.Second) / perSecond, tick: int64(tick)}
}

// wanted returns when the next job should begin.
func (s *schedule) wanted() int64 {
	ticks := math.Ceil(float64(s.next) * s.every / float64(s.tick))
	return s.start + int64(ticks)*s.tick
}

// take returns when the next job should begin and moves on to the one after it, if it is due.
func (s *schedule) take(now int64) (wanted int64, due bool) {
	wanted = s.wanted()
	if wanted > now {
		return 0, false
	}
	s.next++
	return wanted, true
}
