package fleettest

import (
	"fmt"
	"slices"

	"dreadlock/server/fleet"
)

// What a store has to do when its daemon hands over to the next process. Member 0 is the one that does.

// others has a check go on without member 0, which is told nothing for a while.
func (c *conformance) others(do func()) {
	all := c.members
	defer func() { c.members = all }()
	c.members = all[1:]
	do()
}

// takeOver suspends the store of member 0, does something, and has a successor go on.
func (c *conformance) takeOver(meanwhile func(s fleet.Session)) {
	c.Helper()
	s := c.session(0)
	c.suspend()
	meanwhile(s)
	c.TakeOver(0)
	if until := s.Until(); until != 0 {
		c.Errorf("the predecessor may tell grants until %s", until)
	}
}

func (c *conformance) suspend() {
	c.Helper()
	s := c.session(0)
	if until := c.Suspend(0); until == 0 || until != s.Until() {
		c.Errorf("a suspended session: grants may be told until %s, want %s", until, s.Until())
	}
}

// kept checks that no session was lost.
func (c *conformance) kept() {
	c.Helper()
	for i, r := range c.members {
		if lost := r.Losses(); lost != nil {
			c.Errorf("member %d has lost a session: %v", i, lost)
		}
	}
}

func checkResumed(c *conformance) {
	p := c.join(0, "a", false)
	for range 3 {
		s := c.session(0)
		c.suspend()
		q := fleet.Place{Lease: p.Lease, Seq: s.Join([]byte("a"), false)}
		s.Leave([]byte("a"), p.Seq)
		c.Resume(0)
		c.gone("a", p)
		c.settle()
		c.want("a", q)
		p = q
	}
	c.kept()
}

func checkSuspended(c *conformance) {
	p, q := c.join(0, "a", false), c.join(1, "a", false)
	s := c.session(0)
	c.suspend()
	s.Leave([]byte("a"), p.Seq)
	lost := fleet.Place{Lease: p.Lease, Seq: s.Join([]byte("b"), false)}
	c.others(func() {
		c.settle()
		c.want("a", p, q) // not left
		c.want("b")
		c.session(0).Leave([]byte("a"), q.Seq)
		c.gone("a", q)
	})
	if r := c.members[0]; !has(r, "a", q) {
		c.Errorf("the member of a suspended store is told something")
	}
	c.Resume(0)
	c.settle()
	c.want("a")
	c.want("b", lost)
	c.kept()
}

func checkTakenOver(c *conformance) {
	p, q := c.join(0, "a", false), c.join(1, "a", false)
	c.takeOver(func(fleet.Session) {})
	if lease := c.session(0).Lease(); lease != p.Lease {
		c.Errorf("the successor has the lease %x, want %x", lease, p.Lease)
	}
	c.settle()
	c.want("a", p, q)
	next := c.join(0, "a", false)
	c.session(0).Leave([]byte("a"), p.Seq)
	c.gone("a", p)
	c.want("a", q, next)
	c.Leave(0)
	c.until(func() bool { return !has(c.members[1], "a", next) })
	if n := len(c.members[0].Losses()); n != 1 {
		c.Errorf("the member was told %d times that it has left", n)
	}
}

func checkJoining(c *conformance) {
	const places = 300 // more than one transaction takes
	s := c.session(0)
	var want []fleet.Place
	for range places {
		want = append(want, fleet.Place{Lease: s.Lease(), Seq: s.Join([]byte("a"), false)})
	}
	c.takeOver(func(fleet.Session) {})
	c.settle()
	c.want("a", want...)
	c.kept()
}

func checkQueued(c *conformance) {
	p := c.join(0, "a", false)
	try := c.join(1, "a", true)
	left := c.join(0, "b", false)
	var q, own fleet.Place
	c.takeOver(func(s fleet.Session) {
		s.Refuse([]byte("a"), try, p.Seq)
		s.Leave([]byte("b"), left.Seq)
		q = fleet.Place{Lease: p.Lease, Seq: s.Join([]byte("c\x00/"), false)}
		own = fleet.Place{Lease: p.Lease, Seq: s.Join([]byte("d"), true)}
	})
	c.settle()
	c.want("a", p)
	c.want("b")
	c.want("c\x00/", q)
	c.want("d", own)
	if came := c.members[1].Came("d"); len(came) != 1 || !came[0].Try {
		c.Errorf("the try came as %+v", came)
	}
	if seq := c.session(0).Join([]byte("e"), false); seq <= own.Seq {
		c.Errorf("the place %d follows on %d", seq, own.Seq)
	}
	late := c.join(1, "a", true)
	c.takeOver(func(s fleet.Session) { // it has not got the place any more that refuses
		s.Leave([]byte("a"), p.Seq)
		s.Refuse([]byte("a"), late, p.Seq)
	})
	c.settle()
	c.want("a", late)
	c.kept()
}

// checkMeanwhile has others make and leave places during a takeover, and checks that the successor is told all.
func checkMeanwhile(c *conformance, during func()) {
	held, goes := c.join(0, "a", false), c.join(1, "a", false)
	var came []fleet.Place
	c.takeOver(func(fleet.Session) {
		c.others(func() {
			for i := range 20 {
				p := c.join(i%len(c.members), "a", false)
				came = append(came, p)
			}
			c.session(0).Leave([]byte("a"), goes.Seq)
			c.gone("a", goes)
			during()
		})
	})
	c.gone("a", goes)
	c.settle()
	c.want("a", append([]fleet.Place{held}, came...)...)
	c.kept()
}

func checkLags(c *conformance) { checkMeanwhile(c, func() {}) }

func checkCompacted(c *conformance) { checkMeanwhile(c, c.Compact) }

func checkEndsMeanwhile(c *conformance) {
	p := c.join(0, "a", false)
	other := c.join(1, "a", false)
	c.takeOver(func(fleet.Session) {
		c.Revoke(p.Lease)
		c.others(func() { c.gone("a", p) })
	})
	c.until(func() bool { return len(c.members[0].Losses()) == 1 })
	if next := c.session(0); next.Lease() == p.Lease {
		c.Errorf("the next session has the same lease")
	}
	c.settle()
	c.want("a", other)
	c.others(c.kept)
}

func checkLosesMeanwhile(c *conformance) {
	p := c.join(0, "a", false)
	s := c.session(0)
	c.suspend()
	s.Lose()
	if c.Bequeaths(0) {
		c.Errorf("a session goes over that is lost")
	}
	c.Resume(0)
	c.until(func() bool { return len(c.members[0].Losses()) == 1 })
	c.session(0)
	c.settle()
	c.gone("a", p)
}

func checkManyTakeovers(c *conformance) {
	var want []fleet.Place
	for n := range 12 {
		key := []byte("a")
		mine := fleet.Place{Lease: c.session(0).Lease(), Seq: c.session(0).Join(key, false)}
		if n%4 == 3 {
			c.suspend()
			c.session(0).Leave([]byte("x"), 1)
			c.Resume(0)
		}
		c.takeOver(func(s fleet.Session) {
			if len(want) > 0 {
				s.Leave(key, want[0].Seq)
			}
		})
		if len(want) > 0 {
			want = want[1:]
		}
		want = append(want, mine)
		c.join(1+n%2, fmt.Sprint("b", n), false)
	}
	c.settle()
	c.want("a", want...)
	if got := c.members[0].Came("a"); len(slices.CompactFunc(got, func(a, b fleet.Change) bool { return a.Place == b.Place })) != 12 {
		c.Errorf("member 0 has seen %d places, want 12", len(got))
	}
	c.kept()
}
