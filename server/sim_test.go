package server

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
	"dreadlock/server/noise"
)

// sim is a server of which everything is real but the sockets, the loops and the time: one goroutine drives its shards and
// sessions, a turn at a time, in whatever order a test likes.
type sim struct {
	server  *Server
	loops   []*simLoop
	running *simLoop // whose turn it is
	clients []*simClient
	now     time.Duration
	budget  int         // what a turn may spend
	events  []simEvent  // what clients have noticed, in this order, and the test has not taken
	err     error       // the first thing that must not happen
	ballast int64       // memory that others take, in bytes
	isTold  func() bool // reports whether anybody may be told that he holds a key; nil if always

	sameSeed bool // a successor's keys have the same hashes
}

// simEvent is a line that a client has read, or the end of its connection if it is empty.
type simEvent struct {
	client *simClient
	line   string
	late   bool // it should not be told any more
}

const (
	simTick = time.Millisecond
	simPart = 2 // units of a part of a turn
)

// newSim returns a sim whose turns are not bounded.
func newSim(loops, moveAfter int) *sim { return newSimWith(loops, moveAfter, 0, 200*loops) }

// newDelayedSim returns such a sim with a lock delay, which has just started.
func newDelayedSim(loops, moveAfter int, delay time.Duration) *sim {
	return newSimWith(loops, moveAfter, delay, 200*loops)
}

// newSimWith is newDelayedSim with a number of events.
func newSimWith(loops, moveAfter int, delay time.Duration, events int) *sim {
	return newSimOf(moveAfter, func(cfg *Config) { cfg.Loops, cfg.LockDelay, cfg.Events = loops, delay, events })
}

// newSimOf returns a sim with the given options.
func newSimOf(moveAfter int, change func(*Config)) *sim {
	cfg := newSimConfig()
	change(&cfg)
	s := &sim{budget: math.MaxInt}
	s.serve(newSimServer(cfg, moveAfter))
	return s
}

func newSimConfig() Config {
	cfg := DefaultConfig()
	cfg.Tick, cfg.MaxConnections, cfg.MaxPipeline, cfg.MaxOutput = simTick, 100, 200, 200
	return cfg
}

func newSimServer(cfg Config, moveAfter int) *Server {
	srv := &Server{
		cfg: cfg, seed: lockmgr.MakeSeed(), space: 0xabc, moveAfter: moveAfter, tally: newTally(0), warnings: noise.New(zerolog.Nop()),
		pace: defaultPace(),
	}
	srv.detector = newDetector(srv)
	srv.drain = newDrain()
	srv.history = newHistory(srv)
	srv.budget = newBudget(cfg.memoryLimit(), cfg.Loops)
	return srv
}

// serve makes a server, which has no loops yet, that of the sim.
func (s *sim) serve(srv *Server) {
	s.server, s.loops = srv, nil
	for i := range srv.cfg.Loops {
		l := &simLoop{sim: s, index: i, wheel: reactor.NewWheel(0)}
		l.worker = newWorker(srv, l)
		s.loops = append(s.loops, l)
		srv.shards = append(srv.shards, l.worker.shard)
	}
}

// key returns a key of a loop: the name with the least number after it that makes it one.
func (s *sim) key(name string, loop int) string {
	for n := 0; ; n++ {
		if key := name + strconv.Itoa(n); s.server.shardOf(s.server.seed.Hash([]byte(key))) == loop {
			return key
		}
	}
}

// fail keeps the first thing that must not happen.
func (s *sim) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// turn has a loop do something in a turn of its own.
func (l *simLoop) turn(f func()) {
	l.sim.running = l
	l.budget, l.spent = l.sim.budget, 0
	f()
	l.NextPart()
	for l.behind = l.worker.EndTurn(); len(l.ending) > 0; l.behind = l.worker.EndTurn() {
		ending := l.ending
		l.ending = nil
		for _, c := range ending {
			c.gone()
		}
	}
	if n := len(l.worker.roster.out); n > 0 {
		l.sim.fail("%d bytes of answers are left for the next client", n)
	}
	for _, p := range l.outbox {
		to := l.sim.loops[p.to]
		to.mailbox = append(to.mailbox, p.message)
	}
	l.outbox = nil
	l.sim.running = nil
}

