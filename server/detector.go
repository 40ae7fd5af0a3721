package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dreadlock/server/api"
)

const (
	// suspectDelay is how long the detector lets a new suspect wait before it looks: most waits are over by then.
	suspectDelay = 200 * time.Millisecond
	// confirmTime is the time between the looks that find a cycle and believe it.
	confirmTime = 50 * time.Millisecond
	// reviewTime is the time between looks whether the known deadlocks still stand.
	reviewTime = 500 * time.Millisecond
	// lookTime bounds a look. A loop that takes longer is looked at the next time.
	lookTime = 2 * time.Second
	// edgesPerStep is the number of suspects that a loop is asked for in one turn.
	edgesPerStep = 256
)

// detector looks for deadlocks, on a goroutine of its own. While nobody waits who holds a key it sleeps.
type detector struct {
	server  *Server
	suspect chan struct{} // one token: there is a new suspect

	mu       sync.Mutex
	standing map[cycleName]*deadlock
	found    uint64 // since the start
}

// cycleName names a cycle by its youngest wait: no wait is part of two.
type cycleName struct {
	waiter api.ConnectionID
	serial uint64
}

// deadlock is a cycle that is known to be real.
type deadlock struct {
	number uint64
	found  time.Time
	waits  []*waitEdge
}

func newDetector(srv *Server) *detector {
	return &detector{server: srv, suspect: make(chan struct{}, 1), standing: make(map[cycleName]*deadlock)}
}

// notify says that there is a new suspect. It never blocks. Safe from any goroutine.
func (d *detector) notify() {
	select {
	case d.suspect <- struct{}{}:
	default:
	}
}

// run looks whenever there is something to find, until ctx is done.
func (d *detector) run(ctx context.Context) {
	for {
		var review <-chan time.Time
		if d.count() > 0 {
			review = time.After(reviewTime)
		}
		select {
		case <-d.suspect:
			if !pause(ctx, suspectDelay) {
				return
			}
		case <-review:
		case <-ctx.Done():
			return
		}
		d.search(ctx)
	}
}

// pause waits and reports whether ctx is still not done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// search takes two looks, and believes what both have seen. If a look fails there has to be another search: the suspects
// that it was for do not come again.
func (d *detector) search(ctx context.Context) {
	first, ok := d.look(ctx)
	if !ok {
		d.notify()
		return
	}
	cycles := first.cycles()
	unknown := slices.ContainsFunc(cycles, func(c []*waitEdge) bool { return !d.knows(c) })
	if !unknown {
		d.review(cycles)
		return
	}
	if !pause(ctx, confirmTime) {
		return
	}
	second, ok := d.look(ctx)
	if !ok {
		d.notify()
		return
	}
	cycles = slices.DeleteFunc(cycles, func(c []*waitEdge) bool { return !second.confirms(c) })
	for _, c := range d.review(cycles) {
		d.report(c)
		if d.server.cfg.BreakDeadlocks {
			d.breakUp(ctx, c)
		}
	}
}

// look asks all loops for the waits of their suspects. It fails if one does not answer.
func (d *detector) look(ctx context.Context) (g waitGraph, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	done, missing := eachShard(ctx, d.server, d.server.shards, func(sh *shard, s *sweep) (more bool) {
		return s.step(sh, edgesPerStep)
	})
	if missing > 0 {
		return nil, false
	}
	g = make(waitGraph)
	for _, s := range done {
		for _, e := range s.edges {
			g[e.waiter] = e
		}
	}
	return g, true
}

func nameOf(cycle []*waitEdge) cycleName {
	youngest := cycle[len(cycle)-1]
	return cycleName{youngest.waiter, youngest.serial}
}

func (d *detector) knows(cycle []*waitEdge) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.standing[nameOf(cycle)] != nil
}

// review makes the cycles those that stand, and returns the new ones.
func (d *detector) review(cycles [][]*waitEdge) (fresh []*deadlock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.standing
	d.standing = make(map[cycleName]*deadlock)
	for _, c := range cycles {
		known := before[nameOf(c)]
		if known == nil {
			d.found++
			known = &deadlock{number: d.found, found: time.Now(), waits: c}
			fresh = append(fresh, known)
		}
		d.standing[nameOf(c)] = known
	}
	return fresh
}

// report logs a deadlock, once.
func (d *detector) report(c *deadlock) {
	var text strings.Builder
	for i, e := range c.waits {
		if i > 0 {
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "connection %d (%s) waits for %s, held by %d", e.waiter, e.address, e.key, e.holder)
	}
	d.server.cfg.Log.Warn().Uint64("deadlock", c.number).Int("connections", len(c.waits)).Str("cycle", text.String()).
		Msg("deadlock: connections wait for one another")
}

// breakUp ends the youngest wait of a deadlock.
func (d *detector) breakUp(ctx context.Context, c *deadlock) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	youngest := c.waits[len(c.waits)-1]
	eachShard(ctx, d.server, d.server.shards[youngest.shard:youngest.shard+1], func(sh *shard, _ *struct{}) (more bool) {
		sh.breakWait(youngest)
		return false
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.standing, nameOf(c.waits))
}

// count returns the number of deadlocks that stand.
func (d *detector) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.standing)
}

// known returns the deadlocks that stand, the oldest first, and how many were found since the start.
func (d *detector) known() (standing []*deadlock, found uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.standing {
		standing = append(standing, c)
	}
	slices.SortFunc(standing, func(a, b *deadlock) int { return int(a.number) - int(b.number) })
	return standing, d.found
}
