package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/reactor"
)

// mustTakeOver has a server with changed options take over.
func (s *sim) mustTakeOver(t *testing.T, change func(*Config)) {
	t.Helper()
	s.settle()
	cfg := s.server.cfg
	change(&cfg)
	if err := s.takeOver(cfg, func() {}); err != nil {
		t.Fatal(err)
	}
	s.settle()
	if err := s.checkQuiet(); err != nil {
		t.Fatal(err)
	}
}

// wantLines checks what a client has read since all were asked last.
func wantLines(t *testing.T, lines map[*simClient][]string, c *simClient, want ...string) {
	t.Helper()
	if got := lines[c]; !slices.Equal(got, want) {
		t.Errorf("%s was told %q, want %q", c.name, got, want)
	}
}

// What a limit of the successor is below is kept, and no more is let in.
func TestInheritedAboveLimits(t *testing.T) {
	s := newSim(2, moveAfter)
	holder, other := s.connect("holder", 0), s.connect("other", 1)
	holder.send("lock a 0\r\nlock b 0\r\nlock c 0\r\n")
	s.mustTakeOver(t, func(cfg *Config) { cfg.MaxKeys, cfg.MaxConnections = 2, 1 })
	s.heardLines()
	if got := s.server.connections.Load(); got != 2 {
		t.Errorf("%d connections are counted, want 2", got)
	}
	if refused := s.connect("third", 0); refused != nil {
		t.Error("a third connection is let in, of one at most")
	}
	holder.send("lock d 0\r\nunlock a\r\nunlock b\r\nlock d 0\r\n")
	s.settle()
	other.send("lock c 0\r\nlock a 0\r\n")
	s.settle()
	lines := s.heardLines()
	wantLines(t, lines, holder, "e too many keys", "u unlocked", "u unlocked", "l locked")
	wantLines(t, lines, other, "t timeout", "l locked")
}

// The clients of an address are counted, also above the limit for each.
func TestInheritedTally(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	counts := newTally(1)
	counts.enter(addr)
	counts.enter(addr)
	if counts.add(addr) {
		t.Error("a third client is let in, of one at most")
	}
	counts.remove(addr)
	if counts.add(addr) {
		t.Error("a second client is let in, of one at most")
	}
	counts.remove(addr)
	if !counts.add(addr) {
		t.Error("the first client is not let in")
	}
	counts.enter(netip.MustParseAddr("127.0.0.1"))
	if len(counts.count) != 1 {
		t.Errorf("clients of this machine are counted: %v", counts.count)
	}
}

// With another lock delay, what rests does so until its own time, and what comes later goes by the new one: nobody waits for longer
// because others rest.
func TestInheritedRest(t *testing.T) {
	const long, short = time.Minute, time.Second
	s := newOpenSim(1) // so that one timer serves both keys
	s.mustTakeOver(t, func(cfg *Config) { cfg.LockDelay = long })
	first, second, waiter, other := s.connect("first", 0), s.connect("second", 0), s.connect("waiter", 0), s.connect("other", 0)
	first.send("lock a 0\r\n")
	second.send("lock b 0\r\n")
	s.settle()
	waiter.send("lock a 600000\r\n")
	other.send("lock b 600000\r\n")
	s.settle()
	s.heardLines()
	first.closeWrite()
	s.settle()
	s.pass(10 * time.Second)
	s.mustTakeOver(t, func(cfg *Config) { cfg.LockDelay = short })
	second.closeWrite()
	s.settle()
	s.heardLines()
	for _, step := range []struct {
		pass  time.Duration
		heard *simClient
	}{{short - simTick, nil}, {simTick, other}, {long - 10*time.Second - short - simTick, nil}, {simTick, waiter}} {
		s.pass(step.pass)
		s.settle()
		lines := s.heardLines()
		if step.heard != nil {
			wantLines(t, lines, step.heard, "l locked")
		} else if len(lines) > 0 {
			t.Errorf("somebody was told something too early: %v", lines)
		}
	}
	holds := s.loops[0].worker.counters.holds
	for _, l := range s.loops[1:] {
		holds.merge(&l.worker.counters.holds)
	}
	if holds.sum != 10*time.Second {
		t.Errorf("the keys were held for %s, want 10 s: one until its session ended, before, and the other until then", holds.sum)
	}
}

