package server

import (
	"fmt"
	"strings"
	"time"

	"dreadlock/server/api"
)

// fleetSteps are what can happen, and how often. What makes servers work is frequent, so that much of what is asked is under way at
// a time, and little of it for long.
var fleetSteps = []struct {
	weight int
	faulty bool // only in runs with faults
	step   func(w *fleetWorld)
}{
	{20, false, (*fleetWorld).ask},
	{16, false, (*fleetWorld).unlock},
	{14, false, func(w *fleetWorld) {
		if l := w.someLoop(func(l *simLoop) bool { return len(l.mailbox) > 0 }); l != nil {
			l.receive()
		}
	}},
	{4, false, func(w *fleetWorld) {
		if l := w.someLoop(func(l *simLoop) bool { return l.behind }); l != nil {
			l.goOn()
		}
	}},
	{4, false, func(w *fleetWorld) {
		if l := w.someLoop(func(l *simLoop) bool { return l.wheel.Len() > 0 }); l != nil {
			l.expire()
		}
	}},
	{12, false, (*fleetWorld).write},
	{12, false, (*fleetWorld).watch},
	{20, false, (*fleetWorld).work},
	{4, false, func(w *fleetWorld) {
		for range w.servers {
			w.work()
		}
	}},
	{4, false, (*fleetWorld).passSome},
	{5, false, (*fleetWorld).quiet},
	{2, false, (*fleetWorld).idle},
	{3, false, (*fleetWorld).connectSome},
	{3, false, (*fleetWorld).end},
	{1, false, (*fleetWorld).kick},
	{1, false, (*fleetWorld).release},
	{1, false, (*fleetWorld).drain},
	{4, false, (*fleetWorld).takeOver},
	{2, false, (*fleetWorld).failTakeover},
	{2, false, func(w *fleetWorld) {
		if s := w.linked(); s != nil {
			s.link.Renew(time.Duration(w.IntN(2000)) * time.Millisecond)
		}
	}},
	{4, true, func(w *fleetWorld) {
		if s := w.linked(); s != nil {
			w.note("a transaction is repeated")
			s.link.Repeat()
		}
	}},
	{3, false, (*fleetWorld).mute},
	{2, false, func(w *fleetWorld) {
		w.note("the history is compacted")
		w.log.Compact()
	}},
	{1, true, (*fleetWorld).stall},
	{3, true, (*fleetWorld).loseOne},
	{2, true, (*fleetWorld).revoke},
	{2, true, (*fleetWorld).crash},
	{8, true, (*fleetWorld).reconnect},
	{3, true, (*fleetWorld).cutOff},
	{3, true, (*fleetWorld).flap},
}

// step does one thing: what cannot be done now does not count.
func (w *fleetWorld) step() {
	for before, tries := len(w.trace), 0; len(w.trace) == before && tries < 50; tries++ {
		w.draw()
	}
}

func (w *fleetWorld) draw() {
	total := 0
	for _, s := range fleetSteps {
		if !s.faulty || w.faults {
			total += s.weight
		}
	}
	draw := w.IntN(total)
	for _, s := range fleetSteps {
		if s.faulty && !w.faults {
			continue
		}
		if draw -= s.weight; draw < 0 {
			s.step(w)
			return
		}
	}
}

