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

	"dreadlock/proto"
	"dreadlock/server/api"
)

// Shards and sessions in virtual time, in any order of turns, messages and ends that a run draws. What clients may conclude
// from what they read is checked after every step:
//
//   - A client that was told that it holds a key, and has neither given it up nor lost its connection, is the only one, unless an
//     operator has taken the key from it.
//   - The answers of a connection are those of its commands, in their order, one each, of the kinds that they can have.
//   - No wait ends with a timeout before its time.
//   - A later grant of a key has a greater token.
//   - With a lock delay, a client is told that it holds a key only when the delay has passed since the one who was told so before
//     has lost its connection, unless that one had asked to unlock it, and since the start.
//   - On a loop that drains, nobody is served who holds nothing and waits for nothing.
//   - However little memory there is, whoever has nothing under way is read.
//   - All that holds across takeovers, by servers with other options, and across those that fail.
//   - The events have each grant once, and its end once.
//
// And whenever nothing is under way, what sessions, tables, wheels and counters say of each other must be the same.

const (
	simClients = 5
	simKeys    = 4
)

// simWorld is the clients' view of a sim.
type simWorld struct {
	*sim
	keys   []string
	told   map[string]*simClient    // who was told that it holds a key, as long as that counts
	rests  map[string]time.Duration // until when nobody may be told so
	left   map[string]*simClient    // who was told so before
	tokens map[string]uint64        // the greatest that was told
	taken  map[simGrant]int         // after how many answers the client can be believed again, since an operator has taken the key
	names  int
	sent   [proto.NumKinds]uint64 // commands that were answered, by kind
	asked  map[*simClient][]simCommand
	leaves map[*simClient]bool // it has ended its connection, in some way
	drains bool                // the server may drain in this run
	held   bool                // its sessions are
	delay  time.Duration       // the longest lock delay of all servers
	noted  notedGrants
}

// simGrant is what a client is told when it is granted a key.
type simGrant struct {
	client *simClient
	key    string
}

// simCommand is a command that was sent and is not answered.
type simCommand struct {
	kind    proto.Kind
	key     string
	sentAt  time.Duration
	timeout time.Duration
}

func newSimWorld(loops int, delay time.Duration) *simWorld {
	w := &simWorld{
		sim:    newDelayedSim(loops, 2, delay),
		told:   map[string]*simClient{},
		rests:  map[string]time.Duration{},
		left:   map[string]*simClient{},
		tokens: map[string]uint64{},
		taken:  map[simGrant]int{},
		asked:  map[*simClient][]simCommand{},
		leaves: map[*simClient]bool{},
		noted:  notedGrants{open: map[string]api.Event{}},
		delay:  delay,
	}
	for _, l := range w.loops { // as if the clock had been set back since
		_ = l.worker.shard.table.Restore(nil, 1<<62)
	}
	w.sameSeed = true // so that a run can be repeated
	for i := range simKeys {
		key := w.keyIn("k"+strconv.Itoa(i)+"x", simSixths[i])
		w.keys = append(w.keys, key)
		w.rests[key] = delay
	}
	return w
}

// simSixths say where the hashes of the keys are, in sixths of all, and so on which loop a key is, of one, two or three.
var simSixths = [simKeys]uint64{0, 5, 2, 3}

// keyIn returns a key whose hash is in a sixth of all hashes: the name with the least number after it that makes it one.
func (w *simWorld) keyIn(name string, sixth uint64) string {
	for n := 0; ; n++ {
		if key := name + strconv.Itoa(n); w.server.seed.Hash([]byte(key))>>32*6>>32 == sixth {
			return key
		}
	}
}

