package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
	"dreadlock/server/fleet"
	"dreadlock/server/fleet/fleettest"
)

const (
	fleetTTL    = 10 * time.Second
	fleetMargin = 2 * time.Second
)

// fleetWorld is a fleet, and its clients' view of it.
type fleetWorld struct {
	*rand.Rand
	now     time.Duration
	log     *fleettest.Log
	seed    lockmgr.Seed // of all servers
	servers []*fleetServer
	keys    []string
	delay   time.Duration // the lock delay
	faults  bool          // the store fails, daemons and clients die
	loops   int

	told    map[string]*simClient    // who was told that it holds a key, as long as that counts
	rests   map[string]time.Duration // until when nobody may be told so
	tokens  map[string]uint64        // the greatest that a key was granted by
	grants  map[string]int           // how often somebody was told that it holds a key
	fenced  map[string]fenced        // the greatest token that a holder was told
	retired map[*simLoop]bool        // of servers that were taken over from
	taken   map[simGrant]int         // after how many answers the client can be believed again, since an operator has taken the key
	asked   map[*simClient][]fleetCommand
	leaves  map[*simClient]bool // it has ended its connection, in some way
	hurt    map[*simClient]bool // and that was not its own will alone
	free    map[string]bool     // nobody has used the key since it was known that it is free

	quiets int // how often everything has come to rest
	orders int // of commands
	names  int
	locked int      // times that a client was told so
	trace  []string // the steps of the run
}

// fleetCommand is a command that was sent and is not answered.
type fleetCommand struct {
	simCommand
	quiets int      // how many times everything was quiet before it was sent
	stands int      // how many times, with the one at which it was first seen to wait; 0 if it was not
	free   bool     // the key was free, and nobody else has asked since
	order  int      // of the commands that were executed at once, 0 for the others
	after  int      // it was executed after those up to this one
	loop   *simLoop // whose session it was then
}

// fenced is a token that a client was told, and at which of the grants of the key.
type fenced struct {
	token uint64
	grant int
}

// fleetServer is one of the servers, and the member of the fleet.
type fleetServer struct {
	*sim
	world   *fleetWorld
	link    *fleettest.Link
	noted   notedGrants
	stalled bool // it does not notice that its time is up
	muted   bool // it writes nothing to the store
	drains  bool
	wasOut  bool // its lease had ended before it has noticed, right now
}

// simStore stands for the store in a configuration; the world is the store.
type simStore struct {
	fleet.Handover
	link *fleettest.Link
}

func (s simStore) Legacy() (*fleet.Legacy, error) { return s.link.Legacy() }

func (s simStore) Inherit(l *fleet.Legacy) (fleet.Session, error) {
	if session := s.link.Inherit(l); session != nil {
		return session, nil
	}
	return nil, nil
}

func (simStore) Run(context.Context, fleet.Member) {}
func (simStore) Status() *api.Fleet                { return nil }
func (simStore) Space() uint64                     { return 1 }
func (simStore) Address(lease int64) string        { return "daemon" + strconv.FormatInt(lease, 10) }

// newFleetWorld draws a fleet.
func newFleetWorld(seed uint64) *fleetWorld {
	w := &fleetWorld{
		Rand: rand.New(rand.NewPCG(seed, 0)),
		seed: lockmgr.MakeSeed(), told: map[string]*simClient{}, rests: map[string]time.Duration{}, tokens: map[string]uint64{}, taken: map[simGrant]int{},
		grants: map[string]int{}, retired: map[*simLoop]bool{}, fenced: map[string]fenced{},
		asked: map[*simClient][]fleetCommand{}, leaves: map[*simClient]bool{}, hurt: map[*simClient]bool{}, free: map[string]bool{},
	}
	w.faults = w.chance(2)
	w.loops = 1 + w.IntN(2)
	if w.chance(2) {
		w.delay = 3 * time.Second
	}
	w.log = fleettest.NewLog(fleetTTL, fleetMargin, func() time.Duration { return w.now })
	for range []int{1, 2, 2, 2, 3, 3}[w.IntN(6)] {
		s := &fleetServer{}
		w.servers = append(w.servers, s)
		s.start(w)
	}
	for i := range 1 + w.IntN(2) {
		key := w.spreadKey("k"+strconv.Itoa(i)+"x", i)
		w.keys = append(w.keys, key)
		w.free[key] = true
	}
	for _, s := range w.servers {
		s.link.Connect()
		for range 2 {
			w.connect(s)
		}
	}
	return w
}

// mostLoops is the greatest number of loops of a server.
const mostLoops = 3

// spreadKey returns a key that is on a loop which depends on nothing but i, however many loops there are.
func (w *fleetWorld) spreadKey(name string, i int) string {
	for n := 0; ; n++ {
		key, spread := name+strconv.Itoa(n), true
		for loops := uint64(1); loops <= mostLoops; loops++ {
			spread = spread && w.seed.Hash([]byte(key))>>32*loops>>32 == uint64(i)%loops
		}
		if spread {
			return key
		}
	}
}

