package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dreadlock/lockmgr"
)

// TestEndOfBigHolder ends a session with many keys on two loops. It takes many turns to pass them on, but nobody else can tell:
// a key that nobody waits for is free at once, and nothing counts it. Who waits is told in the order in which he came.
func TestEndOfBigHolder(t *testing.T) {
	const keys, budget = 300, 20
	s := newSim(2, moveAfter)
	s.server.pace.release = 5
	holder := s.connect("holder", 0)
	var last [2]string // of the keys of each loop
	for i := range 2 * keys {
		loop := i % 2
		last[loop] = s.key(fmt.Sprintf("%dx", i), loop)
		holder.send("lock " + last[loop] + " 0\r\n")
		s.settle()
	}
	waiters := []*simClient{s.connect("first", 0), s.connect("second", 1)}
	for _, w := range waiters {
		w.send("lock " + last[0] + " 100000\r\n")
		s.settle()
	}
	other := s.connect("other", 1)
	s.budget = budget
	holder.reset()
	s.loops[1].receive()
	s.events = nil
	for loop, l := range s.loops {
		table := l.worker.shard.table
		if len(l.worker.shard.releasing) != 1 || !l.behind {
			t.Fatalf("loop %d has passed on everything in one turn", loop)
		}
		if l.spent > budget+4*(simPart+s.server.pace.release) {
			t.Errorf("loop %d has spent %d in a turn", loop, l.spent)
		}
		if n := table.Keys(); n != 0 {
			t.Errorf("loop %d counts %d keys of nobody", loop, n)
		}
		var seen []string
		table.Walk(0, 1<<20, func(h lockmgr.Holding) { seen = append(seen, fmt.Sprint(string(h.Key), h.Closed, h.Waiters)) })
		if want := []string{fmt.Sprint(last[0], true, 2)}[loop:]; !slices.Equal(seen, want) {
			t.Errorf("loop %d shows the keys %q, want %q", loop, seen, want)
		}
	}
	other.send(strings.ReplaceAll("unlock KEY\r\nfence KEY\r\nlock KEY 0\r\n", "KEY", last[1]))
	if lines := s.heardLines()[other]; !slices.Equal(lines, []string{"e not locked", "e not locked", "l locked"}) {
		t.Errorf("another client heard %q of a key that is free", lines)
	}
	s.settle()
	lines := s.heardLines()
	if !slices.Equal(lines[waiters[0]], []string{"l locked"}) || len(lines[waiters[1]]) > 0 {
		t.Errorf("the waiters heard %v", lines)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// holderWithWaiters returns a client that holds n keys of one loop, and the clients that wait for them, one each, and hold a key
// of their own.
func holderWithWaiters(s *sim, n int) (holder *simClient, waiters []*simClient) {
	holder = s.connect("holder", 0)
	for i := range n {
		key := s.key(fmt.Sprintf("%dx", i), 0)
		w := s.connect(fmt.Sprintf("waiter%d", i), 0)
		w.send(fmt.Sprintf("lock own%d 0\r\n", i))
		holder.send("lock " + key + " 0\r\n")
		w.send("lock " + key + " 100000\r\n")
		s.settle()
		waiters = append(waiters, w)
	}
	s.events = nil
	return holder, waiters
}

// TestManyGrants makes more holders than a turn can tell.
func TestManyGrants(t *testing.T) {
	s := newSim(1, moveAfter)
	holder, waiters := holderWithWaiters(s, 20)
	s.budget = simPart
	holder.reset()
	if n := len(s.heardLines()); n > len(waiters)/2 {
		t.Errorf("%d clients are told something in one turn", n)
	}
	s.settle()
	for c, lines := range s.heardLines() {
		if !slices.Equal(lines, []string{"l locked"}) {
			t.Errorf("%s heard %q", c.name, lines)
		}
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// TestWaitForClosed looks for deadlocks, and stops the server, while the keys of a session that has ended are passed on: nobody is
// held up by it, and it loses nothing.
func TestWaitForClosed(t *testing.T) {
	s := newSim(1, moveAfter)
	s.server.pace.release = 1
	holder, waiters := holderWithWaiters(s, 20)
	sh := s.loops[0].worker.shard
	last := &waiters[len(waiters)-1].session.request
	if sh.edge(last) == nil {
		t.Error("who waits for a holder does not")
	}
	s.budget = simPart
	holder.reset()
	if e := sh.edge(last); e != nil {
		t.Errorf("the detector believes that connection %d waits for %d, which has ended", e.waiter.connection, e.holder.connection)
	}
	held := sh.table.Keys()
	var lost losses
	s.loops[0].turn(func() {
		for sh.close(&lost) {
		}
	})
	if lost.keys != held || len(lost.named) != held {
		t.Errorf("%d keys are lost, and %d named, want %d", lost.keys, len(lost.named), held)
	}
	for _, k := range lost.named {
		if k.Holder.Connection == holder.session.id() {
			t.Errorf("a connection that has ended loses %s", k.Key)
		}
	}
}

// TestGrantToBrokenConnection grants a key to a session in the turn in which its connection breaks. The answer goes to nobody.
func TestGrantToBrokenConnection(t *testing.T) {
	s := newSim(1, moveAfter)
	holder, waiters := holderWithWaiters(s, 1)
	other := s.connect("other", 0)
	waiters[0].send("fence own0\r\n")
	s.loops[0].turn(func() {
		holder.session.Data([]byte("unlock " + s.key("0x", 0) + "\r\n"))
		waiters[0].finish(unix.ECONNRESET)
	})
	other.send("lock a 0\r\n")
	s.settle()
	if lines := s.heardLines()[other]; !slices.Equal(lines, []string{"l locked"}) {
		t.Errorf("another client heard %q", lines)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// TestEndedHoldsNothing ends a session whose client has not read its answers yet: it is still there, and holds nothing.
func TestEndedHoldsNothing(t *testing.T) {
	s := newSim(1, moveAfter)
	c := s.connect("c", 0)
	c.send("lock a 0\r\n")
	c.deaf = true
	c.send("lock b 0\r\nnonsense\r\n")
	if !c.open || c.session.phase != ended {
		t.Fatal("the session has not ended, or is gone")
	}
	if shown := s.loops[0].worker.shard.snapshot(c.session, 10).connection; shown.Held != 0 || len(shown.Holds) != 0 {
		t.Errorf("a session that has ended is shown with %d keys: %q", shown.Held, shown.Holds)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}
