package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreadlock/server"
	"dreadlock/server/fleet/fleettest"
)

// newFleet returns a store for servers of a fleet, with the name of its lock table.
func newFleet(space uint64) *fleettest.Fleet {
	f := fleettest.NewFleet(time.Minute)
	f.Space = space
	return f
}

// of makes a server one of a fleet.
func of(live *fleettest.Fleet) func(*server.Config) {
	return func(cfg *server.Config) { cfg.Fleet = live.Store() }
}

// atOf is at and of.
func atOf(address string, live *fleettest.Fleet) func(*server.Config) {
	return func(cfg *server.Config) { cfg.Listen, cfg.Fleet = []string{address}, live.Store() }
}

// wantTables expects that two servers were found not to be a fleet, whichever comes first.
func wantTables(tb testing.TB, got error, one, other string) {
	tb.Helper()
	var tables *TablesError
	if !errors.As(got, &tables) || *tables != (TablesError{one, other}) && *tables != (TablesError{other, one}) {
		tb.Errorf("got %v, want two lock tables at %s and %s", got, one, other)
	}
}

// Two servers that are no fleet are refused before a lock is told, whichever the client would begin with.
func TestTwoTablesInAList(t *testing.T) {
	a, _ := startServer(t, nil)
	b, _ := startServer(t, nil)
	for _, first := range []string{a, b} {
		c := newClient(t, a+","+b, Options{First: first})
		_, err := c.Lock(patient(t), "k", -1)
		wantTables(t, err, a, b)
		if text := err.Error(); !strings.Contains(text, "are two lock tables, not a fleet") {
			t.Error(text)
		}
		if l, err := newClient(t, first, Options{}).TryLock(patient(t), "k"); err != nil {
			t.Errorf("%v: the key is held by nobody", err)
		} else {
			mustUnlock(t, l)
		}
	}
}

// The same with two addresses of one name. Two addresses of one server are fine.
func TestAddressesOfAName(t *testing.T) {
	a, _ := startServer(t, nil)
	_, port, _ := net.SplitHostPort(a)
	c := newClient(t, "locks:"+port, Options{})
	c.lookup = resolver{"locks": {"127.0.0.1", "127.0.0.2"}}.lookup
	other := "127.0.0.2:" + port
	if got := c.Server(); got != "locks:"+port {
		t.Errorf("before the first connection it goes to %q", got)
	}

	l := mustLock(t, c, "k") // nobody is at the other one
	if l.Server() != a || c.Server() != a {
		t.Errorf("the lock is at %q, and the client goes to %q", l.Server(), c.Server())
	}
	mustUnlock(t, l)

	relay := startRelayOn(t, listenOn(t, "tcp", other), "", a)
	c.tables.settle(endpoint{}, time.Time{}) // as after a while
	a1, a2 := mustLock(t, c, "k1"), mustLock(t, c, "k2")
	relay.await("the question", func() bool { return len(relay.names) > 0 })
	mustUnlock(t, a1)
	mustUnlock(t, a2)

	second, _ := startServer(t, nil)
	relay.update(func() { relay.target = second })
	c.tables.settle(endpoint{}, time.Time{})
	_ = c.Close()
	c = newClient(t, "locks:"+port, Options{})
	c.lookup = resolver{"locks": {"127.0.0.1", "127.0.0.2"}}.lookup
	_, err := c.TryLock(patient(t), "k")
	wantTables(t, err, a, other)
}

