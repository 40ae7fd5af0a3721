package fleettest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"dreadlock/server/fleet"
)

// World is a store that some members have joined.
type World interface {
	// Step lets something happen: what was asked for is written, or seen. It fails the test if nothing happens for too long.
	Step()
	// Revoke ends a lease from outside.
	Revoke(lease int64)
	// Leave has a member leave the fleet. When it returns, the member was told.
	Leave(member int)
	// Compact forgets the history up to now.
	Compact()
	// Suspend has the store of a member stand still for a takeover, and returns until when grants may be told.
	Suspend(member int) time.Duration
	// Resume has it go on.
	Resume(member int)
	// Bequeaths reports whether a suspended store has a legacy.
	Bequeaths(member int) bool
	// TakeOver makes another store for a member whose own is suspended, which yields to it.
	TakeOver(member int)
}

// conformance is one run of the checks.
type conformance struct {
	testing.TB
	World
	members []*Recorder
}

// Conform checks that a store is one: start has members join an empty one.
func Conform(t *testing.T, start func(t *testing.T, members []*Recorder) World) {
	for _, check := range []struct {
		name    string
		members int
		run     func(c *conformance)
	}{
		{"a place comes and goes", 2, checkPlace},
		{"all see one order", 3, checkOrder},
		{"keys of any bytes", 2, checkBytes},
		{"a try is refused by whoever has the place", 2, checkRefusal},
		{"a refusal of one who has left says nothing", 2, checkLateRefusal},
		{"a place that does not exist stays away", 2, checkAway},
		{"a place is left at once", 2, checkAtOnce},
		{"many places", 2, checkMany},
		{"a lease that is revoked is lost", 2, checkRevoked},
		{"a session that is lost by its member", 2, checkLose},
		{"one who leaves takes its places along", 2, checkLeave},
		{"a session that is over does nothing", 2, checkOver},
		{"a suspended store goes on", 2, checkResumed},
		{"a suspended store tells nothing", 2, checkSuspended},
		{"a successor goes on", 2, checkTakenOver},
		{"a join is under way when the store is suspended", 2, checkJoining},
		{"what was asked for and not written goes over", 2, checkQueued},
		{"a successor is told what came meanwhile", 3, checkLags},
		{"the history is compacted during a takeover", 2, checkCompacted},
		{"the lease ends during a takeover", 2, checkEndsMeanwhile},
		{"a session is lost by its member during a takeover", 2, checkLosesMeanwhile},
		{"many takeovers", 3, checkManyTakeovers},
	} {
		t.Run(check.name, func(t *testing.T) {
			c := &conformance{TB: t}
			for range check.members {
				c.members = append(c.members, NewRecorder(t))
			}
			c.World = start(t, c.members)
			for i := range c.members {
				c.session(i)
			}
			check.run(c)
		})
	}
}

// until takes steps until something is so.
func (c *conformance) until(is func() bool) {
	for !is() {
		c.Step()
	}
}

// session awaits the session of a member.
func (c *conformance) session(member int) (s fleet.Session) {
	c.Helper()
	c.until(func() bool { s = c.members[member].Session(); return s != nil })
	return s
}

// join has a member ask for a place, and waits until all see it.
func (c *conformance) join(member int, key string, try bool) fleet.Place {
	c.Helper()
	s := c.session(member)
	p := fleet.Place{Lease: s.Lease(), Seq: s.Join([]byte(key), try)}
	c.until(func() bool { return c.all(func(r *Recorder) bool { return has(r, key, p) }) })
	return p
}

func (c *conformance) all(is func(*Recorder) bool) bool {
	return !slices.ContainsFunc(c.members, func(r *Recorder) bool { return !is(r) })
}

func has(r *Recorder, key string, p fleet.Place) bool {
	return slices.ContainsFunc(r.Line(key), func(c fleet.Change) bool { return c.Place == p })
}

// gone waits until all see that a place is gone.
func (c *conformance) gone(key string, p fleet.Place) {
	c.Helper()
	c.until(func() bool { return c.all(func(r *Recorder) bool { return !has(r, key, p) }) })
}

// settle waits until all that was asked for is seen by all: what is asked for later comes later.
func (c *conformance) settle() {
	c.Helper()
	for i := range c.members {
		c.settleOne(i)
	}
}

// settleOne waits until all see what one has asked for.
func (c *conformance) settleOne(i int) {
	c.Helper()
	p := c.join(i, "settle", false)
	c.session(i).Leave([]byte("settle"), p.Seq)
	c.gone("settle", p)
}

// want checks the line of a key, as all see it.
func (c *conformance) want(key string, places ...fleet.Place) {
	c.Helper()
	for i, r := range c.members {
		var got []fleet.Place
		for _, p := range r.Line(key) {
			got = append(got, p.Place)
		}
		if !slices.Equal(got, places) {
			c.Errorf("%q: member %d sees the line %v, want %v", key, i, got, places)
		}
	}
}

