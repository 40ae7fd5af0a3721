package faults

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// testFleetOrder has clients line up for keys, one after another, at daemons that are chosen at random. The next one asks when all daemons
// have seen the one before it, so its order is known at once.
func testFleetOrder(t *trial) string {
	const lines = 8 // at a time
	rounds := 10
	if t.options.Long {
		rounds = 100
	}
	f := t.newFleet(fleetOptions{})
	began := time.Now()
	t.parallel(lines, func(i int) {
		rng := rand.New(rand.NewPCG(t.options.Seed, uint64(i)))
		for round := range rounds {
			f.lineUp(rng, fmt.Sprintf("line%dround%d", i, round))
		}
	})
	took := time.Since(began)
	return fmt.Sprintf("%d lines in %s; %s", lines*rounds, seconds(took), f.finish())
}

// lineUp has a line form for a key that is new, and lets all of it have the key.
func (f *fleet) lineUp(rng *rand.Rand, key string) {
	const length = 8
	var line []*client
	for i := range length {
		c := f.dial(f.randomNode(rng))
		line = append(line, c)
		c.send(command(lock, key, time.Hour))
		if i == 0 {
			c.want(locked)
		}
		f.awaitLine(key, line)
		c.session.operations[0].queued = now()
	}
	for i, c := range line {
		if i > 0 {
			c.want(locked)
		}
		c.send(command(fence, key, 0), command(unlock, key, 0))
		f.token(c)
		c.want(unlocked)
		c.close()
	}
}

// awaitLine waits until every daemon has a line in its table: its own clients, and a place of another daemon for those of its clients that
// stand one after another.
func (f *fleet) awaitLine(key string, line []*client) {
	for _, n := range f.nodes {
		waiters := -1 // the first one has the key
		var last *node
		for _, c := range line {
			if c.session.node == n || c.session.node != last {
				waiters++
			}
			last = c.session.node
		}
		f.t.awaitQueueAt(n.process(), key, waiters)
	}
}
