package bench

import (
	"math"
	"time"
)

// schedule says when the jobs of an open loop should begin: at a constant rate, in ticks. The jobs of a tick should all
// begin at its end, so that the resolution of the generator's timer does not count as latency of the server. A schedule
// has no clock: times are nanoseconds since the generator was made.
type schedule struct {
	start int64
	every float64 // ns from job to job
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