// A fleet is used at one of its servers, and at another one when that is gone; clients spread.
func TestFailover(t *testing.T) {
	live := newFleet(7)
	a, stopA := startServer(t, of(live))
	b, stopB := startServer(t, of(live))
	stops := map[string]func(){a: stopA, b: stopB}
	used := map[string]bool{}
	for i := range 60 {
		used[mustLock(t, newClient(t, a+","+b, Options{}), fmt.Sprintf("k%d", i)).Server()] = true
	}
	if len(used) != 2 {
		t.Errorf("60 clients use %v", used)
	}

	c := newClient(t, a+","+b, Options{})
	l := mustLock(t, c, "held")
	at := l.Server()
	other := map[string]string{a: b, b: a}[at]
	if again := mustLock(t, c, "more"); again.Server() != at {
		t.Errorf("two locks of a client are at %s and %s", at, again.Server())
	}
	stops[at]()
	wantLost(t, l)
	l, err := c.TryLock(patient(t), "held") // one attempt reaches the other one
	if err != nil || l.Server() != other || c.Server() != other {
		t.Fatalf("%v, at %s", err, c.Server())
	}
	stops[other]()
	wantLost(t, l)
	began := time.Now()
	_, err = c.Lock(patient(t), "held", 50*time.Millisecond)
	wantErr(t, err, ErrUnreachable, syscall.ECONNREFUSED)
	var none *ServersError
	if !errors.As(err, &none) || len(none.Failures) != 2 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("got %v after %s", err, time.Since(began))
	}
	for _, address := range []string{a, b} {
		if want := address + ": connect: connection refused"; !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	startServer(t, atOf(a, live))
	mustUnlock(t, mustLock(t, c, "held"))
}

// A wait that loses its server stands in line at another one of the fleet, at the end, and says so.
func TestWaitGoesOnAtAnother(t *testing.T) {
	live := newFleet(7)
	a, stopA := startServer(t, of(live))
	b, _ := startServer(t, of(live))
	holder := mustLock(t, newClient(t, b, Options{}), "k")
	var mu sync.Mutex
	var told []error
	c := newClient(t, a+","+b, Options{First: a, Trouble: func(_ string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}})
	waiting := lockLater(patient(t), c, "k", -1)
	eventually(t, "the wait at the first", func() bool { return c.Server() == a })
	stopA()
	eventually(t, "the wait at the other", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 2
	})
	if !errors.Is(told[0], ErrConnectionLost) || told[1] != nil || c.Server() != b {
		t.Errorf("told %v, and it goes to %s", told, c.Server())
	}
	mustUnlock(t, holder)
	got := <-waiting
	if got.err != nil || got.lock.Server() != b {
		t.Fatalf("%+v", got)
	}
	mustUnlock(t, got.lock)
}

// A server that is there and does not answer costs a moment, at the beginning and later on; so does one to which no packet comes.
func TestOneOfSeveralIsSilent(t *testing.T) {
	alive, _ := startServer(t, nil)
	l := listenOn(t, "tcp", "127.0.0.1:0") // accepts by the kernel alone
	t.Cleanup(func() { l.Close() })
	silent := l.Addr().String()
	for _, first := range []string{silent, "192.0.2.1:6001"} {
		c := newClient(t, first+","+alive, Options{First: first, DialTimeout: time.Hour, MaxIdle: -1})
		for _, wasThere := range []bool{false, first == silent} {
			if wasThere {
				c.tables.settle(endpoint{where: silent}, time.Now()) // as if it had fallen silent just now
			}
			l, err := c.TryLock(patient(t), "k")
			if err != nil || l.Server() != alive {
				t.Fatalf("%s: %v", first, err)
			}
			mustUnlock(t, l)
		}
	}
}

// A server that comes back with a table of its own is compared with the others, also if it is the one in use.
func TestServerLeavesItsFleet(t *testing.T) {
	live := newFleet(7)
	a, stop := startServer(t, of(live))
	b, _ := startServer(t, of(live))
	c := newClient(t, a+","+b, Options{First: a, MaxIdle: -1})
	mustUnlock(t, mustLock(t, c, "k"))
	stop()
	_, stop = startServer(t, at(a))
	_, err := c.Lock(patient(t), "k", -1)
	wantTables(t, err, a, b)
	stop()
	l := mustLock(t, c, "k")
	if l.Server() != b {
		t.Errorf("it is locked at %s", l.Server())
	}
	mustUnlock(t, l)
}

// A server without room is passed over as well.
func TestFullServer(t *testing.T) {
	live := newFleet(7)
	full, _ := startServer(t, func(cfg *server.Config) { cfg.Fleet, cfg.MaxConnections = live.Store(), 1 })
	mustLock(t, newClient(t, full, Options{}), "full")
	free, _ := startServer(t, of(live))
	l, err := newClient(t, full+","+free, Options{First: full}).TryLock(patient(t), "k")
	if err != nil || l.Server() != free {
		t.Fatal(err)
	}
	mustUnlock(t, l)
	mustLock(t, newClient(t, free, Options{}), "other")
}

