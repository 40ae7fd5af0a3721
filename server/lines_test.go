package server

import (
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/server/fleet/fleettest"
)

// Several servers share a store. Everything is real but sockets, loops, time, and the store, of which a run draws when it writes,
// when the servers notice, which answers are lost, and when leases end. What clients may conclude is checked after every step:
//
//   - A client that was told that it holds a key, and has neither given it up nor lost its connection, is the only one of all
//     servers, as long as the lease of its server lasts.
//   - Of two clients of which the second has asked when the first stood in line already, the first is granted the key first,
//     whatever their servers are. Within a server it is enough that the first has asked before.
//   - A later grant of a key has a greater token.
//   - A key that was free all the time is found free.
//   - Nobody is told that he holds a key when the time of the session is up, or the server knows that its lease is gone.
//   - With a lock delay, a key whose holder was lost is kept from the next for that long, whatever daemon dies or starts meanwhile.
//   - Who has ended its side has the answers to all that needs no waiting.
//
// And when nothing is under way, all is answered but waits, a key that somebody waits for is held by somebody, the servers know just
// the places that there are, and have none that they do not need.

var (
	fleetSeed    = flag.Uint64("fleet.seed", 0, "run the simulation of a fleet with this seed only")
	fleetBegin   = flag.Uint64("fleet.begin", 1, "begin the simulation of a fleet with this seed")
	fleetForSome = flag.Int("fleet.steps", 0, "steps of the simulation of a fleet; 0 for 20,000, or 60,000 without -short")
)

// fleetRun is the number of steps of a run.
const fleetRun = 150

// runFleet does a run, and returns the number of steps and why it has failed.
func runFleet(seed uint64) (steps, locked int, err error) {
	w := newFleetWorld(seed)
	defer func() {
		if r := recover(); r != nil {
			text := fmt.Sprint(r)
			if f, ok := r.(fleetFailure); ok {
				text = f.text
			} else {
				text += "\n" + string(debug.Stack())
			}
			err = fmt.Errorf("seed %d: %s\n%s", seed, text, strings.Join(w.trace, "\n"))
		}
	}()
	for ; steps < fleetRun; steps++ {
		w.step()
		w.hear()
	}
	w.quiet()
	w.idle()
	return steps, w.locked, nil
}

func TestFleetSimulation(t *testing.T) {
	if *fleetSeed != 0 {
		if _, _, err := runFleet(*fleetSeed); err != nil {
			t.Fatal(err)
		}
		return
	}
	most := *fleetForSome
	if most == 0 {
		most = map[bool]int{true: 20_000, false: 60_000}[testing.Short()]
	}
	done, granted := 0, 0
	for seed := *fleetBegin; done < most; seed++ {
		steps, locked, err := runFleet(seed)
		done += steps
		granted += locked
		if err != nil {
			t.Fatalf("after %d steps, run it again with -fleet.seed=%d: %v", done, seed, err)
		}
	}
	t.Logf("%d steps, %d grants", done, granted)
	if granted < done/20 {
		t.Errorf("%d steps, and only %d grants", done, granted)
	}
}

// quietFleet returns a fleet of servers with a loop and a client each, and without faults.
func quietFleet(servers int) *fleetWorld {
	w := newFleetWorld(1)
	w.servers, w.loops, w.delay, w.faults = nil, 1, 0, false
	w.log = fleettest.NewLog(fleetTTL, fleetMargin, func() time.Duration { return w.now })
	for range servers {
		s := &fleetServer{}
		w.servers = append(w.servers, s)
		s.start(w)
		for _, l := range s.loops {
			l.worker.shard.lines.maxKept, l.worker.shard.lines.perPlace = maxKept, grantsPerPlace
		}
		s.link.Connect()
		s.connect(fmt.Sprint("client of ", len(w.servers)), 0)
	}
	w.keys, w.free = []string{"a"}, map[string]bool{}
	return w
}