// connected draws a client whose connection is open.
func (w *simWorld) connected(t *rapid.T) *simClient {
	var open []*simClient
	for _, c := range w.clients {
		if c.open && !c.ended && !c.absent {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		t.Skip("nobody is connected")
	}
	return rapid.SampledFrom(open).Draw(t, "client")
}

// ask has a client send some commands in one write, perhaps cut in two.
func (w *simWorld) ask(t *rapid.T) {
	c := w.connected(t)
	if c.fin {
		t.Skip("it has ended its side")
	}
	var text strings.Builder
	for range rapid.IntRange(1, 4).Draw(t, "commands") {
		key := rapid.SampledFrom(w.keys).Draw(t, "key")
		cmd := simCommand{key: key, sentAt: w.now}
		switch cmd.kind = rapid.SampledFrom([]proto.Kind{
			proto.Lock, proto.Lock, proto.Lock, proto.Unlock, proto.Unlock, proto.Fence, proto.Name, proto.Owner,
		}).Draw(t, "kind"); cmd.kind {
		case proto.Lock:
			ms := rapid.SampledFrom([]int{0, 0, 1, 5, 50, 100_000}).Draw(t, "timeout")
			cmd.timeout = time.Duration(ms) * time.Millisecond
			fmt.Fprintf(&text, "lock %s %d\r\n", key, ms)
		case proto.Unlock:
			if w.told[key] == c { // it may be the next one's from now on
				delete(w.told, key)
			}
			fmt.Fprintf(&text, "unlock %s\r\n", key)
		case proto.Fence:
			fmt.Fprintf(&text, "fence %s\r\n", key)
		default:
			fmt.Fprintf(&text, "%s x%d\r\n", cmd.kind, rapid.IntRange(0, 2).Draw(t, "who"))
		}
		w.asked[c] = append(w.asked[c], cmd)
	}
	cut := rapid.IntRange(0, text.Len()).Draw(t, "cut")
	c.send(text.String()[:cut])
	c.send(text.String()[cut:])
}

// hear checks what the clients have noticed.
func (w *simWorld) hear(t *rapid.T) {
	for _, e := range w.events {
		c := e.client
		switch {
		case e.line == "":
			w.lost(c)
		case len(w.asked[c]) == 0:
			t.Fatalf("%s is told %q and has asked nothing", c.name, e.line)
		default:
			cmd := w.asked[c][0]
			w.asked[c] = w.asked[c][1:]
			w.answered(t, c, cmd, e.line)
			for g, n := range w.taken {
				if g.client == c {
					w.taken[g] = max(n-1, 0)
				}
			}
		}
	}
	w.events = nil
}

func (w *simWorld) answered(t *rapid.T, c *simClient, cmd simCommand, line string) {
	answer, err := proto.ParseReply([]byte(line + "\r\n"))
	if err != nil {
		t.Fatalf("%s is told %q: %v", c.name, line, err)
	}
	if !slices.Contains(cmd.kind.Replies(), answer.Reply) {
		t.Fatalf("%s is told %q after %s %s", c.name, line, cmd.kind, cmd.key)
	}
	w.sent[cmd.kind]++
	switch answer.Reply {
	case proto.Locked:
		if w.gives(c, cmd.key) {
			break // it is told of what is over
		}
		if w.taken[simGrant{c, cmd.key}] > 0 {
			break // so here
		}
		if holder := w.told[cmd.key]; holder != nil {
			t.Fatalf("%s is told that it holds %s, and so was %s", c.name, cmd.key, holder.name)
		}
		if w.now < w.rests[cmd.key] {
			t.Fatalf("%s is told at %s that it holds %s, which rests until %s", c.name, w.now, cmd.key, w.rests[cmd.key])
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

// gives reports whether the client has already given up a key that it is told to hold: by an unlock, or by ending its side.
func (w *simWorld) gives(c *simClient, key string) bool {
	return w.leaves[c] || slices.ContainsFunc(w.asked[c], func(cmd simCommand) bool { return cmd.kind == proto.Unlock && cmd.key == key })
}

// lost takes note that a client's connection is gone.
func (w *simWorld) lost(c *simClient) {
	w.leave(c)
	delete(w.asked, c)
}

// leave takes note that a client gives up what it holds, because of how it ends its connection. Answers may still come.
func (w *simWorld) leave(c *simClient) {
	w.leaves[c] = true
	for key, holder := range w.told {
		if holder == c {
			delete(w.told, key)
			w.rests[key] = w.now + w.server.cfg.LockDelay
			w.left[key] = c
		}
	}
}

// release has an operator take a key from its holder, if that is possible now.
func (w *simWorld) release(t *rapid.T) {
	key := rapid.SampledFrom(w.keys).Draw(t, "key")
	hash := w.server.seed.Hash([]byte(key))
	l := w.loops[w.server.shardOf(hash)]
	var r *api.Release
	l.turn(func() { r, _ = l.worker.shard.take(&api.ReleaseQuery{Key: key}, hash) })
	if r == nil {
		t.Skip("nobody holds it, or it is about to be told")
	}
	delete(w.rests, key)
	for _, c := range w.clients {
		switch {
		case c.session.id() != r.Holder.Connection:
		case w.told[key] == c:
			delete(w.told, key)
		default: // it will be told that it has the key, by the answer to one of these
			w.taken[simGrant{c, key}] = len(w.asked[c])
		}
	}
}

// quiet has everything come to rest, and checks that all numbers agree.
func (w *simWorld) quiet(t *rapid.T) {
	w.goOn()
	for _, c := range w.clients {
		c.hear()
	}
	w.settleReading()
	w.hear(t)
	if err := w.checkQuiet(); err != nil {
		t.Fatal(err)
	}
	var sum counters
	for _, l := range w.loops {
		sum.add(&l.worker.counters)
	}
	ended := uint64(0)
	for _, n := range sum.disconnects {
		ended += n
	}
	if serves := w.serving(); sum.accepted != ended+serves {
		t.Fatalf("%d sessions are counted, %d have ended, and %d are served", sum.accepted, ended, serves)
	}
	for kind := proto.Lock; kind < proto.NumKinds; kind++ {
		counted := uint64(0)
		for _, n := range sum.commands[kind] {
			counted += n
		}
		if counted < w.sent[kind] {
			t.Fatalf("%d answers to %s are counted, and %d were read", counted, kind, w.sent[kind])
		}
	}
}

// serving returns the number of sessions that have not ended.
func (w *simWorld) serving() (n uint64) {
	for _, c := range w.clients {
		if c.open && c.session.phase < ended {
			n++
		}
	}
	return n
}

// end has the client's side of a connection go in one of several ways.
func (w *simWorld) end(t *rapid.T) {
	c := w.connected(t)
	switch rapid.SampledFrom([]string{"half-close", "close", "reset", "kick", "garbage"}).Draw(t, "way") {
	case "half-close":
		w.leave(c)
		c.closeWrite()
	case "close":
		w.lost(c)
		c.ended, c.deaf = true, false // what is left for it is sent to nobody
		c.closeWrite()
	case "reset":
		if c.loop == nil {
			t.Skip("it moves")
		}
		w.lost(c)
		c.reset()
	case "kick":
		if c.loop == nil {
			t.Skip("it moves")
		}
		w.leave(c)
		c.kick()
	case "garbage":
		w.leave(c)
		c.send("lock !\r\n")
	}
}

// drain has a loop look who is left in a drain, as far as that goes in a turn.
func (w *simWorld) drain(l *simLoop) (found holders) {
	l.turn(func() { l.worker.shard.drain(&found) })
	return found
}

// checkDrained checks who is left, when nothing is under way.
func (w *simWorld) checkDrained(t *rapid.T) {
	left := 0
	for _, l := range w.loops {
		if l.worker.drains {
			left += w.drain(l).busy
		}
	}
	w.settle()
	w.hear(t)
	for _, c := range w.clients {
		if c.open && c.session.phase < ended && c.session.roster.drains {
			if c.session.keys == 0 && c.session.outstanding == 0 {
				t.Fatalf("%s is served, holds nothing and waits for nothing", c.name)
			}
			left--
		}
	}
	if left != 0 {
		t.Fatalf("a look has found %d sessions more than there are", left)
	}
}

func TestSimulation(t *testing.T) {
	simulate(t, func(t *rapid.T, w *simWorld) map[string]func(*rapid.T) {
		w.drains = rapid.IntRange(0, 3).Draw(t, "drains") == 0
		return w.actions()
	})
}

// simulate has worlds live, each with the actions that prepare returns, until everybody leaves.
func simulate(t *testing.T, prepare func(*rapid.T, *simWorld) map[string]func(*rapid.T)) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = flag.Set(checks.Name, map[bool]string{true: "500", false: "2000"}[testing.Short()])
		defer func() { _ = flag.Set(checks.Name, checks.DefValue) }()
	}
	rapid.Check(t, func(t *rapid.T) {
		delay := rapid.SampledFrom([]time.Duration{0, 0, 0, simTick, 50 * simTick, 300_000 * simTick}).Draw(t, "lock delay")
		w := newSimWorld(rapid.IntRange(1, 3).Draw(t, "loops"), delay)
		w.budget = rapid.SampledFrom([]int{2, 3, 5, 10, 1000}).Draw(t, "budget")
		w.server.pace = pace{
			short:   rapid.IntRange(1, 3).Draw(t, "short slice"),
			long:    rapid.IntRange(1, 4).Draw(t, "long slice"),
			release: rapid.IntRange(1, 2).Draw(t, "keys a step"),
		}
		w.server.cfg.MaxKeys = rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "max-keys")
		t.Repeat(prepare(t, w))
		w.everybodyLeaves(t)
	})
}

// actions are all that can happen in a world.
func (w *simWorld) actions() map[string]func(*rapid.T) {
	loop := func(t *rapid.T) int { return rapid.IntRange(0, len(w.loops)-1).Draw(t, "loop") }
	return map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			w.hear(t)
			if err := w.check(); err != nil {
				t.Fatal(err)
			}
			w.noted.read(t, w.sim)
		},
		"connect": func(t *rapid.T) {
			if len(w.clients) >= simClients {
				t.Skip("enough")
			}
			w.names++
			if c := w.connect("c"+strconv.Itoa(w.names), loop(t)); c != nil {
				c.encrypted = rapid.IntRange(0, 4).Draw(t, "encrypted") == 0
			}
		},
		"ask":     w.ask,
		"receive": func(t *rapid.T) { w.loops[loop(t)].receive() },
		"expire":  func(t *rapid.T) { w.loops[loop(t)].expire() },
		"go on":   func(t *rapid.T) { w.loops[loop(t)].goOn() },
		"pass": func(t *rapid.T) {
			w.pass(time.Duration(rapid.SampledFrom([]int{1, 3, 40, 60, 200_000}).Draw(t, "ms")) * time.Millisecond)
		},
		"release": w.release,
		"deaf":    func(t *rapid.T) { w.connected(t).deaf = true },
		"hear":    func(t *rapid.T) { w.connected(t).hear() },
		"end":     w.end,
		"drain": func(t *rapid.T) {
			if !w.drains {
				t.Skip("the server does not drain in this run")
			}
			w.drain(w.loops[loop(t)])
		},
		"hold": func(t *rapid.T) {
			w.held = true
			w.hold()
		},
		"serve": func(*rapid.T) { w.goOn() },
		"fail to take over": func(t *rapid.T) {
			w.hold()
			if _, _, err := w.estate(); err != nil {
				t.Fatal(err)
			}
			w.sim.goOn()
			w.held = false
		},
		"take over":        w.takeOver,
		"predecessor ends": func(*rapid.T) { w.endAbsent() },
		"memory": func(t *rapid.T) {
			w.fillMemory(rapid.SampledFrom([]int64{0, 80, 102, 110}).Draw(t, "percent"))
		},
		"quiet": func(t *rapid.T) {
			w.quiet(t)
			w.checkDrained(t)
			w.clients = slices.DeleteFunc(w.clients, func(c *simClient) bool { return !c.open })
		},
	}
}

// everybodyLeaves checks that nothing is left then.
func (w *simWorld) everybodyLeaves(t *rapid.T) {
	w.endAbsent()
	w.quiet(t)
	for _, c := range w.clients {
		if c.open && c.loop != nil {
			c.reset()
		}
	}
	w.quiet(t)
	w.pass(w.delay)
	w.quiet(t)
	w.noted.read(t, w.sim)
	w.noted.checkOver(t, w.sim)
	for _, l := range w.loops {
		table := l.worker.shard.table
		if table.Keys() != 0 || table.Resting() != 0 {
			t.Fatalf("%d keys are held, and %d rest, of nobody", table.Keys(), table.Resting())
		}
	}
	if n := w.server.connections.Load(); n != 0 {
		t.Fatalf("%d connections are counted, and all are gone", n)
	}
}