// A server that has just started does not know who held keys before. Its successor goes on waiting for that, and does not begin anew.
func TestInheritedStart(t *testing.T) {
	s := newDelayedSim(2, moveAfter, simDelay)
	waiter := s.connect("waiter", 0)
	waiter.send("lock a 600000\r\nlock b 0\r\n")
	s.pass(simDelay / 2)
	s.mustTakeOver(t, func(cfg *Config) { cfg.Loops, cfg.LockDelay = 3, 100*simDelay })
	other := s.connect("other", 0)
	other.send("lock c 0\r\nlock d 600000\r\n")
	s.settle()
	wantLines(t, s.heardLines(), other, "t timeout")
	s.pass(simDelay/2 - simTick)
	s.settle()
	if lines := s.heardLines(); len(lines) > 0 {
		t.Errorf("keys are granted before the delay of the start is over: %v", lines)
	}
	s.pass(simTick)
	s.settle()
	lines := s.heardLines()
	wantLines(t, lines, waiter, "l locked", "l locked")
	wantLines(t, lines, other, "l locked")
}

// Events may be kept or not, before and after.
func TestInheritedEvents(t *testing.T) {
	for _, events := range [][2]int{{0, 100}, {100, 0}, {0, 0}} {
		s := newSimWith(2, moveAfter, 0, events[0])
		holder, waiter := s.connect("holder", 0), s.connect("waiter", 1)
		holder.send("lock a 0\r\n")
		s.settle()
		waiter.send("lock a 1000\r\n")
		s.mustTakeOver(t, func(cfg *Config) { cfg.Events = events[1] })
		s.heardLines()
		holder.send("unlock a\r\n")
		s.settle()
		lines := s.heardLines()
		wantLines(t, lines, holder, "u unlocked")
		wantLines(t, lines, waiter, "l locked")
	}
}

// Sessions that have sent no command are dropped when their time is up, which may have come to be another; so are none whose predecessor
// did not know who they are.
func TestInheritedNewcomers(t *testing.T) {
	for before, after := range map[time.Duration]time.Duration{
		time.Minute: time.Minute, 2 * time.Minute: time.Second, time.Second: 10 * time.Second, time.Hour: 0, 0: time.Hour,
	} {
		t.Run(fmt.Sprintf("%s,%s", before, after), func(t *testing.T) {
			s := newSim(1, moveAfter)
			s.server.cfg.IdleTimeout = before
			older := s.connect("older", 0)
			s.pass(time.Second / 4)
			younger := s.connect("younger", 0)
			active := s.connect("active", 0)
			active.send("name x\r\n")
			s.pass(time.Second / 4)
			s.hold()
			if err := s.takeOver(func() Config { cfg := s.server.cfg; cfg.IdleTimeout = after; return cfg }(), func() {}); err != nil {
				t.Fatal(err)
			}
			drops := before > 0 && after > 0
			s.pass(max(after-time.Second/2-simTick, 0))
			s.settle()
			if older.hasEnded() || younger.hasEnded() {
				t.Error("they are dropped too early")
			}
			s.pass(simTick)
			s.settle()
			if older.hasEnded() != drops || younger.hasEnded() {
				t.Errorf("when the time of the older is up, it is gone: %t, and the younger: %t", older.hasEnded(), younger.hasEnded())
			}
			s.pass(time.Second / 4)
			s.settle()
			if younger.hasEnded() != drops || active.hasEnded() {
				t.Errorf("when the time of the younger is up, it is gone: %t, and the one that is active: %t", younger.hasEnded(), active.hasEnded())
			}
		})
	}
}

