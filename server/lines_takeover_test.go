package server

import (
	"fmt"
	"math"
	"slices"
	"time"

	"dreadlock/server/fleet/fleettest"
)

// takeOver has another server, with another number of loops, go on in place of one. The store, the other servers and time stand still
// meanwhile, which is the same as if all of what they do came after it.
func (w *fleetWorld) takeOver() {
	s := w.server()
	if s.drains {
		return // it is refused
	}
	before, link := s.server, s.link
	cfg := before.cfg
	cfg.Loops = 1 + w.IntN(mostLoops)
	next := &fleettest.Link{Log: w.log}
	cfg.Fleet = simStore{link: next}
	w.note("%s is taken over by one with %d loops", s, cfg.Loops)
	var left []string
	err := s.takeOver(cfg, func() {
		left = s.left()
		w.hear()
		s.noted.next = nil
		w.retire(s)
	})
	switch {
	case err != nil && s.server == before && link.MustLose():
		w.note("    it is about to lose touch, and serves on: %v", err)
		s.goOn()
		return
	case err != nil:
		w.Fatalf("%s: a takeover: %v\n%s", s, err, w.state())
	}
	if now := s.left(); !slices.Equal(now, left) {
		w.Fatalf("%s leaves %q, and after the takeover %q", s, left, now)
	}
	link.Yield(next)
	s.link = next
	s.begin()
	w.pass(simTick) // what was due ends with the next tick
}

// left returns what the lines of a server leave, in an order that does not depend on its loops.
func (s *fleetServer) left() (all []string) {
	tries, suspects, sweepsAt := uint64(0), 0, simNever
	for _, l := range s.loops {
		lines, _ := l.worker.shard.lines.left()
		tries += lines.Tries
		suspects += l.worker.shard.suspects.len()
		if lines.SweepsAt > 0 {
			sweepsAt = min(sweepsAt, max(lines.SweepsAt, s.now))
		}
		for _, one := range lines.Lines {
			places := lines.Places[:one.Places]
			lines.Places = lines.Places[one.Places:]
			joining := placeLeft{}
			if one.Joining != nil {
				joining = *one.Joining
			}
			all = append(all, fmt.Sprintf("%s: asked %+v, kept %t, used %t, %d under %d, joining %+v, places %+v",
				one.Key, one.Asked, one.Kept > 0, one.Used, one.Number, one.Under, joining, places))
		}
	}
	slices.Sort(all)
	return append(all, fmt.Sprintf("%d tries, %d suspects, sweeps at %s", tries, suspects, sweepsAt))
}

// simNever is a time that does not come.
const simNever = time.Duration(math.MaxInt64)

// failTakeover has a server be held and asked for what it leaves, and go on.
func (w *fleetWorld) failTakeover() {
	s := w.server()
	w.note("a takeover of %s fails", s)
	s.hold()
	if _, _, err := s.estate(); err != nil && !s.link.MustLose() {
		w.Fatalf("%s: a takeover: %v\n%s", s, err, w.state())
	}
	s.goOn()
}

// retire takes note that what clients have asked on a loop of a server, which is about to be taken over from, has come to its place.
func (w *fleetWorld) retire(s *fleetServer) {
	for _, c := range s.clients {
		for i := range w.asked[c] {
			if cmd := &w.asked[c][i]; cmd.loop != nil && cmd.loop == c.loop {
				w.retired[cmd.loop] = true
			} else {
				cmd.order, cmd.loop = 0, nil
			}
		}
	}
}