// goOn has the loop do some of what earlier turns have left, and reports whether there was anything.
func (l *simLoop) goOn() bool {
	if !l.behind {
		return false
	}
	l.turn(l.worker.Continue)
	return true
}

// Spend takes n units of what the turn may do.
func (l *simLoop) Spend(n int) (ok bool) {
	if l.budget <= 0 {
		return false
	}
	l.budget -= n
	l.spent += n
	return true
}

// NextPart lets a turn spend a little more in any case: enough for a session and a command of it.
func (l *simLoop) NextPart() { l.budget = max(l.budget, simPart) }

// receive has the loop take the oldest message of its mailbox, and reports whether there was one.
func (l *simLoop) receive() bool {
	if len(l.mailbox) == 0 {
		return false
	}
	m := l.mailbox[0]
	l.mailbox = l.mailbox[1:]
	l.turn(func() {
		if arriving, ok := m.Body.(*simClient); ok {
			arriving.arrive(l)
		} else {
			l.worker.Receive(m)
		}
	})
	return true
}

// expire has the loop take the first timer that is due, and reports whether there was one.
func (l *simLoop) expire() bool {
	l.wheel.Advance(reactor.Tick(l.sim.now / simTick))
	t := l.wheel.Pop()
	if t == nil {
		return false
	}
	l.turn(func() { l.worker.Expire(t) })
	return true
}

// settle has all loops work until nothing is left to do at this time.
func (s *sim) settle() {
	for busy := true; busy; {
		busy = false
		for _, l := range s.loops {
			busy = l.receive() || l.expire() || l.goOn() || busy
		}
		for _, c := range s.clients {
			busy = c.readRest() || c.sip() || c.read() || c.deliverEnd() || busy
		}
	}
}

// fillMemory has others take so many percent of the memory, and tells the loops, as the keeper does.
func (s *sim) fillMemory(percent int64) {
	ballast := s.server.budget.limit / 100 * percent
	s.server.budget.reserve(ballast - s.ballast)
	s.ballast = ballast
	for _, l := range s.loops {
		l.turn(func() {})
	}
}

// settleReading is settle, until everybody has been read who has nothing else to do. Time passes if they are read in sips.
func (s *sim) settleReading() {
	s.settle()
	for sips := 0; slices.ContainsFunc(s.clients, (*simClient).waitsToBeRead); sips++ {
		if sips == 1000 {
			s.fail("somebody is not read")
			return
		}
		s.pass(sipEvery)
		s.settle()
	}
	for looks := time.Duration(0); slices.ContainsFunc(s.clients, (*simClient).unnoticed); looks++ {
		if looks > 2*simClients*(searchEvery/searchLook+searchQuiet) {
			s.fail("nobody notices that a client has ended")
			return
		}
		s.pass(searchLook)
		s.settle()
	}
}

// waitsToBeRead reports whether the client has sent what was not read, although its session has nothing else to do.
func (c *simClient) waitsToBeRead() bool {
	return c.open && !c.half && c.loop != nil && !c.absent && len(c.inbox) > 0 && c.session.isIdle()
}

// unnoticed reports whether the client has ended its side, and nothing keeps the server from noticing.
func (c *simClient) unnoticed() bool {
	return c.open && c.fin && !c.half && c.loop != nil && !c.absent && len(c.unsent) == 0
}

// pass lets time pass, and nothing happen in it.
func (s *sim) pass(d time.Duration) { s.now += d }

// check returns what is wrong: something that must not happen, or fields that contradict each other.
func (s *sim) check() error {
	held := 0
	for _, c := range s.clients {
		if !c.open {
			continue
		}
		held += int(c.session.keys)
		if c.session.outstanding > 2 {
			return fmt.Errorf("%s has %d messages outstanding", c.name, c.session.outstanding)
		}
	}
	if s.err != nil {
		return s.err
	}
	return s.checkBuffers()
}

