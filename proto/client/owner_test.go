package client

import (
	"bufio"
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/api"
)

// under asks for a key with the context of a lock.
func under(t *testing.T, c *Client, l *Lock, key string) <-chan result {
	t.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), prototest.Patience)
	t.Cleanup(cancel)
	return lockLater(ctx, c, key, -1)
}

// Two goroutines, or two programs, that take two keys in two orders: it is found, with the names of both, and broken.
func TestNestedDeadlock(t *testing.T) {
	for _, clients := range []int{1, 2} {
		srv, address, _ := runServer(t, func(cfg *server.Config) { cfg.BreakDeadlocks = true })
		ann := newClient(t, address, Options{Name: "ann"})
		bob := ann
		if clients == 2 {
			bob = newClient(t, address, Options{Name: "bob"})
		}
		a, b := mustLock(t, ann, "a"), mustLock(t, bob, "b")
		first := under(t, ann, a, "b")
		awaitWaiters(t, srv, "b", 1)
		began := time.Now()
		wantText(t, (<-under(t, bob, b, "a")).err, "deadlock") // the younger wait
		t.Logf("%d clients: broken after %s", clients, time.Since(began))
		mustUnlock(t, b)
		r := <-first
		if r.err != nil {
			t.Fatal(r.err)
		}
		mustUnlock(t, r.lock)
		mustUnlock(t, a)
		if known, err := srv.Deadlocks(t.Context()); err != nil || known.Found != 1 || known.Broken != 1 {
			t.Errorf("%+v, %v", known, err)
		}
	}
}

// A lock that waits for itself is the shortest deadlock.
func TestKeyInsideItself(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.BreakDeadlocks = true })
	c := newClient(t, address, Options{})
	a := mustLock(t, c, "a")
	wantText(t, (<-under(t, c, a, "a")).err, "deadlock")
	mustUnlock(t, a)
}

// A connection that has had an owner is used again by somebody who has nothing to do with it, while others are still of that
// owner: they are not taken for one. left holds x and waits for a, which can be released at any time.
func TestConnectionOfOwnerIsUsedAgain(t *testing.T) {
	srv, address, _ := runServer(t, nil)
	c := newClient(t, address, Options{})
	a := mustLock(t, c, "a")
	b := <-under(t, c, a, "b")
	if b.err != nil {
		t.Fatal(b.err)
	}
	mustUnlock(t, b.lock)
	left := prototest.Dial(t, address)
	left.Do("lock x 0", "l locked")
	left.Send("lock a 600000")
	awaitWaiters(t, srv, "a", 1)
	waiting := lockLater(patient(t), c, "x", -1) // on the connection of b
	awaitWaiters(t, srv, "x", 1)
	for _, cycle := range lookAgain(t, srv, address) {
		if cycle.Waits[0].WaitsFor == "x" || cycle.Waits[0].WaitsFor == "a" {
			t.Errorf("found %+v", cycle)
		}
	}
	mustUnlock(t, a)
	left.Expect("l locked")
	left.Do("unlock x", "u unlocked")
	r := <-waiting
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r.lock.conn != b.lock.conn {
		t.Error("it has another connection")
	}
	mustUnlock(t, r.lock)
}

// Of two waits under one lock the first is the one by which the server sees a deadlock, and the second does not hide it.
func TestTwoWaitsUnderOneLock(t *testing.T) {
	srv, address, _ := runServer(t, nil)
	c := newClient(t, address, Options{})
	left, right := prototest.Dial(t, address), prototest.Dial(t, address)
	left.Do("lock b 0", "l locked")
	right.Do("lock c 0", "l locked")
	a := mustLock(t, c, "a")
	first := under(t, c, a, "b")
	awaitWaiters(t, srv, "b", 1)
	second := under(t, c, a, "c")
	awaitWaiters(t, srv, "c", 1)
	left.Send("lock a 600000")
	awaitDeadlock(t, srv, "b")
	left.Close()
	mustUnlock(t, (<-first).lock)
	right.Close()
	mustUnlock(t, (<-second).lock)
	mustUnlock(t, a)
}

// What is said: nothing by who takes no lock under another one; an owner for each wait under a lock, on the connections of the
// locks around it as well, however many there are before the unlock. A lock that is not waited for needs none, and neither
// does work that the lock's holder does not wait for.
func TestOwnersSaid(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	a := mustLock(t, c, "a")
	for _, ctx := range []context.Context{patient(t), WithOwner(a.Context(), "")} {
		l, err := c.Lock(ctx, "b", -1)
		if err != nil {
			t.Fatal(err)
		}
		mustUnlock(t, l)
	}
	l, err := c.TryLock(a.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, l)
	isOwner := func(command string) bool { return strings.HasPrefix(command, "owner ") }
	if said := r.said(); slices.ContainsFunc(said, isOwner) {
		t.Errorf("said %q", said)
	}
	const waits = 3 * maxAside
	for range waits {
		b := <-under(t, c, a, "b")
		if b.err != nil {
			t.Fatal(b.err)
		}
		d := <-under(t, c, b.lock, "d")
		if d.err != nil {
			t.Fatal(d.err)
		}
		mustUnlock(t, d.lock)
		mustUnlock(t, b.lock)
	}
	mustUnlock(t, a)
	times := make(map[string]int)
	for _, command := range r.said() {
		if isOwner(command) {
			times[command]++
		}
	}
	byTimes := make(map[int]int)
	for _, n := range times {
		byTimes[n]++
	}
	if byTimes[2] != waits || byTimes[3] != waits || len(byTimes) != 2 {
		t.Errorf("owners by how often they were said: %v, want %d of b and a, and %d of d, b and a", byTimes, waits, waits)
	}
}