// chance is true once in n times.
func (w *fleetWorld) chance(n int) bool { return w.IntN(n) == 0 }

// start starts the server, which has not run or has died.
func (s *fleetServer) start(w *fleetWorld) {
	link := &fleettest.Link{Log: w.log}
	simulated := newSimOf(2, func(cfg *Config) {
		cfg.Loops, cfg.LockDelay, cfg.Events, cfg.Fleet = w.loops, w.delay, 400*mostLoops, simStore{link: link}
	})
	*s = fleetServer{sim: simulated, world: w, noted: notedGrants{open: map[string]api.Event{}}}
	s.noted.heed = s.heed
	s.isTold = func() bool { return s.link.Connected() && !s.link.TimeIsUp() && s.link.Until() > 0 }
	s.now, s.sameSeed = w.now, true
	s.budget = []int{2, 4, 1000, 1000}[w.IntN(4)]
	s.link = link
	s.begin()
}

// begin prepares the server of the sim, which is new.
func (s *fleetServer) begin() {
	w := s.world
	s.server.service = &service{stopped: make(chan struct{})}
	s.server.seed = w.seed // so that a key is on the same loop of each, in every run
	s.link.Member = s
	for _, l := range s.loops {
		ls := l.worker.shard.lines
		ls.clock = w.log.Now
		if w.chance(3) {
			ls.maxKept = 1
		}
		if w.chance(3) {
			ls.perPlace = 2
		}
	}
}

func (s *fleetServer) Found(session fleet.Session) { fleetMember{s.server}.Found(session) }
func (s *fleetServer) Changed(session fleet.Session, all []fleet.Change) {
	fleetMember{s.server}.Changed(session, all)
}
func (s *fleetServer) Rest() time.Duration { return fleetMember{s.server}.Rest() }

// Lost has every loop forget what it holds, after all that it has been sent before.
func (s *fleetServer) Lost(fleet.Session, error) (rests bool) {
	left := len(s.loops)
	for _, l := range s.loops {
		lost := &loss{}
		task := &loopTask{
			step: func() bool { return l.worker.shard.lose(lost) },
			done: func() {
				left--
				rests = rests || lost.keys > 0
			},
		}
		task.message.Body = task
		l.Send(&task.message)
	}
	for left > 0 {
		s.loops[s.world.IntN(len(s.loops))].receive()
	}
	return rests && s.world.delay > 0
}

// lose ends the session of a server.
func (s *fleetServer) lose(revoke bool) {
	w := s.world
	late := w.now > s.link.Until()+fleetMargin
	for _, c := range s.clients {
		w.hurt[c] = true
	}
	s.stalled, s.wasOut = false, s.isOut()
	s.link.Lose(revoke)
	before := map[string]time.Duration{}
	for key, until := range w.rests {
		before[key] = until
	}
	w.hear()
	s.wasOut = false
	if late {
		w.rests = before // its lease may be over
	}
}

// pass lets time pass. A server learns in time that its own is up, unless it is stalled.
func (w *fleetWorld) pass(d time.Duration) {
	for d > 0 {
		step := min(d, time.Second)
		d -= step
		w.now += step
		for _, s := range w.servers {
			s.now = w.now
			if s.link.MustLose() && !s.stalled {
				s.lose(false)
			}
		}
		w.log.Expire()
		w.forgetStalled()
	}
}

// renewAll keeps all leases.
func (w *fleetWorld) renewAll() {
	for _, s := range w.servers {
		if s.link.Connected() {
			s.link.Renew(0)
		}
	}
}

// forgetStalled takes note that clients hold nothing any more whose server has not noticed that its lease has ended. They cannot
// know: only their tokens keep them from what the next holders do.
func (w *fleetWorld) forgetStalled() {
	for _, s := range w.servers {
		if s.isOut() {
			for key, holder := range w.told {
				if holder.sim == s.sim {
					delete(w.told, key)
				}
			}
		}
	}
}

// isOut reports whether the lease of a server has ended, and it has not noticed.
func (s *fleetServer) isOut() bool { return s.link.Connected() && !s.world.log.Lives(s.link.Lease()) }

// of returns the server of a client.
func (w *fleetWorld) of(c *simClient) *fleetServer { return w.ofSim(c.sim) }

func (w *fleetWorld) ofSim(of *sim) *fleetServer {
	return w.servers[slices.IndexFunc(w.servers, func(s *fleetServer) bool { return s.sim == of })]
}

func (w *fleetWorld) server() *fleetServer { return w.servers[w.IntN(len(w.servers))] }

// linked draws a server that is in touch with the store, nil if there is none.
func (w *fleetWorld) linked() *fleetServer { return w.some(func(*fleetServer) bool { return true }) }

// connect makes a client of a server.
func (w *fleetWorld) connect(s *fleetServer) {
	w.names++
	s.connect("c"+strconv.Itoa(w.names), w.IntN(len(s.loops)))
}