// A session whose predecessor had less room for its pipeline, or less memory, is read again.
func TestInheritedPause(t *testing.T) {
	s := newSim(1, moveAfter)
	s.server.cfg.MaxPipeline = 50
	holder, waiter, idle := s.connect("holder", 0), s.connect("waiter", 0), s.connect("idle", 0)
	holder.send("lock a 0\r\n")
	waiter.send("lock a 1000\r\n" + strings.Repeat("fence a\r\n", 6))
	if !waiter.paused {
		t.Fatal("the waiter is not held back")
	}
	s.fillMemory(110)
	s.settle()
	if !idle.paused {
		t.Fatal("where there is no memory, not all are held back")
	}
	s.fillMemory(0)
	s.settle()
	idle.paused, idle.wasHeld = true, true // as if the loops had been stopped before they heard of that
	s.mustTakeOver(t, func(cfg *Config) { cfg.MaxPipeline = 1000 })
	for _, l := range s.loops {
		l.turn(func() {})
	}
	s.settle()
	if waiter.paused || idle.paused {
		t.Errorf("the waiter is held back: %t, and the idle one: %t", waiter.paused, idle.paused)
	}
}

// Sessions get their turns in the order in which they would have had them.
func TestInheritedTurns(t *testing.T) {
	s := newSim(1, moveAfter)
	var clients []*simClient
	for _, name := range []string{"a", "b", "c", "d"} {
		clients = append(clients, s.connect(name, 0))
	}
	s.hold()
	want := []*simClient{clients[2], clients[0], clients[3], clients[1]}
	for _, c := range want {
		c.send("fence k\r\n")
	}
	if err := s.takeOver(s.server.cfg, func() {}); err != nil {
		t.Fatal(err)
	}
	s.settle()
	var got []*simClient
	for _, e := range s.events {
		got = append(got, e.client)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the clients were served in the order %#v, want %#v", got, want)
	}
}

// A session that is read on, to see whether it has ended, is held back as soon as the sessions are held. What was read of it counts on
// the successor as well.
func TestInheritedSearch(t *testing.T) {
	s := newSim(1, moveAfter)
	s.server.cfg.MaxPipeline = 20
	holder, waiter := s.connect("holder", 0), s.connect("waiter", 0)
	holder.send("lock a 0\r\n")
	waiter.send("lock a 100000\r\n" + strings.Repeat("fence a\r\n", 3))
	s.settle()
	waiter.send(strings.Repeat("fence a\r\n", 10_000))
	s.pass(searchEvery)
	s.settle()
	search := &s.loops[0].worker.roster.search
	if search.current != waiter.session || search.readOn == 0 {
		t.Fatalf("%d bytes are read on, of %v", search.readOn, search.current)
	}
	before := search.readOn
	s.hold()
	if search.current != nil || !waiter.paused {
		t.Fatal("the waiter is still read on")
	}
	if err := s.takeOver(s.server.cfg, func() {}); err != nil {
		t.Fatal(err)
	}
	search = &s.loops[0].worker.roster.search
	if search.readOn == 0 || search.readOn > before {
		t.Errorf("%d bytes count as read on, want %d at most", search.readOn, before)
	}
	waiter.closeWrite()
	s.settleReading()
	if waiter.open || search.readOn != 0 {
		t.Errorf("the waiter is open: %t; %d bytes count as read on", waiter.open, search.readOn)
	}
}

// Who is held back while it waits for nothing but the end of a hold may come to wait for a key by that: its end is noticed all the same,
// after more than is read.
func TestEndBehindHold(t *testing.T) {
	s := newSim(1, moveAfter)
	holder, waiter := s.connect("holder", 0), s.connect("waiter", 0)
	holder.send("lock a 0\r\n")
	s.hold()
	waiter.send(strings.Repeat("fence a\r\n", 8) + "lock a 100000\r\n" + strings.Repeat("fence a\r\n", 15))
	if !waiter.paused {
		t.Fatal("the waiter is not held back")
	}
	s.goOn()
	s.settle()
	if waiter.session.outstanding == 0 || !waiter.paused {
		t.Fatal("the waiter does not wait, or is not held back any more")
	}
	waiter.send(strings.Repeat("fence a\r\n", 10))
	waiter.closeWrite()
	s.settleReading()
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
	if waiter.open {
		t.Error("the end of the waiter is not noticed")
	}
}

