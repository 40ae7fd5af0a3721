package server

import "dreadlock/server/fleet/fleettest"

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
	err := s.sim.takeOver(cfg, func() {
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
	link.Yield(next)
	s.link = next
	s.begin()
	w.pass(simTick) // what was due ends with the next tick
}

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
