package server

import (
	"slices"

	"dreadlock/proto"
	"dreadlock/reactor"
)

// left returns the counters in the words of the API, which keep their meaning. The traffic is that of the loop.
func (c *counters) left(traffic reactor.Traffic) countersLeft {
	left := countersLeft{
		Commands: make(map[string]map[string]uint64), Ends: make(map[string]uint64),
		LimitHits: make(map[string]uint64), Waits: make(map[string]histogramLeft),
		Accepted: c.accepted, Moves: c.moves, Grants: c.grants, Timeouts: c.timeouts, Paused: c.paused, Stalled: c.stalled,
		Holds: c.holds.left(), Messages: c.before.Messages + traffic.Messages, WakeUps: c.before.WakeUps + traffic.WakeUps,
	}
	for kind := proto.Lock; kind < proto.NumKinds; kind++ {
		answers := make(map[string]uint64)
		for _, a := range kind.Replies() {
			answers[a.Outcome()] = c.commands[kind][a]
		}
		left.Commands[kind.String()] = answers
	}
	for why, word := range reasonWords {
		left.Ends[word] = c.disconnects[why]
	}
	for l := noLimit + 1; int(l) < limits; l++ {
		left.LimitHits[limitWords[l]] = c.limitHits[l]
	}
	for how, word := range waitWords {
		left.Waits[word] = c.waits[how].left()
	}
	return left
}

// addLeft adds what a worker of the predecessor has counted. What there is no counter for is lost.
func (c *counters) addLeft(left *countersLeft) {
	for kind := proto.Lock; kind < proto.NumKinds; kind++ {
		answers := left.Commands[kind.String()]
		for _, a := range kind.Replies() {
			c.commands[kind][a] += answers[a.Outcome()]
		}
	}
	for why, word := range reasonWords {
		c.disconnects[why] += left.Ends[word]
	}
	for l := noLimit + 1; int(l) < limits; l++ {
		c.limitHits[l] += left.LimitHits[limitWords[l]]
	}
	for how, word := range waitWords {
		c.waits[how].addLeft(left.Waits[word])
	}
	c.holds.addLeft(left.Holds)
	c.accepted += left.Accepted
	c.moves += left.Moves
	c.grants += left.Grants
	c.timeouts += left.Timeouts
	c.paused += left.Paused
	c.stalled += left.Stalled
	c.before.Messages += left.Messages
	c.before.WakeUps += left.WakeUps
}

func (h *histogram) left() histogramLeft {
	return histogramLeft{Bounds: durationBounds[:], Counts: h.buckets[:], Sum: h.sum}
}

// addLeft adds a histogram of the predecessor. What a bucket has counted there counts as its upper bound here; above all bounds, as more
// than all.
func (h *histogram) addLeft(left histogramLeft) {
	for i, n := range left.Counts {
		bucket := len(durationBounds)
		if i < len(left.Bounds) {
			bucket, _ = slices.BinarySearch(durationBounds[:], left.Bounds[i])
		}
		h.buckets[bucket] += n
	}
	h.sum += left.Sum
}

// reasonOf returns the reason that a word names. One that this version does not know is taken for the most ordinary.
func reasonOf(word string) reason {
	return reason(max(slices.Index(reasonWords[:], word), int(clientClosed)))
}