// An entrance may be gone: its sessions still say by which they have come.
func TestInheritedEntrances(t *testing.T) {
	s := newSim(1, moveAfter)
	for i, e := range []*entrance{
		{way: &way{}, server: s.server, url: "tcp://:1"},
		{way: &way{}, server: s.server, url: "unix:///old", client: "unix:/old"},
		{way: &way{tls: true}, server: s.server, url: "tls://:2"},
	} {
		c := s.connect(fmt.Sprint("c", i), 0)
		known := *c.session.known()
		known.address.entrance = e
		if e.client != "" {
			known.address.AddrPort = netip.AddrPort{}
			known.about = &about{proven: "uid 1000"}
		}
		c.session.identity.Store(&known)
	}
	s.hold()
	file, _, err := s.estate()
	if err != nil {
		t.Fatal(err)
	}
	clients := s.absentClients()
	s.serve(newHeirSim(s.server.cfg).server)
	kept := &entrance{way: &way{}, server: s.server, url: "tcp://:1"}
	if _, err := s.inheritBy(file, clients, kept); err != nil {
		t.Fatal(err)
	}
	if got := s.clients[0].session.address().entrance; got != kept {
		t.Errorf("the first has come by %+v", got)
	}
	if got := s.clients[1].session; got.address().String() != "unix:/old" || got.address().entrance.listener != nil || got.known().about.proven != "uid 1000" {
		t.Errorf("the second has come by %+v: %+v", got.address().entrance, got.peer())
	}
	if got := s.clients[2].session.address(); !got.entrance.tls || got.AddrPort != simAddress {
		t.Errorf("the third has come by %+v", got.entrance)
	}
	s.clients[1].reset()
	if got := s.server.connections.Load(); got != 2 {
		t.Errorf("%d connections are counted, want 2", got)
	}
}

// Counters keep their words: what this version does not know is dropped.
func TestInheritedCounters(t *testing.T) {
	var before, after counters
	before.holds.add(3 * time.Millisecond)
	before.holds.add(2 * time.Hour)
	before.limitHits[maxKeys] = 7
	before.disconnects[kicked] = 8
	left := before.left(reactor.Traffic{})
	left.Ends["a reason to come"] = 9
	left.Commands["conjure"] = map[string]uint64{"up": 1}
	left.Waits["forever"] = left.Holds
	after.addLeft(&left)
	if after != before {
		t.Errorf("the counters are\n%+v\nwant\n%+v", after, before)
	}
	h := histogram{}
	h.addLeft(histogramLeft{Bounds: []time.Duration{time.Millisecond, 3 * time.Millisecond, 10 * time.Hour}, Counts: []uint64{1, 2, 3, 4}, Sum: time.Hour})
	want := histogram{sum: time.Hour}
	want.buckets[0], want.buckets[2], want.buckets[len(durationBounds)] = 1, 2, 7
	if h != want {
		t.Errorf("a histogram with other bounds is %+v, want %+v", h, want)
	}
	if got := reasonOf("a reason to come"); got != clientClosed {
		t.Errorf("a reason to come is taken for %s", reasonWords[got])
	}
}

// A connection that cannot be carried keeps what it holds until the predecessor has gone, and its place in a queue as well.
func TestAbsent(t *testing.T) {
	s := newSim(2, moveAfter)
	holder, waiter, heir, nothing := s.connect("holder", 0), s.connect("waiter", 1), s.connect("heir", 0), s.connect("nothing", 0)
	holder.encrypted, waiter.encrypted, nothing.encrypted = true, true, true
	plain := s.connect("plain", 0)
	plain.send("lock b 0\r\n")
	holder.send("lock a 0\r\n")
	s.settle()
	waiter.send("lock b 100000\r\n")
	heir.send("lock a 100000\r\n")
	s.mustTakeOver(t, func(cfg *Config) { cfg.Loops = 3 })
	s.heardLines()
	if got := s.server.connections.Load(); got != 4 {
		t.Errorf("%d connections are counted, want 4: one had nothing to lose", got)
	}
	plain.send("unlock b\r\nlock b 0\r\n")
	s.settle()
	lines := s.heardLines()
	wantLines(t, lines, plain, "u unlocked", "t timeout")
	wantLines(t, lines, heir)
	s.endAbsent()
	s.settle()
	wantLines(t, s.heardLines(), heir, "l locked")
	var sum counters
	for _, l := range s.loops {
		sum.add(&l.worker.counters)
	}
	if got := s.server.connections.Load(); got != 2 || sum.disconnects[notCarried] != 3 {
		t.Errorf("%d connections are counted, and %d have ended for that, want 2 and 3", got, sum.disconnects[notCarried])
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}
