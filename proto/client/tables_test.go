package client

import (
	"errors"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// lead makes new connections go to a server, as a balancer does.
func (r *relay) lead(target string) { r.update(func() { r.target = target }) }

// One address leads to two servers at the same time: while a lock is held at one of them, nothing is locked at the other.
func TestTwoTablesAtAnAddress(t *testing.T) {
	a, _ := startServer(t, nil)
	b, _ := startServer(t, nil)
	for name, w := range startWays(t, a) {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, w.address, w.options)
			l := mustLock(t, c, name)
			w.lead(b)
			_, err := c.Lock(patient(t), "k", -1)
			wantTables(t, err, w.address, w.address)
			eventually(t, "the end of the connection", func() bool {
				conn := prototest.Dial(t, b)
				conn.Send("unlock k")
				reply, err := conn.ReadReply()
				return err == nil && reply == "e not locked"
			})
			if isClosed(l.Lost()) {
				t.Error("the lock that was held is lost")
			}
			mustUnlock(t, l)
			w.lead(a)
			mustUnlock(t, mustLock(t, c, "k"))
		})
	}
}

// One server may be reached in several ways.
func TestWaysInAList(t *testing.T) {
	a, _ := startServer(t, nil)
	ways := startWays(t, a)
	c := newClient(t, ways["unix"].address+","+ways["mutual"].address, ways["mutual"].options)
	mustUnlock(t, mustLock(t, c, "k"))
	for _, w := range []way{ways["unix"], ways["mutual"]} {
		w.await("the question", func() bool { return len(w.names) > 0 })
	}
}

// Or in turns: a lock table that was replaced does not come back.
func TestTablesInTurns(t *testing.T) {
	a, _ := startServer(t, nil)
	b, _ := startServer(t, nil)
	r := startRelay(t, a)
	c := newClient(t, r.address, Options{MaxIdle: -1})
	mustUnlock(t, mustLock(t, c, "k"))
	r.lead(b) // may be the same server, started again
	mustUnlock(t, mustLock(t, c, "k"))
	r.lead(a)
	_, err := c.Lock(patient(t), "k", -1)
	wantTables(t, err, r.address, r.address)
	r.lead(b)
	mustUnlock(t, mustLock(t, c, "k"))
	c.tables.mu.Lock()
	for space := range c.tables.replaced {
		c.tables.replaced[space] = time.Now().Add(-2 * turnsTime)
	}
	c.tables.mu.Unlock()
	r.lead(a)
	mustUnlock(t, mustLock(t, c, "k")) // nobody remembers
}

// A wait in a table that was replaced leaves it, and stands in line in the new one: the client waits in one table at a time.
func TestWaitLeavesAReplacedTable(t *testing.T) {
	a, _ := startServer(t, nil)
	b, _ := startServer(t, nil)
	r := startRelay(t, a)
	c := newClient(t, r.address, Options{})
	holder := prototest.Dial(t, a)
	holder.Do("lock k 0", "l locked")
	waiting := lockLater(patient(t), c, "k", -1)
	r.awaitCommand("lock k 9223372036854")
	r.lead(b)
	mustUnlock(t, mustLock(t, c, "other"))
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	prototest.Dial(t, b).Do("unlock k", "e not owner")
	mustUnlock(t, got.lock)
	holder.Do("unlock k", "u unlocked")
}

// A server that has fallen silent holds the next lock up until its own one is lost: it may be there.
func TestSilentHolderOfAnotherTable(t *testing.T) {
	a, _ := startServer(t, nil)
	b, _ := startServer(t, nil)
	r := startRelay(t, a)
	c := newClient(t, r.address, Options{MaxIdle: -1})
	l := mustLock(t, c, "held")
	l.conn.mu.Lock() // as if a heartbeat were on its way, without an answer
	l.conn.pulse.sent = time.Now()
	l.conn.mu.Unlock()
	r.lead(b)
	_, err := c.TryLock(patient(t), "k")
	wantErr(t, err, ErrUnreachable)
	l.conn.mu.Lock()
	l.conn.lapse()
	l.conn.mu.Unlock()
	wantErr(t, l.err, ErrConnectionLost)
	next, err := c.TryLock(patient(t), "k")
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, next)
	l.conn.mu.Lock()
	if l.conn.dropped != nil {
		t.Error("the connection of the lock that was lost is dropped before its work has ended")
	}
	l.conn.mu.Unlock()
	_ = l.Unlock(patient(t))
}