// One that is too old to say which lock table it has cannot be one of several, alone or not.
func TestOlderServerInAList(t *testing.T) {
	o := startOlder(t, func(conn *net.TCPConn) { _ = conn.CloseWrite() })
	a, stop := startServer(t, nil)
	for range 2 {
		_, err := newClient(t, a+","+o.address, Options{}).Lock(patient(t), "k", -1)
		wantTables(t, err, o.address, "")
		stop()
	}
}

// At two addresses of one name it may be the same server, as with localhost, and is used.
func TestOlderServerOfAName(t *testing.T) {
	o := startOlder(t, func(conn *net.TCPConn) { _ = conn.CloseWrite() })
	_, port, _ := net.SplitHostPort(o.address)
	c := newClient(t, "locks:"+port, Options{MaxIdle: -1})
	c.lookup = resolver{"locks": {"127.0.0.1", "127.0.0.2"}}.lookup
	mustUnlock(t, mustLock(t, c, "a"))
	o.mu.Lock()
	o.words = nil
	o.mu.Unlock()
	mustUnlock(t, mustLock(t, c, "b"))
	o.wantWords(t, "lock", "unlock")
}

// A daemon of a fleet that has not reached the store has no lock table yet.
func TestServerWithoutStore(t *testing.T) {
	a := listen(t, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		for {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			reply(conn, "n named 60000 0000000000000000\r\n")
		}
	})
	b, _ := startServer(t, nil)
	l, err := newClient(t, a+","+b, Options{First: a}).TryLock(patient(t), "k")
	if err != nil || l.Server() != b {
		t.Fatal(err)
	}
	mustUnlock(t, l)
}

// A call whose context ends leaves at once, also while others are asking the servers.
func TestCancelSurvey(t *testing.T) {
	l := listenOn(t, "tcp", "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	c := newClient(t, l.Addr().String()+",192.0.2.1:6001", Options{DialTimeout: time.Hour})
	var waits []<-chan result
	ctx, cancel := context.WithCancel(patient(t))
	for range 3 {
		waits = append(waits, lockLater(ctx, c, "k", -1))
	}
	eventually(t, "the question", func() bool { return len(c.tables.gate) == 1 })
	cancel()
	for _, w := range waits {
		wantErr(t, (<-w).err, context.Canceled)
	}
}

// eventually waits for a state.
func eventually(tb testing.TB, what string, reached func() bool) {
	tb.Helper()
	for ctx := patient(tb); !reached(); {
		select {
		case <-ctx.Done():
			tb.Fatalf("no %s", strings.TrimPrefix(what, "the "))
		case <-time.After(time.Millisecond):
		}
	}
}

// What a survey has learned of addresses that are gone is forgotten.
func TestNote(t *testing.T) {
	at := func(text, where string) endpoint { return endpoint{target{text: text}, where, where} }
	four, six, other := at("a:1", "10.0.0.1:1"), at("a:1", "[fd00::1]:1"), at("a:1", "10.0.0.2:1")
	in := func(to endpoint, space uint64) meeting {
		return meeting{conn: &conn{to: to, server: &introduction{space: space}}}
	}
	refused, silent := meeting{err: syscall.ECONNREFUSED}, meeting{err: errSilent}
	for _, tc := range []struct {
		all  []endpoint
		met  []meeting
		seen []string // in the former table
	}{
		{[]endpoint{four, six, other}, []meeting{in(four, 2), silent, silent}, []string{other.where, six.where}},
		{[]endpoint{four, six, other}, []meeting{in(four, 2), refused, refused}, []string{other.where}},
		{[]endpoint{four, six}, []meeting{in(four, 2), silent}, []string{six.where}},
		{[]endpoint{four, other}, []meeting{in(four, 2), refused}, []string{other.where}},
		{[]endpoint{six, other}, []meeting{in(six, 2), refused}, nil},
	} {
		tables := newTables()
		for _, e := range []endpoint{four, six, other} {
			tables.seen[e.where] = sighting{e.label, 1}
		}
		tables.note(tc.all, tc.met)
		var got []string
		for where, s := range tables.seen {
			if s.space == 1 {
				got = append(got, where)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.seen) {
			t.Errorf("%v is left, want %v", got, tc.seen)
		}
	}
}