// say has the client of a server say something, and all servers do what follows.
func (w *fleetWorld) say(server int, text string) {
	c := w.servers[server].clients[0]
	for range strings.Count(text, "\r\n") {
		w.asked[c] = append(w.asked[c], fleetCommand{})
	}
	c.send(text)
	for range 5 {
		for _, s := range w.servers {
			s.link.Write(s.link.Queued(), false)
			s.link.Watch(s.link.Unseen())
			s.settle()
		}
	}
}

// said returns what the clients have heard since.
func (w *fleetWorld) said() (lines []string) {
	for _, s := range w.servers {
		for _, e := range s.events {
			lines = append(lines, e.client.name+": "+e.line)
		}
		s.events = nil
	}
	return lines
}

// A place is replaced before its tokens run out, also while clients come and go all the time, and the tokens go on rising.
func TestUsedUpPlace(t *testing.T) {
	w := quietFleet(1)
	s := w.servers[0]
	s.loops[0].worker.shard.lines.perPlace = 3
	before, places := uint64(0), map[uint64]int{}
	for range 20 {
		w.say(0, "lock a 1000\r\nfence a\r\nunlock a\r\n")
		lines := w.said()
		var token uint64
		if len(lines) != 3 {
			t.Fatalf("it says %q", lines)
		}
		if _, err := fmt.Sscanf(strings.TrimPrefix(lines[1], "client of 1: "), "f %d", &token); err != nil || token <= before {
			t.Fatalf("the token %d follows on %d: %v", token, before, err)
		}
		before = token
		if places[token/tokensPerPlace]++; places[token/tokensPerPlace] > 3 {
			t.Fatalf("the place with revision %d has had more than 3 grants", token/tokensPerPlace)
		}
	}
	if n := len(w.log.Line("a")); n > 2 {
		t.Errorf("%d places are left", n)
	}
}

// A server has a bounded number of idle places: beyond it those that were used longest ago are left.
func TestIdlePlaces(t *testing.T) {
	w := quietFleet(2)
	w.servers[0].loops[0].worker.shard.lines.maxKept = 10
	for i := range 50 {
		w.say(0, fmt.Sprintf("lock k%d 1000\r\nunlock k%d\r\n", i, i))
	}
	if n := w.log.Places(); n > 11 {
		t.Errorf("%d places are kept, of 10", n)
	}
	w.said()
	w.say(1, "lock k49 0\r\nlock k1 0\r\n")
	if got := w.said(); !slices.Equal(got, []string{"client of 2: l locked", "client of 2: l locked"}) {
		t.Errorf("the other server says %q", got)
	}
}

// A daemon that starts delays nothing, whatever the lock delay is, but what a daemon that has died held.
func TestFleetLockDelay(t *testing.T) {
	const delay = 3 * time.Second
	w := quietFleet(2)
	w.delay = delay
	for _, s := range w.servers {
		s.start(w)
		s.link.Connect()
		s.connect("client", 0)
	}
	w.say(0, "lock a 0\r\nlock b 0\r\nunlock b\r\n")
	if got := w.said(); !slices.Equal(got, []string{"client: l locked", "client: l locked", "client: u unlocked"}) {
		t.Fatalf("right after the start it says %q", got)
	}
	w.servers[0].start(w) // it has died
	w.servers[0].link.Connect()
	w.servers[0].connect("client", 0)
	w.say(0, "lock c 0\r\nlock a 60000\r\n")
	if got := w.said(); !slices.Equal(got, []string{"client: l locked"}) {
		t.Fatalf("after the next start it says %q", got)
	}
	for w.now < fleetTTL+delay-simTick {
		w.renewAll()
		w.pass(fleetMargin / 2)
		w.say(0, "")
		if got := w.said(); len(got) > 0 && w.now < fleetTTL+delay {
			t.Fatalf("after %s it says %q", w.now, got)
		} else if len(got) > 0 && got[0] != "client: l locked" {
			t.Fatalf("it says %q", got)
		}
	}
	w.say(0, "fence a\r\n")
	if got := w.said(); len(got) != 1 || !strings.HasPrefix(got[0], "client: f ") {
		t.Fatalf("in the end it says %q", got)
	}
}