// A grant that crosses the end of a table does not count.
func TestDroppedConnectionHoldsNothing(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	l := mustLock(t, c, "k")
	mustUnlock(t, l)
	l.conn.mu.Lock()
	l.conn.dropped = errReplaced // and its end is not noticed yet
	l.conn.mu.Unlock()
	wantErr(t, l.conn.hold(l), ErrConnectionLost, errReplaced)
}

// A wait that has lost its server does not go on in another lock table as long as that server may come back with its own. A new
// call that stood nowhere may.
func TestWaitDoesNotChangeTables(t *testing.T) {
	a, stopA := startServer(t, of(newFleet(7)))
	holder := prototest.Dial(t, a)
	holder.Do("lock k 0", "l locked")
	nobody := listenOn(t, "tcp", "127.0.0.1:0")
	b := nobody.Addr().String()
	nobody.Close()
	troubles := make(chan error, 8)
	c := newClient(t, a+","+b, Options{Trouble: func(_ string, err error) { troubles <- err }})
	waiting := lockLater(patient(t), c, "k", -1)
	eventually(t, "the wait", func() bool { return c.Server() == a })
	other := newFleet(8)
	startServer(t, atOf(b, other))
	stopA()
	if err := <-troubles; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("told %v", err)
	}
	var another *OtherTableError
	if err := <-troubles; !errors.As(err, &another) || *another != (OtherTableError{a, b}) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("told %v", err)
	}
	prototest.Dial(t, b).Do("unlock k", "e not locked")
	fresh := newClient(t, a+","+b, Options{})
	mustUnlock(t, mustLock(t, fresh, "k"))
	select {
	case got := <-waiting:
		t.Fatalf("%+v", got)
	default:
	}
	startServer(t, atOf(a, other)) // they have become a fleet
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
}

// The same for a call that stood in line on a connection that was idle before. If that server comes back with a table of its own,
// they are refused.
func TestWaitMeetsTwoTables(t *testing.T) {
	a, stopA := startServer(t, of(newFleet(7)))
	nobody := listenOn(t, "tcp", "127.0.0.1:0")
	b := nobody.Addr().String()
	nobody.Close()
	c := newClient(t, a+","+b, Options{})
	mustUnlock(t, mustLock(t, c, "k"))
	prototest.Dial(t, a).Do("lock k 0", "l locked")
	waiting := lockLater(patient(t), c, "k", -1)
	eventually(t, "the wait", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.idle) == 0
	})
	startServer(t, at(b))
	stopA()
	eventually(t, "the other table", func() bool { return c.Server() == b })
	startServer(t, at(a))
	wantTables(t, (<-waiting).err, a, b)
}

// A server that was started again is not taken for another one: not by new locks, nor by calls that waited, nor by idle
// connections.
func TestStartedAgain(t *testing.T) {
	address, stop := startServer(t, nil)
	c := newClient(t, address, Options{})
	for range 3 {
		held, idle := mustLock(t, c, "held"), mustLock(t, c, "idle")
		mustUnlock(t, idle)
		waiting := lockLater(patient(t), c, "held", -1)
		eventually(t, "the wait", func() bool {
			c.tables.mu.Lock()
			defer c.tables.mu.Unlock()
			return len(c.tables.open) == 2
		})
		stop()
		_, stop = startServer(t, at(address))
		wantLost(t, held)
		got := <-waiting
		if got.err != nil {
			t.Fatal(got.err)
		}
		mustUnlock(t, got.lock)
	}
	eventually(t, "the end of the connections", func() bool {
		c.tables.mu.Lock()
		defer c.tables.mu.Unlock()
		return len(c.tables.open) <= 2
	})
}

// A connection that was made before its table was replaced, and is answered only afterwards, proves nothing: it is made again.
func TestLateAnswerOfAReplacedTable(t *testing.T) {
	tables := newTables()
	dialled := time.Now()
	in := func(space uint64, dialled time.Time) *conn {
		return &conn{server: &introduction{space: space}, dialled: dialled, ended: make(chan struct{})}
	}
	for _, space := range []uint64{1, 2} {
		if err := tables.admit(patient(t), in(space, dialled)); err != nil {
			t.Fatal(err)
		}
		clear(tables.open) // as when that connection has ended
	}
	wantErr(t, tables.admit(patient(t), in(1, dialled)), ErrConnectionLost, errReplaced)
	wantTables(t, tables.admit(patient(t), in(1, time.Now())), "", "")
	if err := tables.admit(patient(t), in(2, dialled)); err != nil {
		t.Error(err)
	}
}