// checkBuffers checks that each loop counts just what the buffers of its sessions take, and nothing of those that are gone or on
// their way.
func (s *sim) checkBuffers() error {
	buffered, readOn := make([]int64, len(s.loops)), make([]int64, len(s.loops))
	for _, c := range s.clients {
		n := 0
		if c.open && c.loop != nil {
			n = c.session.bufferSize()
			buffered[c.loop.index] += int64(n)
			readOn[c.loop.index] += int64(c.session.pending.ahead)
		}
		if int(c.session.counted) != n {
			return fmt.Errorf("the buffers of %s take %d bytes, and %d are counted", c.name, n, c.session.counted)
		}
	}
	for i, l := range s.loops {
		if n := l.worker.roster.buffered; n != buffered[i] {
			return fmt.Errorf("the buffers of the sessions of loop %d take %d bytes, and it counts %d", i, buffered[i], n)
		}
		if n := l.worker.roster.search.readOn; n != readOn[i] || n > buffered[i] {
			return fmt.Errorf("%d bytes of the sessions of loop %d are read on, of %d, and it counts %d", readOn[i], i, buffered[i], n)
		}
	}
	return nil
}

// checkQuiet is check for when nothing is under way: what sessions and tables say of each other is the same.
func (s *sim) checkQuiet() error {
	if err := s.check(); err != nil {
		return err
	}
	held, waiting, sessions := 0, 0, 0
	keyBytes := int64(0)
	for _, c := range s.clients {
		if c.open {
			sessions++
			held += int(c.session.keys)
			keyBytes += int64(c.session.keyBytes)
			if c.session.outstanding > 0 {
				waiting++
			} else if c.session.pending.len() > 0 {
				return fmt.Errorf("%s has %d bytes that nobody executes", c.name, c.session.pending.len())
			}
		}
	}
	keys, waiters, timers, served, suspects := 0, 0, 0, 0, 0
	for _, l := range s.loops {
		keys += l.worker.shard.table.Keys()
		waiters += l.worker.shard.table.Waiters()
		timers += l.wheel.Len()
		own := []*reactor.Timer{&l.worker.throttle.timer, &l.worker.roster.search.timer}
		if ls := l.worker.shard.lines; ls != nil {
			own = append(own, &ls.sweeper)
		}
		for _, timer := range own {
			if timer.Running() {
				timers--
			}
		}
		keyBytes -= l.worker.shard.table.Size()
		l.worker.shard.table.Walk(0, math.MaxInt, func(h lockmgr.Holding) {
			if h.Closed || isPlace(h) { // it rests, or is another daemon's, and no session has it
				keyBytes += int64(lockmgr.KeySize(len(h.Key)))
			}
		})
		served += l.worker.roster.sessions.len()
		suspects += l.worker.shard.suspects.len()
		sh := l.worker.shard
		if sh.rest.Running() {
			timers--
		}
		if !l.worker.roster.turns.empty() || sh.releasesMore() || !sh.grants.Empty() {
			return fmt.Errorf("loop %d has work left", l.index)
		}
		if sh.rest.Running() != (len(sh.releasing) > 0) || sh.table.Resting() > 0 && len(sh.releasing) == 0 {
			return fmt.Errorf("loop %d has %d keys that rest, of %d owners: its timer runs: %t",
				l.index, sh.table.Resting(), len(sh.releasing), sh.rest.Running())
		}
		if n := l.worker.roster.population.Load(); int(n) != l.worker.roster.sessions.len() {
			return fmt.Errorf("loop %d has %d sessions and says %d", l.index, l.worker.roster.sessions.len(), n)
		}
	}
	if keyBytes != 0 {
		return fmt.Errorf("sessions count %d bytes of keys more than the loops", keyBytes)
	}
	if held != keys || waiting != waiters || timers != waiters || suspects > waiters || sessions != served {
		return fmt.Errorf("sessions: %d hold %d keys, %d wait; loops: %d with %d keys, %d waiters, %d timers, %d suspects",
			sessions, held, waiting, served, keys, waiters, timers, suspects)
	}
	return nil
}

// simLoop is a loop without sockets and without time.
type simLoop struct {
	sim     *sim
	index   int
	worker  *worker
	wheel   *reactor.Wheel
	mailbox []*reactor.Message
	outbox  []simPost
	ending  []*simClient
	budget  int  // left of the turn
	spent   int  // in the latest turn
	behind  bool // there is work left for another turn
}

type simPost struct {
	to      int
	message *reactor.Message
}

func (l *simLoop) Index() int                      { return l.index }
func (l *simLoop) Memory() int64                   { return 0 }
func (l *simLoop) Now() time.Duration              { return l.sim.now }
func (l *simLoop) Time(d time.Duration) time.Time  { return time.Unix(0, 0).Add(d) }
func (l *simLoop) Traffic() reactor.Traffic        { return reactor.Traffic{} }
func (l *simLoop) Send(m *reactor.Message)         { l.mailbox = append(l.mailbox, m) }
func (l *simLoop) StopTimer(t *reactor.Timer) bool { return l.wheel.Stop(t) }

