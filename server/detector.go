package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// suspectDelay is how long the detector lets a new suspect wait before it looks: most waits are over by then.
	suspectDelay = 200 * time.Millisecond
	// confirmTime is the time between the two looks.
	confirmTime = 50 * time.Millisecond
	// reviewTime is the time between searches while a deadlock stands.
	reviewTime = 500 * time.Millisecond
	// lookTime bounds a look, and the break of a deadlock. If a loop takes longer, another search follows.
	lookTime = 2 * time.Second
	// edgesPerStep is the number of suspects that a loop is asked for in one turn.
	edgesPerStep = 256
)

// detector looks for deadlocks, on a goroutine of its own. It sleeps while there are no new suspects and no deadlocks.
type detector struct {
	server *Server
	wanted chan struct{} // one token: a search is wanted
	broken atomic.Uint64 // deadlocks, since the start

	mu       sync.Mutex
	standing map[waitName]*deadlock
	found    uint64 // since the start
}

// deadlock is a cycle that is known to be real. It is named by its youngest wait, since no other one ends with that.
type deadlock struct {
	number uint64 // 1 for the first that was found
	found  time.Time
	waits  []*waitEdge // the youngest last
}

func (c *deadlock) youngest() *waitEdge { return c.waits[len(c.waits)-1] }

func newDetector(srv *Server) *detector {
	return &detector{server: srv, wanted: make(chan struct{}, 1), standing: make(map[waitName]*deadlock)}
}

// notify asks for a search. It never blocks. Safe from any goroutine.
func (d *detector) notify() {
	select {
	case d.wanted <- struct{}{}:
	default:
	}
}

// run searches whenever there may be something to find, until ctx is done.
func (d *detector) run(ctx context.Context) {
	for {
		var review <-chan time.Time
		if standing, _ := d.known(); len(standing) > 0 {
			review = time.After(reviewTime)
		}
		select {
		case <-d.wanted:
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

// search finds the deadlocks that stand, reports the new ones, and breaks all of them if the server is to break deadlocks. If a
// loop does not answer, it asks for another search: nothing else would.
func (d *detector) search(ctx context.Context) {
	waits, ok := d.look(ctx)
	if !ok {
		d.notify()
		return
	}
	cycles := waits.cycles()
	if !d.knowsAll(cycles, waits) {
		if !pause(ctx, confirmTime) {
			return
		}
		second, ok := d.look(ctx)
		if !ok {
			d.notify()
			return
		}
		waits = waits.and(second)
		cycles = waits.cycles()
	}
	fresh, over := d.review(cycles, waits)
	for _, c := range over {
		d.server.history.deadlock(eventDeadlockOver, c, dissolved)
	}
	for _, c := range fresh {
		d.report(c)
	}
	if d.server.cfg.BreakDeadlocks {
		d.breakAll(ctx)
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
			g.add(e)
		}
	}
	return g, true
}

// knowsAll reports whether every cycle is a known deadlock all of whose waits have been found again.
func (d *detector) knowsAll(cycles [][]*waitEdge, waits waitGraph) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.ContainsFunc(cycles, func(c []*waitEdge) bool {
		known := d.standing[c[len(c)-1].id()]
		return known == nil || !waits.has(known.waits)
	})
}

// review makes the cycles, which are made of the waits, the deadlocks that stand, and returns those that are new, and those
// that are over.
func (d *detector) review(cycles [][]*waitEdge, waits waitGraph) (fresh, over []*deadlock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.standing
	d.standing = make(map[waitName]*deadlock)
	for _, c := range cycles {
		name := c[len(c)-1].id()
		known := before[name]
		switch {
		case known == nil:
			d.found++
			known = &deadlock{number: d.found, found: time.Now(), waits: c}
			fresh = append(fresh, known)
		case !waits.has(known.waits): // its youngest wait closes another cycle by now
			known = &deadlock{number: known.number, found: known.found, waits: c}
		}
		d.standing[name] = known
	}
	for name, c := range before {
		if d.standing[name] == nil {
			over = append(over, c)
		}
	}
	return fresh, over
}

// report logs a deadlock, once.
func (d *detector) report(c *deadlock) {
	d.server.history.deadlock(eventDeadlock, c, dissolved)
	var text strings.Builder
	for i, e := range c.waits {
		if i > 0 {
			text.WriteString(", ")
		}
		a := e.who.more()
		fmt.Fprintf(&text, "connection %d (%s%s%s%s) waits for %s, held by %d%s", e.waiter.connection,
			e.who.address, labelled(", identity ", a.proven), labelled(", name ", a.name), labelled(", owner ", e.waiter.owner),
			e.key, e.holder.connection, labelled(" of owner ", e.holder.owner))
	}
	d.server.cfg.Log.Warn().Uint64("deadlock", c.number).Int("connections", len(c.waits)).Str("cycle", text.String()).
		Msg("deadlock: connections wait for one another")
}

// labelled returns a text after its label, and nothing for an empty one.
func labelled(label, text string) string {
	if text == "" {
		return ""
	}
	return label + text
}

// breakAll ends the youngest wait of each deadlock, the oldest deadlock first. A deadlock that loses another of its waits by
// that may be over, and is left to the next search.
func (d *detector) breakAll(ctx context.Context) {
	standing, _ := d.known()
	ended := make(map[waitName]bool)
	for _, c := range standing {
		if slices.ContainsFunc(c.waits, func(e *waitEdge) bool { return ended[e.id()] }) {
			d.notify()
			continue
		}
		d.breakUp(ctx, c)
		ended[c.youngest().id()] = true
	}
}

// breakUp ends the youngest wait of a deadlock. If the loop does not get to it in time, the wait goes on, since the deadlock
// may be over by then. The deadlock is still listed, and the next search looks again and breaks it.
func (d *detector) breakUp(ctx context.Context, c *deadlock) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	youngest := c.youngest()
	shards := d.server.shards[youngest.shard : youngest.shard+1]
	type attempt struct{ inTime, broken bool }
	done, _ := eachShard(ctx, d.server, shards, func(sh *shard, a *attempt) (more bool) {
		if a.inTime = ctx.Err() == nil; a.inTime {
			a.broken = sh.breakWait(youngest)
		}
		return false
	})
	if len(done) == 0 || !done[0].inTime {
		d.server.cfg.Log.Warn().Uint64("deadlock", c.number).Int("loop", youngest.shard).
			Msg("deadlock not broken yet: the loop of the key is busy")
		return
	}
	end := dissolved
	if done[0].broken {
		end = wasBroken
	}
	d.server.history.deadlock(eventDeadlockOver, c, end)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.standing, youngest.id())
}

// known returns the deadlocks that stand, the oldest first, and how many were found since the start.
func (d *detector) known() (standing []*deadlock, found uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.standing {
		standing = append(standing, c)
	}
	slices.SortFunc(standing, func(a, b *deadlock) int { return cmp.Compare(a.number, b.number) })
	return standing, d.found
}
