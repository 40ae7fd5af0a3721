package client

import (
	"net"
	"testing"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

func TestConnectionIsUsedAgain(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	for range 50 {
		mustUnlock(t, mustLock(t, c, "a"))
	}
	l := mustLock(t, c, "a")
	for range 50 { // refused: on a second connection, over and over
		_, err := c.TryLock(patient(t), "a")
		wantErr(t, err, ErrTimeout)
	}
	mustUnlock(t, l)
	if n := r.count(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestMaxIdle(t *testing.T) {
	for maxIdle, want := range map[int]int{0: defaultMaxIdle, 3: 3, -1: 0} {
		address, _ := startServer(t, nil)
		r := startRelay(t, address)
		c := newClient(t, r.address, Options{MaxIdle: maxIdle})
		var locks []*Lock
		for i := range defaultMaxIdle + 4 {
			locks = append(locks, mustLock(t, c, "key"+string(rune('a'+i))))
		}
		r.awaitOpen(len(locks)) // each has its own
		for _, l := range locks {
			mustUnlock(t, l)
		}
		r.awaitOpen(want)
	}
}

// Idle connections that have ended do not count against MaxIdle.
func TestEndedIdleConnections(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{MaxIdle: 2})
	a, b := mustLock(t, c, "a"), mustLock(t, c, "b")
	mustUnlock(t, a)
	mustUnlock(t, b)
	idle := []*conn{a.conn, b.conn}
	direct := newClient(t, address, Options{})
	r.cut()
	for _, cn := range idle {
		mustEnd(t, "the end of an idle connection", cn.ended)
	}
	fresh := mustLock(t, direct, "a")
	c.keep(fresh.conn)
	if len(c.idle) != 1 || c.idle[0] != fresh.conn {
		t.Errorf("%d idle connections, want the fresh one alone", len(c.idle))
	}
	c.keep(idle[0])
	if c.takeIdle() != fresh.conn {
		t.Error("an ended connection is taken, and a good one is not")
	}
}

func TestClose(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	held, waitedFor := mustLock(t, c, "a"), mustLock(t, c, "b")
	mustUnlock(t, mustLock(t, c, "c"))
	waiting := lockLater(patient(t), c, "b", -1)
	r.awaitCommand("lock b 9223372036854") // on the connection that was idle
	mustUnlock(t, mustLock(t, c, "c"))
	r.awaitOpen(4)

	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitOpen(3)
	_, err := c.TryLock(patient(t), "d")
	wantErr(t, err, ErrClosed)
	if isClosed(held.Lost()) {
		t.Error("Close has taken a lock away")
	}
	mustUnlock(t, held)
	r.awaitOpen(2)
	mustUnlock(t, waitedFor)
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
	r.awaitOpen(0)
}

// The refusal of a connection beyond the limit comes before or after the request. It always arrives.
func TestConnectionLimit(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.MaxConnections = 1 })
	one := prototest.Dial(t, address)
	one.Do("unlock nobodys", "e not locked")
	c := newClient(t, address, Options{})
	for range 200 {
		_, err := c.TryLock(patient(t), "a")
		wantText(t, err, "too many connections")
	}
	one.CloseWrite()
	one.ExpectEnd()
	mustUnlock(t, mustLock(t, c, "a"))
}

// The same from a server that neither waits for the request nor for the client to read.
func TestRefusedUnasked(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		reply(conn, "e too many connections\r\n")
		_ = conn.CloseWrite()
		takeLine(conn)
	}), Options{})
	for range 100 {
		_, err := c.TryLock(patient(t), "a")
		wantText(t, err, "too many connections")
	}
}