func (l *simLoop) Post(to int, m *reactor.Message) {
	for _, other := range l.sim.loops {
		if slices.Contains(other.mailbox, m) || slices.ContainsFunc(other.outbox, func(p simPost) bool { return p.message == m }) {
			l.sim.fail("a message is posted that is on its way: %T", m.Body)
		}
	}
	l.outbox = append(l.outbox, simPost{to, m})
}

func (l *simLoop) StartTimer(t *reactor.Timer, d time.Duration) {
	now := reactor.Tick(l.sim.now / simTick)
	if l.wheel.Len() == 0 {
		l.wheel.Advance(now)
	}
	l.wheel.Start(t, now+reactor.Tick((d+simTick-1)/simTick))
}

func (l *simLoop) AssertOn(what string) {
	if l.sim.running != l {
		l.sim.fail("%s of loop %d is touched by another", what, l.index)
	}
}

// simClient is a client with its session: the connection between the two is memory.
type simClient struct {
	name    string
	sim     *sim
	loop    *simLoop // nil while it moves
	session *session

	open      bool // the server's side
	fin       bool // the client has ended its side
	half      bool // and the server could see that
	deaf      bool // the client reads nothing
	paused    bool
	wasHeld   bool
	wantRest  bool
	wantSip   bool
	last      bool // closes after the output
	inbox     []byte
	unsent    []byte
	moving    reactor.Message // Body: the client
	end       error           // what Closed is told
	closing   bool
	encrypted bool // it cannot be taken over
	absent    bool // it was not taken over, and its session has not ended yet
	ended     bool // the client knows that the connection is gone, or does not care any more
}

// GoString is how a failed run names the client.
func (c *simClient) GoString() string { return c.name }

// All clients come from one address.
var simAddress = netip.MustParseAddrPort("127.0.0.1:1")

// connect makes a client of the loop, nil if the server refuses it.
func (s *sim) connect(name string, loop int) *simClient {
	c := &simClient{name: name, sim: s, loop: s.loops[loop]}
	c.moving.Body = c
	c.loop.turn(func() {
		a := &arrival{identity: identity{address: address{AddrPort: simAddress, entrance: &entrance{way: &way{}, server: s.server}}}}
		if err := a.enter(); err != nil {
			s.fail("%s: %v", name, err)
		}
		accepted, ok := c.loop.worker.Accept(a).(*session)
		if !ok {
			a.leave()
			c = nil
			return
		}
		c.session, c.open = accepted, true
		accepted.conn = c
		accepted.Opened()
	})
	if c != nil {
		s.clients = append(s.clients, c)
	}
	return c
}

// send has the client send text; the loop reads what it is willing to read.
func (c *simClient) send(text string) {
	if !c.fin {
		c.inbox = append(c.inbox, text...)
		c.read()
	}
}

// read has the loop read what has come, as it would if epoll said so, and reports whether there was anything.
func (c *simClient) read() bool {
	if !c.open || c.half || c.loop == nil || c.absent || c.paused || len(c.unsent) > 0 || len(c.inbox) == 0 {
		return false
	}
	p := c.inbox
	c.inbox = nil
	c.loop.turn(func() { c.session.Data(p) })
	return true
}

// closeWrite has the client end its side.
func (c *simClient) closeWrite() {
	c.fin = true
	c.read()
	c.deliverEnd()
}

// simWindow is the number of bytes that fit into a socket. What is more stays with the client's host.
const simWindow = 40

// deliverEnd has the end of the client's side arrive, if that can be, and reports whether the server notices. That sees it only if it
// reads, or waits for just that.
func (c *simClient) deliverEnd() bool {
	if !c.fin || !c.open || c.half || c.loop == nil || c.absent || len(c.unsent) > 0 || len(c.inbox) > 0 && !c.paused || len(c.inbox) > simWindow {
		return false
	}
	c.half = true
	c.loop.turn(func() {
		if c.session.Lingers(c.wasHeld) {
			c.session.HalfClosed()
		} else {
			c.finish(io.EOF)
		}
	})
	return true
}

