package server

import "dreadlock/server/api"

// failer is a run of a simulation.
type failer interface {
	Fatalf(format string, args ...any)
}

// notedGrants is what the journals of a sim say about grants.
type notedGrants struct {
	next  []uint64             // event, by loop
	open  map[string]api.Event // grants without an end, by key
	waits uint64               // grants after a wait
	gone  uint64               // waits that have timed out
	heed  func(api.Event)      // is shown all of them; nil for nobody
}

// read reads what is new in the journals. A key is granted when nobody has it, and its grant ends once.
func (n *notedGrants) read(t failer, s *sim) {
	if n.next == nil {
		n.next = make([]uint64, len(s.loops))
	}
	for i, l := range s.loops {
		r := &l.worker.shard.journal.ring
		if r.first > n.next[i] {
			t.Fatalf("loop %d has lost %d events: the test reads too seldom", i, r.first-n.next[i])
		}
		for ; n.next[i] < r.next; n.next[i]++ {
			n.note(t, s.server.history.describe(r, r.at(n.next[i]), 0))
		}
	}
}

func (n *notedGrants) note(t failer, e api.Event) {
	if n.heed != nil {
		n.heed(e)
	}
	before, held := n.open[e.Key]
	switch e.Kind {
	case api.EventGranted:
		if held {
			t.Fatalf("%+v, and the grant before has no end: %+v", e, before)
		}
		n.open[e.Key] = e
		if e.WaitedSeconds > 0 {
			n.waits++
		}
	case api.EventReleased, api.EventLost:
		if !held || before.Token != e.Token || before.Connection != e.Connection ||
			e.HeldSeconds > e.Time.Sub(before.Time).Seconds() || (e.Kind == api.EventLost) != (e.Reason != "") ||
			e.Kind == api.EventReleased && e.HeldSeconds != e.Time.Sub(before.Time).Seconds() {
			t.Fatalf("%+v, after %+v", e, before)
		}
		if e.Reason == api.Kicked && e.By != "a test" {
			t.Fatalf("kicked by %q: %+v", e.By, e)
		}
		delete(n.open, e.Key)
	case api.EventTimeout:
		n.gone++
	}
}

// checkOver checks that all grants have ended, and that the counters agree.
func (n *notedGrants) checkOver(t failer, s *sim) {
	for _, e := range n.open {
		t.Fatalf("%+v has no end", e)
	}
	var sum counters
	for _, l := range s.loops {
		sum.add(&l.worker.counters)
	}
	if n.gone != sum.timeouts || n.waits > sum.grants {
		t.Fatalf("events: %d timeouts, %d grants after a wait; counted: %d and %d", n.gone, n.waits, sum.timeouts, sum.grants)
	}
}