// A try that the store does not answer ends as if somebody held the key.
func TestTryTime(t *testing.T) {
	w := quietFleet(1)
	c := w.servers[0].clients[0]
	c.send("lock a 0\r\nunlock a\r\nlock a 60000\r\n")
	for range 3 {
		w.now += tryTime + simTick
		w.servers[0].now = w.now
		w.servers[0].settle()
	}
	if got := w.said(); !slices.Equal(got, []string{"client of 1: t timeout", "client of 1: e not owner"}) {
		t.Errorf("it says %q", got)
	}
}

// Who stands behind a place that is to come stands at the one before as soon as that is the last again, and so before those who ask later.
func TestPlaceBehindGoes(t *testing.T) {
	w := quietFleet(2)
	s := w.servers[0]
	first, second, third := s.clients[0], s.connect("second", 0), s.connect("third", 0)
	w.say(0, "lock a 60000\r\n")
	w.say(1, "lock a 60000\r\n")
	second.send("lock a 60000\r\n") // which is not written
	w.servers[1].link.Lose(true)
	s.link.Watch(s.link.Unseen())
	s.settle()
	third.send("lock a 60000\r\n")
	w.said()
	for _, c := range []*simClient{first, second, third} {
		c.send("unlock a\r\n")
		s.settle()
	}
	want := []string{"client of 1: u unlocked", "second: l locked", "second: u unlocked", "third: l locked", "third: u unlocked"}
	if got := w.said(); !slices.Equal(got, want) {
		t.Errorf("they say %q, want %q", got, want)
	}
}

// A place of an earlier lease that was made as a try is not taken away by the daemon whose client has held the key by it, and has come
// back: it keeps the key from the others until the lock delay is over.
func TestEarlierTryRests(t *testing.T) {
	w := quietFleet(2)
	w.delay = 3 * time.Second
	for _, s := range w.servers {
		s.start(w)
		s.link.Connect()
		s.connect("client", 0)
	}
	w.say(0, "lock a 0\r\n")
	w.say(1, "lock a 60000\r\n")
	earlier := w.servers[0].link.Lease()
	w.servers[0].link.Lose(true)
	w.servers[0].link.Connect()
	w.servers[0].clients = nil
	w.servers[0].connect("client", 0)
	w.said()
	w.say(0, "lock a 60000\r\n")
	if line := w.log.Line("a"); len(line) != 3 || line[0].Lease != earlier {
		t.Errorf("the places are %v", line)
	}
	if got := w.said(); len(got) > 0 {
		t.Errorf("they say %q", got)
	}
}

// Who waits behind a place that is to come is not overtaken by who asks later and does not wait, or cannot any more.
func TestTryAfterWaiter(t *testing.T) {
	for _, place := range []string{"none", "a try is under way", "used up"} {
		for _, halfClosed := range []bool{false, true} {
			t.Run(fmt.Sprintf("place: %s, half-closed: %t", place, halfClosed), func(t *testing.T) {
				w := quietFleet(1)
				s := w.servers[0]
				first, other, third := s.clients[0], s.connect("other", 0), s.connect("third", 0)
				w.say(0, "lock b 60000\r\nunlock b\r\n")
				switch place {
				case "a try is under way":
					third.send("unlock a\r\n")
				case "used up":
					s.loops[0].worker.shard.lines.perPlace = 1
					w.say(0, "lock a 60000\r\nunlock a\r\n")
				}
				w.said()
				first.send("lock a 60000\r\n")
				if halfClosed {
					s.budget = simPart // so that its lock is executed after the end of its input
					other.send(strings.Repeat("fence b\r\n", 10) + "lock a 60000\r\n")
					other.closeWrite()
				} else {
					other.send("lock a 0\r\n")
				}
				s.settle()
				w.say(0, "")
				if got := w.said(); slices.Contains(got, "other: l locked") || !slices.Contains(got, "client of 1: l locked") {
					t.Errorf("they say %q", got)
				}
			})
		}
	}
}