// open returns the clients that are connected.
func (w *fleetWorld) open() (open []*simClient) {
	for _, s := range w.servers {
		s.clients = slices.DeleteFunc(s.clients, func(c *simClient) bool { return !c.open && len(w.asked[c]) == 0 })
		for _, c := range s.clients {
			if c.open && !c.ended {
				open = append(open, c)
			}
		}
	}
	return open
}

// client draws one, nil if there is none.
func (w *fleetWorld) client() *simClient {
	open := w.open()
	if len(open) == 0 {
		return nil
	}
	return open[w.IntN(len(open))]
}

// note keeps a step of the run for the message of a failure.
func (w *fleetWorld) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// Fatalf ends the run.
func (w *fleetWorld) Fatalf(format string, args ...any) {
	panic(fleetFailure{fmt.Sprintf(format, args...)})
}

type fleetFailure struct{ text string }

// ask has a client send some commands.
func (w *fleetWorld) ask() {
	c := w.client()
	if idle := slices.DeleteFunc(w.open(), func(c *simClient) bool { return len(w.asked[c]) > 0 }); len(idle) > 0 && !w.chance(5) {
		c = idle[w.IntN(len(idle))]
	}
	if c == nil || c.fin || len(w.asked[c]) > 3 {
		return
	}
	w.sendTo(c, func(text *strings.Builder) {
		if w.chance(6) {
			key := w.keys[w.IntN(len(w.keys))]
			for _, kind := range []proto.Kind{proto.Lock, proto.Unlock, proto.Lock} {
				w.command(c, kind, key, text)
			}
			return
		}
		for range []int{1, 1, 1, 2, 3}[w.IntN(5)] {
			w.add(c, text)
		}
	})
}

// sendTo has a client send what add adds.
func (w *fleetWorld) sendTo(c *simClient, add func(*strings.Builder)) {
	var text strings.Builder
	add(&text)
	w.note("%s of %s sends %q", c.name, w.of(c), text.String())
	c.send(text.String())
}

// unlock has a holder unlock its key, and perhaps ask for it again.
func (w *fleetWorld) unlock() {
	key := w.keys[w.IntN(len(w.keys))]
	c := w.told[key]
	if c == nil || c.fin || len(w.asked[c]) > 3 {
		return
	}
	w.sendTo(c, func(text *strings.Builder) {
		w.command(c, proto.Unlock, key, text)
		if w.chance(2) {
			w.add(c, text)
		}
	})
}

// add adds a command to what a client sends.
func (w *fleetWorld) add(c *simClient, text *strings.Builder) {
	key := w.keys[w.IntN(len(w.keys))]
	switch draw := w.IntN(12); {
	case w.told[key] == c && draw < 6 || draw < 1:
		w.command(c, proto.Unlock, key, text)
	case draw == 11:
		w.command(c, proto.Fence, key, text)
	default:
		w.command(c, proto.Lock, key, text)
	}
}

// command adds a command of that kind.
func (w *fleetWorld) command(c *simClient, kind proto.Kind, key string, text *strings.Builder) {
	cmd := fleetCommand{simCommand: simCommand{kind: kind, key: key, sentAt: w.now}, quiets: w.quiets, free: w.free[key]}
	switch kind {
	case proto.Unlock:
		if w.told[key] == c {
			delete(w.told, key)
		}
		fmt.Fprintf(text, "unlock %s\r\n", key)
	case proto.Fence:
		fmt.Fprintf(text, "fence %s\r\n", key)
	default:
		ms := []int{0, 0, 0, 5, 3000, 100_000_000, 100_000_000, 100_000_000, 100_000_000, 100_000_000}[w.IntN(10)]
		cmd.timeout = time.Duration(ms) * time.Millisecond
		fmt.Fprintf(text, "lock %s %d\r\n", key, ms)
	}
	if len(w.asked[c]) == 0 && c.loop != nil && c.session.phase == serving && c.sim.budget > 4 {
		w.orders++
		cmd.order, cmd.after, cmd.loop = w.orders, w.orders-1, c.loop
	}
	w.touch(key)
	w.asked[c] = append(w.asked[c], cmd)
}

// touch takes note that a key is used: of commands that are under way nobody can say any more that it is free.
func (w *fleetWorld) touch(key string) {
	if w.free[key] {
		w.free[key] = false
		return // the first may count on it
	}
	for _, all := range w.asked {
		for i := range all {
			if all[i].key == key {
				all[i].free = false
			}
		}
	}
}

// leave takes note that a client gives up what it holds, because of how it ends its connection. Answers may still come.
func (w *fleetWorld) leave(c *simClient) {
	w.leaves[c] = true
	for key, holder := range w.told {
		if holder == c {
			delete(w.told, key)
			w.rests[key] = w.now + w.delay
			w.touch(key)
		}
	}
	for _, cmd := range w.asked[c] {
		w.touch(cmd.key)
	}
}
