package server

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/fleet"
	"dreadlock/server/fleet/fleettest"
)

// Several servers share a store. Everything is real but sockets, loops, time, and the store, of which a run draws when it writes,
// when the servers notice, which answers are lost, and when leases end. What clients may conclude is checked after every step:
//
//   - A client that was told that it holds a key, and has neither given it up nor lost its connection, is the only one of all
//     servers.
//   - Of two clients of which the second has asked when the first stood in line already, the first is granted the key first,
//     whatever their servers are.
//   - A later grant of a key has a greater token.
//   - A key that was free all the time is found free.
//   - Nobody is told that he holds a key when the time of the session is up.
//
// And when nothing is under way, a key that somebody waits for is held by somebody.

const (
	fleetTTL    = 10 * time.Second
	fleetMargin = 2 * time.Second
)

// fleetWorld is the clients' view of a fleet.
type fleetWorld struct {
	now     time.Duration
	log     *fleettest.Log
	servers []*fleetServer
	keys    []string
	told    map[string]*simClient
	tokens  map[string]uint64
	asked   map[*simClient][]fleetCommand
	leaves  map[*simClient]bool
	free    map[string]bool // nobody has used the key since it was known that it is free
	quiets  int
	names   int
	locked  int // times that a client was told so
}

type fleetCommand struct {
	simCommand
	quiets int  // how many times everything was quiet before it was sent
	stands int  // how many times, with the one at which it was first seen to wait; 0 if it was not
	free   bool // the key was free, and nobody else has asked since
}

// fleetServer is one of the servers, and the member of the fleet.
type fleetServer struct {
	*sim
	world   *fleetWorld
	link    *fleettest.Link
	stalled bool // it does not notice that its time is up
}

func newFleetWorld(servers, loops, keys int) *fleetWorld {
	w := &fleetWorld{
		told: map[string]*simClient{}, tokens: map[string]uint64{}, asked: map[*simClient][]fleetCommand{},
		leaves: map[*simClient]bool{}, free: map[string]bool{},
	}
	w.log = fleettest.NewLog(fleetTTL, fleetMargin, func() time.Duration { return w.now })
	for range servers {
		s := &fleetServer{sim: newSim(loops, 2), world: w}
		s.server.service = &service{stopped: make(chan struct{})}
		s.link = &fleettest.Link{Log: w.log, Member: s}
		for _, l := range s.loops {
			l.worker.shard.lines = newLines(l.worker.shard, w.log.Now)
		}
		w.servers = append(w.servers, s)
		s.server.seed = w.servers[0].server.seed // so that a key is on the same loop of each, in every run
	}
	for i := range keys {
		key := w.servers[0].key("k"+strconv.Itoa(i)+"x", i%loops)
		w.keys = append(w.keys, key)
		w.free[key] = true
	}
	return w
}

func (s *fleetServer) Found(session fleet.Session) { fleetMember{s.server}.Found(session) }
func (s *fleetServer) Changed(session fleet.Session, all []fleet.Change) {
	fleetMember{s.server}.Changed(session, all)
}

func (s *fleetServer) Rest() time.Duration { return s.server.cfg.LockDelay }

// Lost has every loop forget what it holds, after all that it has been sent before.
func (s *fleetServer) Lost(fleet.Session, error) (rests bool) {
	left := len(s.loops)
	for _, l := range s.loops {
		lost := &loss{}
		task := &loopTask{step: func() bool { return l.worker.shard.lose(lost) }, done: func() { left-- }}
		task.message.Body = task
		l.Send(&task.message)
	}
	for _, l := range s.loops {
		for before := left; left == before; {
			l.receive()
		}
	}
	return false
}

func (w *fleetWorld) pass(d time.Duration) {
	for d > 0 {
		step := min(d, time.Second) // a server learns in time that its own is up
		d -= step
		w.now += step
		for _, s := range w.servers {
			s.now = w.now
			if s.link.MustLose() && !s.stalled {
				s.link.Lose(false)
			}
		}
		w.log.Expire()
		w.forgetStalled()
	}
}

// forgetStalled takes note that clients hold nothing any more whose server has not noticed that its lease has ended. They cannot
// know: only their tokens keep them from what the next holders do.
func (w *fleetWorld) forgetStalled() {
	for _, s := range w.servers {
		if s.link.Connected() && !w.log.Lives(s.link.Lease()) {
			for key, holder := range w.told {
				if holder.sim == s.sim {
					delete(w.told, key)
				}
			}
		}
	}
}

