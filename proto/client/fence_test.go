package client

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"dreadlock/proto/prototest"
)

// Each lock comes with a greater token than the one before, in the write that asks for the lock.
func TestToken(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{Fence: true})
	var tokens []uint64
	for range 3 {
		l, err := c.Lock(patient(t), "a", -1)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, l.Token())
		mustUnlock(t, l)
	}
	if tokens[0] == 0 || !slices.IsSorted(tokens) || len(slices.Compact(tokens)) != 3 {
		t.Errorf("tokens %d", tokens)
	}
	r.await("the commands", func() bool { return len(r.commands) == 9 })
	if got, want := r.said()[:3], []string{"lock a 9223372036854", "fence a", "unlock a"}; !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}

// A lock that is waited for has the token of its grant.
func TestTokenOfWaiter(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{Fence: true})
	first := mustLock(t, c, "a")
	waiting := lockLater(patient(t), c, "a", -1)
	r.awaitCommand("lock a 9223372036854")
	mustUnlock(t, first)
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	if first.Token() == 0 || got.lock.Token() <= first.Token() {
		t.Errorf("tokens %d and %d", first.Token(), got.lock.Token())
	}
	mustUnlock(t, got.lock)
}

func TestNoToken(t *testing.T) {
	address, _ := startServer(t, nil)
	l := mustLock(t, newClient(t, address, Options{}), "a")
	if l.Token() != 0 {
		t.Errorf("token %d", l.Token())
	}
	mustUnlock(t, l)
}

// A lock that is refused has an answer to its fence as well, and then the connection is good for the next one.
func TestRefusedWithFence(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{Fence: true})
	l := mustLock(t, c, "a")
	for range 20 {
		_, err := c.TryLock(patient(t), "a")
		wantErr(t, err, ErrTimeout)
	}
	mustUnlock(t, l)
	if n := r.count(); n != 2 {
		t.Errorf("%d connections", n)
	}

	free := newClient(t, listen(t, func(conn *net.TCPConn) { // by the time of the fence the key is free
		for takeLines(conn, 2) {
			reply(conn, "t timeout\r\n")
			reply(conn, "e not locked\r\n")
		}
	}), Options{Fence: true})
	for range 2 {
		_, err := free.TryLock(patient(t), "a")
		wantErr(t, err, ErrTimeout)
	}
}

func TestAnswersToFence(t *testing.T) {
	for _, tc := range []struct {
		answers, text string
	}{
		{"l locked\r\ne not owner\r\n", "not owner"},
		{"l locked\r\ne not locked\r\n", "not locked"},
		{"e deadlock\r\ne not owner\r\n", "deadlock"},
		{"l locked\r\nl locked\r\n", ""},
		{"l locked\r\nf 0\r\n", ""},
		{"l locked\r\nf 5\r\nf 5\r\n", ""},
		{"f 5\r\nl locked\r\n", ""},
		{"t timeout\r\nf 5\r\n", ""},
		{"t timeout\r\nt timeout\r\n", ""},
	} {
		ended := make(chan struct{})
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLines(conn, 2)
			reply(conn, tc.answers)
			takeLine(conn)
			close(ended)
		}), Options{Fence: true, Attempts: 1})
		_, err := c.TryLock(patient(t), "a")
		if tc.text != "" {
			wantText(t, err, tc.text)
		} else {
			wantErr(t, err, ErrProtocol)
		}
		mustEnd(t, "the end of the connection", ended)
	}
}

// A client that wants tokens does not do without one: the lock that was granted is given up with the connection.
func TestFenceAtOlderServer(t *testing.T) {
	o := startOlder(t, func(*net.TCPConn) {})
	c := newClient(t, o.address, Options{Fence: true, Attempts: 2})
	_, err := c.TryLock(patient(t), "a")
	wantErr(t, err, ErrConnectionLost)
	if err == nil || !strings.Contains(err.Error(), "before the fencing token") {
		t.Errorf("got %v", err)
	}
	o.wantWords(t, "name", "unlock", "name", "lock", "fence", "name", "unlock", "name", "lock", "fence")
}

// A client that can do without tokens has them where there are any, and does not ask an older server.
func TestTryFence(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{TryFence: true})
	for range 2 {
		l, err := c.Lock(patient(t), "a", -1)
		if err != nil {
			t.Fatal(err)
		}
		if l.Token() == 0 {
			t.Error("there is no token")
		}
		mustUnlock(t, l)
	}
	want := []string{"lock a 9223372036854", "fence a", "unlock a", "lock a 9223372036854", "fence a", "unlock a"}
	r.await("the commands", func() bool { return len(r.commands) == len(want) })
	if got := r.said(); !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
	prototest.Dial(t, address).Do("lock b 0", "l locked")
	_, err := c.TryLock(patient(t), "b")
	wantErr(t, err, ErrTimeout)

	o := startOlder(t, func(*net.TCPConn) {})
	c = newClient(t, o.address, Options{TryFence: true})
	for range 2 {
		l, err := c.TryLock(patient(t), "a")
		if err != nil {
			t.Fatal(err)
		}
		if l.Token() != 0 {
			t.Errorf("token %d", l.Token())
		}
		mustUnlock(t, l)
	}
	o.wantWords(t, "name", "unlock", "name", "lock", "unlock", "lock", "unlock")
}

// The context ends between the two answers.
func TestCancelBeforeToken(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan struct{})
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLines(conn, 2)
		reply(conn, "l locked\r\n")
		close(asked)
		takeLine(conn)
		close(ended)
	}), Options{Fence: true})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiting := lockLater(ctx, c, "a", -1)
	mustEnd(t, "the request", asked)
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
	mustEnd(t, "the end of the connection", ended)
}