// reset has the client break the connection.
func (c *simClient) reset() {
	if c.open && c.loop != nil && !c.absent {
		c.loop.turn(func() { c.finish(unix.ECONNRESET) })
	}
	c.ended = true
}

// kick has an operator kick the client.
func (c *simClient) kick() {
	c.loop.turn(func() { c.session.kick(c.sim.server.newKick("a test")) })
}

// hear has the client read what it left unread, which lets the server send more.
func (c *simClient) hear() {
	c.deaf = false
	if c.open && len(c.unsent) > 0 && c.loop != nil && !c.absent {
		c.loop.turn(func() {
			out := c.unsent
			c.unsent = nil
			c.take(out)
			c.session.Drained()
			if c.last && len(c.unsent) == 0 {
				c.finish(nil)
			}
		})
		c.read()
	}
}

// take gives output to the client.
func (c *simClient) take(out []byte) {
	if c.ended {
		return
	}
	text := string(out)
	if !strings.HasSuffix(text, "\r\n") {
		c.sim.fail("%s is sent half a line: %q", c.name, text)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		c.sim.events = append(c.sim.events, simEvent{c, line, c.sim.isTold != nil && !c.sim.isTold()})
	}
}

func (c *simClient) readRest() bool {
	if !c.wantRest || !c.open || c.absent {
		return false
	}
	c.wantRest = false
	p := c.inbox
	c.inbox = nil
	if len(p) == 0 {
		c.wasHeld = false
	}
	c.loop.turn(func() { c.session.Data(p) })
	return true
}

// simSip is the number of bytes of a sip.
const simSip = 16

// sip has the loop read a little of what has come, if the server has asked for that.
func (c *simClient) sip() bool {
	if !c.wantSip || !c.open || c.absent || !c.paused || len(c.inbox) == 0 {
		return false
	}
	c.wantSip = false
	p := c.inbox[:min(len(c.inbox), simSip)]
	c.inbox = c.inbox[len(p):]
	c.loop.turn(func() { c.session.Data(p) })
	return true
}

// arrive makes the client one of the loop that it has moved to.
func (c *simClient) arrive(l *simLoop) {
	c.loop = l
	c.session.Moved(l.index)
}

// finish ends the server's side at the end of the turn.
func (c *simClient) finish(err error) {
	if c.open && !c.closing {
		c.closing, c.end = true, err
		c.loop.ending = append(c.loop.ending, c)
	}
}

func (c *simClient) gone() {
	c.open, c.ended = false, true
	c.sim.events = append(c.sim.events, simEvent{client: c})
	c.session.Closed(c.end)
}

// What follows is the connection, as the session sees it.

func (c *simClient) IsOpen() bool  { return c.open && !c.closing }
func (c *simClient) Unsent() int   { return len(c.unsent) }
func (c *simClient) CanHold() bool { return true }
func (c *simClient) Paused() bool  { return c.paused }
func (c *simClient) Unread() int   { return len(c.inbox) }
func (c *simClient) Pause()        { c.paused, c.wasHeld = true, true }
func (c *simClient) Close()        { c.finish(nil) }

func (c *simClient) Write(p []byte) {
	switch {
	case !c.IsOpen():
	case c.deaf || len(c.unsent) > 0:
		c.unsent = append(c.unsent, p...)
	default:
		c.take(p)
	}
}

func (c *simClient) Encrypted() bool { return c.encrypted }

func (c *simClient) Export() (int, reactor.ConnState) {
	return 0, reactor.ConnState{TCP: true, HalfClosed: c.half, Paused: c.paused, WasPaused: c.wasHeld, Last: c.last, Unsent: c.unsent}
}

func (c *simClient) Resume() { c.paused = false }
func (c *simClient) Sip()    { c.wantSip = c.paused }

func (c *simClient) ReadRest() bool {
	c.wantRest = c.half && c.wasHeld
	return c.wantRest
}

func (c *simClient) CloseAfterOutput() {
	if len(c.unsent) == 0 {
		c.finish(nil)
	}
	c.last = true
}

func (c *simClient) TryMove(loop int) bool {
	if !c.IsOpen() || c.half || c.paused || len(c.unsent) > 0 {
		return false
	}
	c.loop.outbox = append(c.loop.outbox, simPost{loop, &c.moving})
	c.loop = nil
	return true
}
