package server

import (
	"time"

	"dreadlock/server/api"
)

// durationBounds are the upper bounds of the buckets for waits and holds: from what nobody notices to what somebody should have
// noticed long ago.
var durationBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
	10 * time.Minute, 30 * time.Minute, time.Hour,
}

// histogram counts durations by size. The zero value is empty.
type histogram struct {
	buckets [len(durationBounds) + 1]uint64 // each alone; the last one has what is above all bounds
	sum     time.Duration
}

// add counts a duration. Short ones, of which there are most, are found first.
func (h *histogram) add(d time.Duration) {
	bucket := 0
	for bucket < len(durationBounds) && d > durationBounds[bucket] {
		bucket++
	}
	h.buckets[bucket]++
	h.sum += d
}

// merge adds what another one has counted.
func (h *histogram) merge(o *histogram) {
	addAll(h.buckets[:], o.buckets[:])
	h.sum += o.sum
}

// words returns a copy as the API has it.
func (h *histogram) words() api.Histogram {
	w := api.Histogram{Counts: append([]uint64(nil), h.buckets[:]...), Sum: h.sum.Seconds()}
	for _, bound := range durationBounds {
		w.Bounds = append(w.Bounds, bound.Seconds())
	}
	return w
}