// someLoop draws a loop of those that have something to do; nil if there is none.
func (w *fleetWorld) someLoop(busy func(*simLoop) bool) *simLoop {
	var all []*simLoop
	for _, s := range w.servers {
		for _, l := range s.loops {
			if busy(l) {
				all = append(all, l)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	l := all[w.IntN(len(all))]
	w.note("%s, loop %d", w.ofSim(l.sim), l.index)
	return l
}

// some draws a server of those that are in touch with the store and have something to do; nil if there is none.
func (w *fleetWorld) some(busy func(*fleetServer) bool) *fleetServer {
	for _, i := range w.Perm(len(w.servers)) {
		if s := w.servers[i]; s.link.Connected() && busy(s) {
			return s
		}
	}
	return nil
}

func (w *fleetWorld) write() {
	s := w.some(func(s *fleetServer) bool { return s.link.Queued() > 0 && !s.muted })
	if s == nil {
		return
	}
	lost := w.faults && w.chance(3)
	n := 1 + w.IntN(3)
	w.note("%s writes %d operations, the answer is lost: %v", s, n, lost)
	s.link.Write(n, lost)
}

func (w *fleetWorld) watch() {
	if s := w.some(func(s *fleetServer) bool { return s.link.Unseen() > 0 }); s != nil {
		n := 1 + w.IntN(3)
		w.note("%s sees %d changes", s, n)
		s.link.Watch(n)
	}
}

// work has a server write and notice some things, and deal with them.
func (w *fleetWorld) work() {
	s := w.some(func(s *fleetServer) bool { return s.link.Queued()+s.link.Unseen() > 0 })
	if s == nil {
		return
	}
	w.note("%s works", s)
	if !s.muted {
		s.link.Write(w.IntN(4), false)
	}
	s.link.Watch(w.IntN(6))
	s.settle()
	w.hear() // before another server does anything
}

func (w *fleetWorld) passSome() {
	if !w.faults || w.chance(2) {
		w.renewAll()
	}
	ms := []int{1, 6, 60, 2000}
	if w.faults {
		ms = append(ms, 8000, 20_000)
	}
	d := time.Duration(ms[w.IntN(len(ms))]) * time.Millisecond
	w.note("%s pass", d)
	w.pass(d)
}

func (w *fleetWorld) connectSome() {
	if len(w.open()) < 8 {
		if s := w.server(); !s.drains {
			w.note("a client comes to %s", s)
			w.connect(s)
		}
	}
}

// end has a client end its connection.
func (w *fleetWorld) end() {
	c := w.client()
	if c == nil || c.loop == nil {
		return
	}
	w.leave(c)
	if w.chance(2) {
		w.note("%s ends its side", c.name)
		c.closeWrite()
		return
	}
	w.note("%s resets", c.name)
	delete(w.asked, c)
	c.reset()
}

func (w *fleetWorld) kick() {
	if c := w.client(); c != nil && c.loop != nil {
		w.note("%s is kicked", c.name)
		w.leave(c)
		w.hurt[c] = true
		c.kick()
	}
}

// release has an operator take a key from its holder, if that is possible now.
func (w *fleetWorld) release() {
	key := w.keys[w.IntN(len(w.keys))]
	s := w.server()
	hash := s.server.seed.Hash([]byte(key))
	l := s.loops[s.server.shardOf(hash)]
	var r *api.Release
	l.turn(func() { r, _ = l.worker.shard.take(&api.ReleaseQuery{Key: key}, hash) })
	if r == nil {
		return
	}
	w.note("%s is taken from connection %d", key, r.Holder.Connection)
	delete(w.rests, key)
	w.touch(key)
	for _, c := range s.clients {
		switch {
		case c.session.id() != r.Holder.Connection:
		case w.told[key] == c:
			delete(w.told, key)
		default: // it will be told that it has the key, by the answer to one of these
			w.taken[simGrant{c, key}] = len(w.asked[c])
		}
	}
}

// drain has a server begin to drain, or look who is left.
func (w *fleetWorld) drain() {
	s := w.server()
	if !s.drains && !w.chance(4) {
		return
	}
	w.note("server %d drains", w.number(s))
	s.drains = true
	s.look()
}

// look has a server that drains look who is left.
func (s *fleetServer) look() {
	for _, c := range s.clients {
		s.world.hurt[c] = true
	}
	for _, l := range s.loops {
		l.turn(func() { l.worker.shard.drain(&holders{}) })
	}
}

// number returns which of the servers it is.
func (w *fleetWorld) number(s *fleetServer) int {
	for i, other := range w.servers {
		if other == s {
			return i
		}
	}
	return -1
}

// mute has a server write nothing for a while, or write again.
func (w *fleetWorld) mute() {
	s := w.server()
	s.muted = !s.muted
	w.note("%s is muted: %v", s, s.muted)
}

func (w *fleetWorld) stall() {
	s := w.server()
	s.stalled = !s.stalled
	w.note("server %d is stalled: %v", w.number(s), s.stalled)
}

func (w *fleetWorld) loseOne() {
	if s := w.linked(); s != nil {
		w.note("server %d loses touch", w.number(s))
		s.lose(w.chance(2))
	}
}

// cutOff has a server see that another one goes, and write nothing for a while.
func (w *fleetWorld) cutOff() {
	s, other := w.linked(), w.linked()
	if s == nil || s == other {
		return
	}
	w.note("%s is muted, and sees that %s goes", s, other)
	s.muted = true
	other.lose(true)
	s.link.Watch(s.link.Unseen())
	s.settle()
	w.hear()
}

// flap has a server lose touch, and clients of it ask as soon as it is in touch again.
func (w *fleetWorld) flap() {
	s := w.linked()
	if s == nil {
		return
	}
	w.note("%s flaps", s)
	s.lose(w.chance(2))
	s.link.Connect()
	s.settle()
	for _, c := range s.clients {
		if c.open && !c.fin && len(w.asked[c]) == 0 {
			w.sendTo(c, func(text *strings.Builder) { w.add(c, text) })
		}
	}
	w.hear()
}

// revoke ends a lease by hand. Nothing of it rests.
func (w *fleetWorld) revoke() {
	if s := w.linked(); s != nil {
		w.note("the lease of server %d is revoked", w.number(s))
		w.log.Revoke(s.link.Lease())
		w.forgetStalled()
		clear(w.rests)
		if w.chance(2) { // it sees that, and goes on until it has to lose touch
			s.link.Watch(s.link.Unseen())
			s.settle()
		}
	}
}

// crash kills a server, and starts another one in its place.
func (w *fleetWorld) crash() {
	s := w.server()
	w.note("server %d dies", w.number(s))
	safe := s.link.Connected() && !s.link.TimeIsUp()
	for _, c := range s.clients {
		w.leave(c)
		delete(w.asked, c)
	}
	if !safe {
		clear(w.rests)
	}
	s.start(w)
	s.link.Connect()
	w.connect(s)
	w.connect(s)
}

// reconnect has a server that is out of touch begin a session, or notice that it is.
func (w *fleetWorld) reconnect() {
	s := w.server()
	switch {
	case !s.link.Connected():
		s.link.Connect()
		w.note("server %d is in touch by lease %d", w.number(s), s.link.Lease())
	case s.mustLose():
		w.note("server %d notices that it is out of touch", w.number(s))
		s.lose(false)
	}
}

// quiet has everything come to rest: all servers are in touch, what they had before has ended, and all that they want is written
// and noticed.
func (w *fleetWorld) quiet() {
	w.note("all comes to rest")
	w.comeToRest()
	if w.delay > 0 {
		for n := 0; w.restsSomewhere(); n++ {
			if n > 60 {
				w.Fatalf("something rests for ever\n%s", w.state())
			}
			w.renewAll()
			w.pass(time.Second)
			w.comeToRest()
		}
	}
	w.quiets++
	w.checkQuiet()
}

func (w *fleetWorld) restsSomewhere() bool {
	for _, s := range w.servers {
		for _, l := range s.loops {
			if l.worker.shard.table.Resting() > 0 {
				return true
			}
		}
		if w.log.Leases() > len(w.servers) {
			return true
		}
	}
	return false
}

func (w *fleetWorld) comeToRest() {
	for _, s := range w.servers {
		s.stalled, s.muted = false, false
		if s.mustLose() {
			s.lose(true)
		}
		if !s.link.Connected() {
			s.link.Connect()
		}
		s.link.Renew(0)
		for s.link.Repeat() { // what was lost has come to its end
		}
	}
	var lives []int64
	for _, s := range w.servers {
		lives = append(lives, s.link.Lease())
	}
	if w.delay == 0 {
		w.log.RevokeAllBut(lives...)
	}
	for n, busy := 0, true; busy; n++ {
		if n > 1000 {
			w.Fatalf("there is no end\n%s", w.state())
		}
		busy = false
		for _, s := range w.servers {
			if s.mustLose() {
				s.lose(true)
				s.link.Connect()
				busy = true
			}
			for s.link.Queued() > 0 || s.link.Unseen() > 0 {
				busy = true
				s.link.Write(100, false)
				s.link.Watch(100)
			}
			s.settle()
			if s.drains {
				s.look()
			}
			w.hear() // before another server does anything
			busy = busy || s.link.Queued() > 0 || s.link.Unseen() > 0
		}
	}
}

// idle lets time pass in which nobody does anything, and checks that no place is kept that nobody needs.
func (w *fleetWorld) idle() {
	w.quiet()
	for range 30 {
		w.renewAll()
		w.pass(time.Second)
		w.comeToRest()
	}
	w.quiets++
	w.checkQuiet()
	w.checkPlaces(true)
}

// mustLose reports whether the server has to notice that it is out of touch.
func (s *fleetServer) mustLose() bool { return s.link.MustLose() || s.link.Connected() && s.isOut() }

// String names the server in messages.
func (s *fleetServer) String() string { return fmt.Sprint("server ", s.world.number(s)) }
