package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// simDelay is the lock delay of the tests.
const simDelay = 10 * time.Second

// newOpenSim returns a sim with a lock delay whose start is over.
func newOpenSim(loops int) *sim {
	s := newDelayedSim(loops, moveAfter, simDelay)
	s.pass(simDelay)
	s.settle()
	return s
}

// TestRestOfBigHolder ends a session with many keys on two loops. That costs no more than the end of one with a single key; when
// the delay is over, its keys go on in many turns.
func TestRestOfBigHolder(t *testing.T) {
	const keys, budget = 300, 20
	s := newOpenSim(2)
	s.server.pace.release = 5
	holder := s.connect("holder", 0)
	var last [2]string // of the keys of each loop
	for i := range 2 * keys {
		loop := i % 2
		last[loop] = s.key(fmt.Sprintf("%dx", i), loop)
		holder.send("lock " + last[loop] + " 0\r\n")
		s.settle()
	}
	waiter, other := s.connect("waiter", 0), s.connect("other", 1)
	waiter.send("lock " + last[1] + " 100000\r\n")
	s.settle()
	s.events = nil
	s.budget = budget
	holder.reset()
	s.loops[1].receive()
	for loop, l := range s.loops {
		table := l.worker.shard.table
		if l.behind || l.spent > simPart || table.Keys() != 0 || table.Resting() != keys {
			t.Errorf("loop %d: %d keys are held and %d rest, after a turn that took %d, with more to come: %t",
				loop, table.Keys(), table.Resting(), l.spent, l.behind)
		}
	}
	s.settle()
	other.send(strings.ReplaceAll("unlock KEY\r\nfence KEY\r\nlock KEY 0\r\n", "KEY", last[1]))
	if lines := s.heardLines()[other]; !slices.Equal(lines, []string{"e not locked", "e not locked", "t timeout"}) {
		t.Errorf("another client heard %q of a key that rests", lines)
	}
	s.pass(simDelay - simTick)
	s.settle()
	if err := s.checkQuiet(); err != nil || len(s.events) > 0 {
		t.Errorf("before the delay is over: %v, and somebody heard %v", err, s.heardLines())
	}

	s.pass(simTick)
	l := s.loops[1]
	if !l.expire() || !l.behind || l.spent > budget+4*(simPart+s.server.pace.release) {
		t.Errorf("after the delay a turn has spent %d, with more to come: %t", l.spent, l.behind)
	}
	other.send("lock " + s.key("299x", 1) + " 0\r\n") // its turn has not come
	s.settle()
	lines := s.heardLines()
	if !slices.Equal(lines[waiter], []string{"l locked"}) || !slices.Equal(lines[other], []string{"l locked"}) {
		t.Errorf("after the delay they heard %v", lines)
	}
	for loop, l := range s.loops {
		if n := l.worker.shard.table.Resting(); n > 0 || l.wheel.Len() > 0 {
			t.Errorf("loop %d: %d keys rest, %d timers run", loop, n, l.wheel.Len())
		}
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// TestRestDescribed looks at keys that rest: of a connection that has ended, and of whoever may have held them before the start.
func TestRestDescribed(t *testing.T) {
	s := newDelayedSim(1, moveAfter, simDelay)
	sh := s.loops[0].worker.shard
	describe := func(key string) api.Key {
		return sh.describe(sh.table.Find(s.server.seed.Hash([]byte(key)), []byte(key)))
	}
	early := s.connect("early", 0)
	early.send("lock a 100000\r\n")
	s.pass(4 * time.Second)
	if k := describe("a"); k.FreesInSeconds != 6 || k.Holder != (api.Peer{}) || k.Token != 0 || k.HeldSeconds != 0 ||
		k.Waiters != 1 || k.LongestWaitSeconds != 4 {
		t.Errorf("soon after the start: %+v", k)
	}
	s.pass(simDelay)
	s.settle()
	k := describe("a")
	if k.FreesInSeconds != 0 || k.Holder.Connection != early.session.id() || k.Token == 0 {
		t.Errorf("the key that was asked for soon after the start is %+v", k)
	}
	token := k.Token
	s.pass(3 * time.Second)
	early.reset()
	s.pass(time.Second)
	if k := describe("a"); k.FreesInSeconds != 9 || k.Holder.Connection != early.session.id() || k.Token != token || k.HeldSeconds != 3 {
		t.Errorf("after the end of its holder it is %+v", k)
	}
	s.pass(9 * time.Second) // and the timer has not been handled
	if k := describe("a"); k.FreesInSeconds <= 0 || k.FreesInSeconds > simTick.Seconds() || k.HeldSeconds != 3 {
		t.Errorf("when it is about to go on it is %+v", k)
	}
}

// TestRestHoldsUpNobody looks for deadlocks, drains and stops the server while keys rest: who waits for one waits for nobody, a
// drain does not wait for its end, and nobody loses it.
func TestRestHoldsUpNobody(t *testing.T) {
	s := newOpenSim(1)
	holder, waiters := holderWithWaiters(s, 2)
	sh := s.loops[0].worker.shard
	r := &waiters[0].session.request
	e := sh.edge(r)
	if e == nil {
		t.Fatal("who waits for a holder does not")
	}
	holder.reset()
	if sh.edge(r) != nil {
		t.Error("the detector believes that somebody waits for a connection that has ended")
	}
	s.loops[0].turn(func() { sh.breakWait(e) }) // found in a deadlock before
	if !r.waiter.Queued() || s.server.detector.broken.Load() != 0 {
		t.Error("a wait for a key that rests is broken")
	}
	for _, w := range waiters {
		w.reset()
	}
	var left holders
	s.loops[0].turn(func() { sh.drain(&left) })
	if left.keys != 0 || left.busy != 0 || left.waiters != 0 || sh.table.Resting() != 4 {
		t.Errorf("a drain waits for %d sessions with %d keys, and %d waiters; %d keys rest", left.busy, left.keys, left.waiters, sh.table.Resting())
	}
	var lost losses
	s.loops[0].turn(func() {
		for sh.close(&lost) {
		}
	})
	if lost.keys != 0 || len(lost.named) != 0 {
		t.Errorf("%d keys are lost, and %d named", lost.keys, len(lost.named))
	}
}

// TestRestAfterStop lets the delay of keys end when the server has stopped: they go to nobody.
func TestRestAfterStop(t *testing.T) {
	s := newOpenSim(1)
	holder, _ := holderWithWaiters(s, 2)
	holder.reset()
	s.loops[0].turn(func() { s.loops[0].worker.shard.close(&losses{}) })
	s.pass(2 * simDelay)
	s.settle()
	if lines := s.heardLines(); len(lines) > 1 { // the holder knows of its own end
		t.Errorf("after the stop they heard %v", lines)
	}
}

// TestRestsInOrder ends sessions one after another: each has its own delay, from its own end on, whatever timers run.
func TestRestsInOrder(t *testing.T) {
	const n, apart = 5, time.Second
	s := newOpenSim(2)
	begin := s.now
	for i := range n {
		c := s.connect(fmt.Sprintf("c%d", i), i%2)
		for loop := range s.loops {
			c.send("lock " + s.key(fmt.Sprintf("%dx", i), loop) + " 0\r\n")
			s.settle()
		}
	}
	waiters := make([]*simClient, 2*n)
	for i := range waiters {
		waiters[i] = s.connect(fmt.Sprintf("w%d", i), 0)
		waiters[i].send("lock " + s.key(fmt.Sprintf("%dx", i%n), i/n) + " 100000\r\n")
	}
	s.settle()
	for i := range n {
		s.clients[i].reset()
		s.settle()
		s.pass(apart)
	}
	s.events = nil
	for i := range n {
		end := begin + time.Duration(i)*apart + simDelay
		s.now = end - simTick
		s.settle()
		if lines := s.heardLines(); len(lines) > 0 {
			t.Errorf("a tick before the end of delay %d they heard %v", i, lines)
		}
		s.now = end
		s.settle()
		lines := s.heardLines()
		if len(lines) != 2 || len(lines[waiters[i]]) != 1 || len(lines[waiters[n+i]]) != 1 {
			t.Errorf("at the end of delay %d they heard %v", i, lines)
		}
	}
}

// TestStartSeen asks a server that has just started, and has a long lock delay: nothing is granted, and it says for how long.
func TestStartSeen(t *testing.T) {
	const delay = time.Hour
	d := startDaemon(t, func(cfg *Config) { cfg.LockDelay = delay })
	d.wantLog(1, `"message":"nothing is granted yet`, `"lock_delay":"1h0m0s"`, `"until":`)
	waiter, other := d.dial(), d.dial()
	waiter.Send("lock a 600000")
	other.Do("lock b 0", "t timeout")
	other.Do("lock b 20", "t timeout")
	d.awaitWaiters(1)
	other.Do("unlock a", "e not locked")
	other.Do("fence a", "e not locked")

	soon := func(seconds float64) bool { return seconds > 0 && seconds <= delay.Seconds() }
	if st := d.status(); st.LockDelaySeconds != delay.Seconds() || !soon(st.GrantsInSeconds) || st.RestingKeys != 1 || st.HeldKeys != 0 {
		t.Errorf("the status is %+v", st)
	}
	keys := d.allKeys(api.KeyQuery{Limit: 10}, 1)
	k := d.key("a")
	if len(keys) != 1 || k == nil || d.key("b") != nil {
		t.Fatalf("the keys are %+v and %+v", keys, k)
	}
	for _, k := range []*api.Key{&keys[0], k} {
		if k.Key != "a" || !soon(k.FreesInSeconds) || k.Holder != (api.Peer{}) || k.Token != 0 || k.Waiters != 1 {
			t.Errorf("the key is %+v", k)
		}
	}
	if page, err := d.server.Keys(t.Context(), api.KeyQuery{}); err != nil || page.Ages.Counts[0] != 1 || page.Ages.Sum != 0 {
		t.Errorf("%v, the ages of what nobody holds: %+v", err, page.Ages)
	}
	if err := d.server.LogHolders(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.wantLog(1, `"message":"key rests: `, `"key":"a"`, `"free_in":"59 min 5`, `"waiters":1`)
	d.wantLog(0, `"message":"key held"`)
	d.stop()
	d.wantLog(1, "no key was held")
}
