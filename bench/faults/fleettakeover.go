package faults

import (
	"errors"
	"math/rand/v2"
	"time"
)

// takeOver has another process take over a daemon, with another number of loops.
func (f *fleet) takeOver(rng *rand.Rand, n *node) {
	const mostLoops = 3
	t, d := f.t, n.process()
	before := f.lease(n)
	t.install(asItself(1 + rng.IntN(mostLoops)))
	done, err := d.takeOver()
	switch {
	case errors.Is(err, errRefused) && n.fallible:
		return // it may be about to lose its lease, and serves on
	case err != nil:
		t.violate("daemon %s: a takeover: %v; log: %s", n.name, err, d.log.String())
		return
	}
	d.awaitSuccessor(done)
	if after := f.lease(n); after != before && !n.fallible {
		t.violate("daemon %s: after a takeover it has the lease %q, and before it had %q", n.name, after, before)
	}
}

// lease returns the lease of a daemon, empty if it has none.
func (f *fleet) lease(n *node) string {
	var s fleetStatus
	if err := n.process().get("/api/v1/status", &s); err != nil {
		f.t.violate("daemon %s does not say its status: %v", n.name, err)
	}
	return s.Fleet.Lease
}

// takeOverBehind has another process take over a daemon that has just not heard of its fleet for a while. The successor learns what was
// written meanwhile; once in two times the history is compacted before.
func (f *fleet) takeOverBehind(rng *rand.Rand) {
	n := f.randomNode(rng)
	for _, l := range n.links {
		l.set(hangs)
	}
	f.t.pause(upTo(rng, time.Second))
	if rng.IntN(2) == 0 {
		f.compactNow()
	}
	for _, l := range n.links {
		l.reset()
		l.set(carries)
	}
	f.takeOver(rng, n)
}