// isUp reports whether the time of a client's server is up: nothing may be granted any more.
func (w *fleetWorld) isUp(c *simClient) bool {
	for _, s := range w.servers {
		if s.sim == c.sim {
			return !s.link.Connected() || s.link.TimeIsUp()
		}
	}
	return false
}

func (w *fleetWorld) connect(s *fleetServer, loop int) {
	w.names++
	s.connect("c"+strconv.Itoa(w.names), loop)
}

// server draws one.
func (w *fleetWorld) server(t *rapid.T) *fleetServer {
	return w.servers[rapid.IntRange(0, len(w.servers)-1).Draw(t, "server")]
}

// connectedServer draws one that is in touch with the store.
func (w *fleetWorld) connectedServer(t *rapid.T) *fleetServer {
	s := w.server(t)
	if !s.link.Connected() {
		t.Skip("it has lost touch")
	}
	return s
}

func (w *fleetWorld) client(t *rapid.T) *simClient {
	var open []*simClient
	for _, s := range w.servers {
		for _, c := range s.clients {
			if c.open && !c.ended {
				open = append(open, c)
			}
		}
	}
	if len(open) == 0 {
		t.Skip("nobody is connected")
	}
	return rapid.SampledFrom(open).Draw(t, "client")
}

func (w *fleetWorld) ask(t *rapid.T) {
	c := w.client(t)
	if c.half {
		t.Skip("it has ended its side")
	}
	var text strings.Builder
	for range rapid.IntRange(1, 3).Draw(t, "commands") {
		key := rapid.SampledFrom(w.keys).Draw(t, "key")
		cmd := fleetCommand{simCommand: simCommand{key: key, sentAt: w.now}, quiets: w.quiets, free: w.free[key]}
		switch cmd.kind = rapid.SampledFrom([]proto.Kind{
			proto.Lock, proto.Lock, proto.Lock, proto.Unlock, proto.Unlock, proto.Fence,
		}).Draw(t, "kind"); cmd.kind {
		case proto.Lock:
			ms := rapid.SampledFrom([]int{0, 0, 5, 50, 100_000_000, 100_000_000}).Draw(t, "timeout")
			cmd.timeout = time.Duration(ms) * time.Millisecond
			fmt.Fprintf(&text, "lock %s %d\r\n", key, ms)
		case proto.Unlock:
			if w.told[key] == c {
				delete(w.told, key)
			}
			fmt.Fprintf(&text, "unlock %s\r\n", key)
		default:
			fmt.Fprintf(&text, "fence %s\r\n", key)
		}
		w.touch(key)
		w.asked[c] = append(w.asked[c], cmd)
	}
	c.send(text.String())
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

func (w *fleetWorld) hear(t *rapid.T) {
	for _, s := range w.servers {
		if s.err != nil {
			t.Fatal(s.err)
		}
		for _, e := range s.events {
			c := e.client
			switch {
			case e.line == "":
				w.leave(c)
				delete(w.asked, c)
			case len(w.asked[c]) == 0:
				t.Fatalf("%s is told %q and has asked nothing", c.name, e.line)
			default:
				cmd := w.asked[c][0]
				w.asked[c] = w.asked[c][1:]
				w.answered(t, c, cmd, e.line)
			}
		}
		s.events = nil
	}
}

func (w *fleetWorld) answered(t *rapid.T, c *simClient, cmd fleetCommand, line string) {
	answer, err := proto.ParseReply([]byte(line + "\r\n"))
	if err != nil || !slices.Contains(cmd.kind.Replies(), answer.Reply) {
		t.Fatalf("%s is told %q after %s %s", c.name, line, cmd.kind, cmd.key)
	}
	if cmd.free && (answer.Reply == proto.TimedOut && cmd.timeout == 0 || answer.Reply == proto.NotOwner) {
		t.Fatalf("%s is told %q after %s %s, which was free all the time", c.name, line, cmd.kind, cmd.key)
	}
	switch answer.Reply {
	case proto.Locked:
		w.locked++
		if w.isUp(c) {
			t.Fatalf("%s is told that it holds %s, when the time of its server is up", c.name, cmd.key)
		}
		w.checkOrder(t, c, cmd)
		if w.gives(c, cmd.key) {
			break
		}
		if holder := w.told[cmd.key]; holder != nil {
			t.Fatalf("%s is told that it holds %s, and so was %s\n%s", c.name, cmd.key, holder.name, w.state(cmd.key))
		}
		w.told[cmd.key] = c
	case proto.TimedOut:
		if w.now < cmd.sentAt+cmd.timeout {
			t.Fatalf("%s has waited for %s until %s, and asked at %s for %s", c.name, cmd.key, w.now, cmd.sentAt, cmd.timeout)
		}
	case proto.Token:
		if w.told[cmd.key] == c && answer.Token < w.tokens[cmd.key] {
			t.Fatalf("%s has the token %d for %s, after %d was told", c.name, answer.Token, cmd.key, w.tokens[cmd.key])
		}
		w.tokens[cmd.key] = max(w.tokens[cmd.key], answer.Token)
	}
}

// checkOrder checks that nobody still waits for a key who stood in line for it before its new holder has asked.
func (w *fleetWorld) checkOrder(t *rapid.T, c *simClient, cmd fleetCommand) {
	for other, all := range w.asked {
		if other == c || w.leaves[other] || len(all) == 0 || w.now >= all[0].sentAt+all[0].timeout {
			continue // it does not wait any more
		}
		if first := all[0]; first.stands > 0 && first.key == cmd.key && first.stands <= cmd.quiets {
			t.Fatalf("%s is granted %s before %s, who has waited for longer\n%s", c.name, cmd.key, other.name, w.state(cmd.key))
		}
	}
}

func (w *fleetWorld) gives(c *simClient, key string) bool {
	return w.leaves[c] ||
		slices.ContainsFunc(w.asked[c], func(cmd fleetCommand) bool { return cmd.kind == proto.Unlock && cmd.key == key })
}

func (w *fleetWorld) leave(c *simClient) {
	w.leaves[c] = true
	for key, holder := range w.told {
		if holder == c {
			delete(w.told, key)
			w.touch(key)
		}
	}
	for _, cmd := range w.asked[c] {
		w.touch(cmd.key)
	}
}

func (w *fleetWorld) end(t *rapid.T) {
	c := w.client(t)
	if c.loop == nil {
		t.Skip("it moves")
	}
	w.leave(c)
	if rapid.Bool().Draw(t, "half-close") {
		c.closeWrite()
		return
	}
	delete(w.asked, c)
	c.reset()
}

// work has a server write and notice some things, and deal with them.
func (w *fleetWorld) work(t *rapid.T) {
	s := w.connectedServer(t)
	s.link.Write(rapid.IntRange(0, 3).Draw(t, "operations"), false)
	s.link.Watch(rapid.IntRange(0, 5).Draw(t, "changes"))
	s.settle()
}

// quiet has everything come to rest: all servers are in touch, what they had before has ended, and all that they want is written
// and noticed.
func (w *fleetWorld) quiet(t *rapid.T) {
	var lives []int64
	for _, s := range w.servers {
		if !s.link.Connected() {
			s.link.Connect()
		}
		lives = append(lives, s.link.Lease())
	}
	w.log.RevokeAllBut(lives...)
	for busy := true; busy; {
		busy = false
		for _, s := range w.servers {
			if s.stalled = false; s.link.MustLose() {
				s.link.Lose(true)
				s.link.Connect()
				busy = true
			}
			for s.link.Queued() > 0 || s.link.Unseen() > 0 {
				busy = true
				s.link.Write(100, false)
				s.link.Watch(100)
			}
			s.settle()
			w.hear(t) // before another server does anything
			busy = busy || s.link.Queued() > 0 || s.link.Unseen() > 0
		}
	}
	w.quiets++
	waits, wanted := map[string]bool{}, map[string]bool{}
	for c, all := range w.asked {
		for _, cmd := range all {
			wanted[cmd.key] = true
		}
		if len(all) > 0 && !w.leaves[c] {
			if all[0].stands == 0 {
				all[0].stands = w.quiets
			}
			waits[all[0].key] = true
			if all[0].kind != proto.Lock || all[0].timeout == 0 {
				t.Fatalf("%s has no answer to %s %s\n%s", c.name, all[0].kind, all[0].key, w.state(all[0].key))
			}
		}
	}
	for _, key := range w.keys {
		holders := 0
		for _, s := range w.servers {
			if h := s.find(key); h.Owner != nil && !isPlace(h) {
				holders++
			}
		}
		if holders > 1 || holders == 0 && waits[key] {
			t.Fatalf("%s is held by %d clients, and somebody waits for it: %v\n%s", key, holders, waits[key], w.state(key))
		}
		w.free[key] = holders == 0 && !wanted[key]
	}
}

// find returns what the server's table says of a key.
func (s *fleetServer) find(key string) lockmgr.Holding {
	hash := s.server.seed.Hash([]byte(key))
	return s.server.shards[s.server.shardOf(hash)].table.Find(hash, []byte(key))
}

func TestFleetSimulation(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = flag.Set(checks.Name, map[bool]string{true: "300", false: "2000"}[testing.Short()])
		defer func() { _ = flag.Set(checks.Name, checks.DefValue) }()
	}
	locked := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newFleetWorld(rapid.IntRange(1, 3).Draw(t, "servers"), rapid.IntRange(1, 2).Draw(t, "loops"), rapid.IntRange(1, 2).Draw(t, "keys"))
		faults := rapid.Bool().Draw(t, "faults")
		loop := rapid.IntRange(0, len(w.servers[0].loops)-1)
		for _, s := range w.servers {
			s.link.Connect()
			for range 2 {
				w.connect(s, loop.Draw(t, "loop"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { w.hear(t) },
			"connect": func(t *rapid.T) {
				if len(w.asked) > 9 {
					t.Skip("enough")
				}
				w.connect(w.server(t), loop.Draw(t, "loop"))
			},
			"ask":     w.ask,
			"ask too": w.ask,
			"work":    w.work,
			"work on": w.work,
			"receive": func(t *rapid.T) { w.server(t).loops[loop.Draw(t, "loop")].receive() },
			"go on":   func(t *rapid.T) { w.server(t).loops[loop.Draw(t, "loop")].goOn() },
			"expire":  func(t *rapid.T) { w.server(t).loops[loop.Draw(t, "loop")].expire() },
			"write": func(t *rapid.T) {
				lost := faults && rapid.IntRange(0, 3).Draw(t, "lost") == 0
				w.connectedServer(t).link.Write(rapid.IntRange(1, 4).Draw(t, "operations"), lost)
			},
			"watch": func(t *rapid.T) { w.connectedServer(t).link.Watch(rapid.IntRange(1, 4).Draw(t, "changes")) },
			"repeat": func(t *rapid.T) {
				if !w.connectedServer(t).link.Repeat() {
					t.Skip("nothing was lost")
				}
			},
			"renew": func(t *rapid.T) {
				w.connectedServer(t).link.Renew(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			},
			"pass": func(t *rapid.T) {
				ms := []int{1, 5, 60, 2000}
				if faults {
					ms = append(ms, 8000, 20_000)
				}
				for _, s := range w.servers {
					if !faults && s.link.Connected() {
						s.link.Renew(0)
					}
				}
				if faults {
					w.server(t).stalled = rapid.Bool().Draw(t, "stalled")
				}
				w.pass(time.Duration(rapid.SampledFrom(ms).Draw(t, "ms")) * time.Millisecond)
			},
			"notice": func(t *rapid.T) {
				s := w.connectedServer(t)
				if s.stalled = false; s.link.MustLose() {
					s.link.Lose(false)
				}
			},
			"lose": func(t *rapid.T) {
				if !faults {
					t.Skip("nothing fails in this run")
				}
				w.connectedServer(t).link.Lose(rapid.Bool().Draw(t, "revoke"))
			},
			"connect store": func(t *rapid.T) {
				if s := w.server(t); !s.link.Connected() {
					s.link.Connect()
				}
			},
			"end":   w.end,
			"quiet": w.quiet,
		})
		w.quiet(t)
		locked += w.locked
	})
	if locked == 0 {
		t.Error("nobody was granted a key")
	}
}

// state describes the lines of a key, for a run that has failed.
func (w *fleetWorld) state(key string) string {
	var text strings.Builder
	for i, s := range w.servers {
		sh := s.server.shards[s.server.shardOf(s.server.seed.Hash([]byte(key)))]
		h := s.find(key)
		fmt.Fprintf(&text, "server %d: held by ", i)
		if h.Owner != nil {
			fmt.Fprintf(&text, "%v", holderOf(h).peer())
		}
		fmt.Fprintf(&text, " with %d waiters, in touch %v", h.Waiters, sh.lines.session != nil)
		if l := sh.lines.byKey[key]; l != nil {
			fmt.Fprintf(&text, ", joining %v, asked %d, places", l.joining, len(l.asked))
			for _, p := range l.places {
				fmt.Fprintf(&text, " %s(ours %v try %v leaving %v asked %d)", p, p.ours, p.try, p.leaving, len(p.asked))
			}
		}
		text.WriteString("\n")
	}
	for _, c := range w.log.History(key) {
		fmt.Fprintf(&text, "%s gone %v try %v\n", c.Place, c.Gone, c.Try)
	}
	return text.String()
}