// A server that does not answer owners is not told of ever more of them, and delays no call. Its answers may come with that to
// the unlock. Any other answer ends the connection, and the lock.
func TestAnswersToOwners(t *testing.T) {
	for _, tc := range []struct {
		answers string // to the unlock, after those to the owners if they are answered; or to the owners alone
		owned   bool
		lost    bool
		err     error
	}{
		{"u unlocked\r\n", true, false, nil},
		{"u unlocked\r\n", false, false, ErrProtocol},
		{"f 5\r\n", false, true, ErrProtocol},
		{"t timeout\r\n", false, true, ErrProtocol},
		{strings.Repeat("o owned\r\n", maxAside+1), false, true, ErrProtocol},
	} {
		a := make(chan *net.TCPConn, 1)
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			in := bufio.NewReader(conn)
			owners := 0
			for {
				command, err := in.ReadString('\n')
				switch {
				case err != nil:
					return
				case strings.HasPrefix(command, "name "):
					reply(conn, namedReply)
				case command == "lock a 0\r\n":
					reply(conn, "l locked\r\n")
					a <- conn
				case strings.HasPrefix(command, "owner "):
					if owners++; owners > maxAside {
						t.Errorf("%d owners", owners)
					}
				case command == "unlock a\r\n":
					if tc.owned {
						reply(conn, strings.Repeat("o owned\r\n", owners))
					}
					reply(conn, tc.answers)
				}
			}
		}), Options{})
		l, err := c.TryLock(patient(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		for range maxAside + 3 {
			ctx, cancel := context.WithTimeout(l.Context(), time.Millisecond)
			_, err := c.Lock(ctx, "b", -1)
			wantErr(t, err, context.DeadlineExceeded)
			cancel()
		}
		if tc.lost {
			reply(<-a, tc.answers)
			mustEnd(t, "the end of the context", l.Context().Done())
			wantErr(t, context.Cause(l.Context()), ErrConnectionLost, tc.err)
			continue
		}
		err = l.Unlock(patient(t))
		if tc.err == nil && err != nil {
			t.Error(err)
		}
		wantErr(t, err, tc.err)
	}
}

// A connection that is lost while it waits may still be granted the key, as far as the server knows: the owner that it has
// named is not named again, or it would wait for itself.
func TestOwnerAfterLoss(t *testing.T) {
	for _, answers := range []string{"", namedReply, namedReply + "o owned\r\n"} {
		said := make(chan string, 10)
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			in := bufio.NewReader(conn)
			for first := true; ; first = false {
				command, err := in.ReadString('\n')
				if err != nil {
					return
				}
				said <- command
				switch word, _, _ := strings.Cut(command, " "); {
				case word == "name" && !first: // of a probe
					reply(conn, namedReply)
				case word == "unlock":
					reply(conn, "e not locked\r\n")
				case word == "owner":
					_, _ = in.ReadString('\n') // the lock
					reply(conn, answers)
					return
				case word == "lock":
					reply(conn, "l locked\r\n")
				case answers != "": // the name of the second connection
					if len(said) > 2 {
						reply(conn, namedReply)
					}
				}
			}
		}), Options{Owner: "ann"})
		l := mustLock(t, c, "a")
		close(said)
		owners := 0
		for command := range said {
			if strings.HasPrefix(command, "owner ") {
				owners++
			}
		}
		if owners != 1 || l.conn.owner != "" {
			t.Errorf("after %q it said %d owners, the last on %q", answers, owners, l.conn.owner)
		}
	}
}

// An older server is told no owners.
func TestNestedAtOlderServer(t *testing.T) {
	o := startOlder(t, func(*net.TCPConn) {})
	c := newClient(t, o.address, Options{})
	a := mustLock(t, c, "a")
	b := <-under(t, c, a, "b")
	if b.err != nil {
		t.Fatal(b.err)
	}
	mustUnlock(t, b.lock)
	mustUnlock(t, a)
	o.wantWords(t, "name", "unlock", "name", "lock", "lock", "unlock", "unlock")
}

// awaitWaiters waits until n clients wait for a key.
func awaitWaiters(t *testing.T, srv *server.Server, key string, n int) {
	t.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		k, err := srv.Key(t.Context(), key, 0)
		if err == nil && k.Waiters == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %d waiters: %+v, %v", n, k, err)
		}
	}
}

// awaitDeadlock waits until the server has found a deadlock in which somebody waits for a key.
func awaitDeadlock(t *testing.T, srv *server.Server, key string) {
	t.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		known, err := srv.Deadlocks(t.Context())
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", known, err)
		}
		isOne := func(w api.Wait) bool { return w.WaitsFor == key }
		if slices.ContainsFunc(known.Cycles, func(c api.Cycle) bool { return slices.ContainsFunc(c.Waits, isOne) }) {
			return
		}
	}
}