func checkPlace(c *conformance) {
	p := c.join(0, "a", false)
	c.want("a", p)
	for _, r := range c.members {
		if came := r.Came("a"); came[0].Try || came[0].Revision == 0 {
			c.Errorf("the place is %+v", came[0])
		}
	}
	c.session(0).Leave([]byte("a"), p.Seq)
	c.gone("a", p)
	again := c.join(0, "a", true)
	if again == p {
		c.Errorf("the place %s is there twice", p)
	}
	for _, r := range c.members {
		if came := r.Came("a"); !came[1].Try || came[1].Revision <= came[0].Revision {
			c.Errorf("the place %+v comes after %+v", came[1], came[0])
		}
	}
}

func checkOrder(c *conformance) {
	const rounds = 20
	keys := []string{"a", "b", "c"}
	for n := range rounds {
		for i := range c.members {
			for k, key := range keys {
				s := c.session(i)
				seq := s.Join([]byte(key), (n+i+k)%3 == 0)
				if (n+k)%2 == 0 {
					s.Leave([]byte(key), seq)
				}
			}
		}
	}
	c.settle()
	for _, key := range keys {
		want := c.members[0].Came(key)
		for i, r := range c.members {
			got := r.Came(key)
			if len(got) != rounds*len(c.members) {
				c.Errorf("%q: member %d has seen %d places, want %d", key, i, len(got), rounds*len(c.members))
			}
			if !slices.EqualFunc(got, want, func(a, b fleet.Change) bool { return a.Place == b.Place && a.Revision == b.Revision }) {
				c.Errorf("%q: member %d has seen another order", key, i)
			}
			if n := len(r.Line(key)); n != len(got)/2 {
				c.Errorf("%q: member %d sees %d places in the end, want %d", key, i, n, len(got)/2)
			}
		}
	}
}

func checkBytes(c *conformance) {
	for _, key := range []string{"/", "a/1.2", "\x00", "\xff\xff", "a\x00/\xff/", string(make([]byte, 9000))} {
		c.want(key, c.join(0, key, false))
	}
}

func checkRefusal(c *conformance) {
	p := c.join(0, "a", false)
	try := c.join(1, "a", true)
	c.want("a", p, try)
	c.session(0).Refuse([]byte("a"), try, p.Seq)
	c.gone("a", try)
	c.want("a", p)
}

func checkLateRefusal(c *conformance) {
	p := c.join(0, "a", false)
	try := c.join(1, "a", true)
	c.session(0).Leave([]byte("a"), p.Seq)
	c.session(0).Refuse([]byte("a"), try, p.Seq)
	c.settle()
	c.want("a", try)
}

func checkAway(c *conformance) {
	p := c.join(0, "a", false)
	c.session(0).Leave([]byte("a"), p.Seq+1)
	c.session(0).Leave([]byte("b"), p.Seq)
	c.session(1).Refuse([]byte("b"), p, 1)
	c.settle()
	c.want("a", p)
}

func checkAtOnce(c *conformance) {
	s := c.session(0)
	for range 10 {
		s.Leave([]byte("a"), s.Join([]byte("a"), false))
	}
	c.settle()
	c.want("a")
	for i, r := range c.members {
		if n := len(r.Came("a")); n != 10 {
			c.Errorf("member %d has seen %d places, want 10", i, n)
		}
	}
}

func checkMany(c *conformance) {
	const places = 3000
	s := c.session(0)
	for i := range places {
		s.Join(fmt.Appendf(nil, "key%d", i), false)
	}
	c.until(func() bool { return c.all(func(r *Recorder) bool { return r.Places() == places }) })
}

func checkRevoked(c *conformance) {
	p := c.join(0, "a", false)
	other := c.join(1, "a", false)
	c.Revoke(p.Lease)
	c.until(func() bool { return len(c.members[0].Losses()) == 1 })
	next := c.session(0)
	if next.Lease() == p.Lease {
		c.Errorf("the next session has the same lease")
	}
	c.settle()
	c.want("a", other)
	if c.members[1].Losses() != nil {
		c.Errorf("another session was lost: %v", c.members[1].Losses())
	}
}

func checkLose(c *conformance) {
	p := c.join(0, "a", false)
	c.session(0).Lose()
	c.until(func() bool { return len(c.members[0].Losses()) == 1 })
	c.session(0)
	c.settle()
	c.gone("a", p)
}

func checkLeave(c *conformance) {
	p, q := c.join(0, "a", false), c.join(1, "a", false)
	c.Leave(0)
	c.until(func() bool { return !has(c.members[1], "a", p) })
	if c.members[0].Session() != nil || len(c.members[0].Losses()) != 1 {
		c.Errorf("the member was not told that it has left")
	}
	c.members = c.members[1:]
	c.want("a", q)
}

func checkOver(c *conformance) {
	before := c.session(0)
	p := c.join(1, "a", false)
	try := c.join(0, "b", true)
	before.Lose()
	c.until(func() bool { s := c.members[0].Session(); return s != nil && s != before })
	if before.Until() != 0 {
		c.Errorf("grants of a session that is over may be told until %s", before.Until())
	}
	before.Join([]byte("a"), false)
	before.Leave([]byte("a"), p.Seq)
	before.Refuse([]byte("a"), p, try.Seq)
	before.Lose()
	c.settle()
	c.want("a", p)
	c.want("b")
}
