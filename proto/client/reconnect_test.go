package client

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

func TestNobodyListens(t *testing.T) {
	address, stop := startServer(t, nil)
	stop()
	c := newClient(t, address, Options{Attempts: 3})
	_, err := c.Lock(patient(t), "a", time.Second)
	wantErr(t, err, ErrUnreachable, syscall.ECONNREFUSED)
}

// Only holders notice that the server was restarted.
func TestRestartWhileIdle(t *testing.T) {
	address, stop := startServer(t, nil)
	c := newClient(t, address, Options{})
	a, b := mustLock(t, c, "a"), mustLock(t, c, "b")
	mustUnlock(t, a)
	mustUnlock(t, b)
	for range 3 {
		stop()
		_, stop = startServer(t, at(address))
		mustUnlock(t, mustLock(t, c, "a"))
	}
}

// A call that waits when the server ends asks the next one.
func TestRestartWhileWaiting(t *testing.T) {
	address, stop := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	l := mustLock(t, c, "a")
	waiting := lockLater(patient(t), c, "a", -1)
	r.awaitCommand("lock a 9223372036854")
	stop()
	wantLost(t, l)
	r.await("a failed attempt", func() bool { return r.accepted > 2 })
	startServer(t, at(address))
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
}

func TestServerEndsWhileWaiting(t *testing.T) {
	address, stop := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, address, Options{Attempts: 2})
	through := newClient(t, r.address, Options{Attempts: 2})
	mustLock(t, c, "a")
	waiting := lockLater(patient(t), through, "a", -1)
	r.awaitCommand("lock a 9223372036854")
	stop()
	wantErr(t, (<-waiting).err, ErrConnectionLost)
	_, err := c.TryLock(patient(t), "a")
	wantErr(t, err, ErrUnreachable)
}

// At a server that knows names each attempt is a connection, and their number is bounded.
func TestAttempts(t *testing.T) {
	var attempts atomic.Int32
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		attempts.Add(1)
		takeLine(conn)
	}), Options{Attempts: 4})
	_, err := c.Lock(patient(t), "a", time.Second)
	wantErr(t, err, ErrConnectionLost)
	if n := attempts.Load(); n != 4 {
		t.Errorf("%d attempts", n)
	}
}

// An idle connection may end at the moment at which it is used. Whatever happens to the request there, the client asks
// again on a new connection, once, without a pause, and the caller does not notice.
func TestIdleConnectionEnds(t *testing.T) {
	for _, last := range []string{"", "l loc", "x\r\n", "e too many connections\r\n"} {
		t.Run(fmt.Sprintf("%q", last), func(t *testing.T) {
			c := newClient(t, listen(t, func(conn *net.TCPConn) {
				takeLine(conn)
				reply(conn, "l locked\r\n")
				takeLine(conn)
				reply(conn, "u unlocked\r\n")
				takeLine(conn)
				reply(conn, last)
			}), Options{Attempts: 1, Backoff: time.Hour})
			for range 10 {
				mustUnlock(t, mustLock(t, c, "a"))
			}
		})
	}
}

// A call that asks again has what is left of its wait.
func TestWaitIsNotExtended(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	holder := prototest.Dial(t, address)
	holder.Do("lock a 0", "l locked")
	const wait = 60_000
	waiting := lockLater(patient(t), c, "a", wait*time.Millisecond)
	timeouts := func() (ms []int) {
		for _, command := range r.said() {
			var n int
			if strings.HasPrefix(command, "fence") { // a heartbeat, once the lock is held
				continue
			}
			if _, err := fmt.Sscanf(command, "lock a %d", &n); err != nil {
				t.Fatal(err)
			}
			ms = append(ms, n)
		}
		return ms
	}
	for n := range 3 {
		r.await("the request", func() bool { return len(r.commands) == n+1 })
		<-time.After(3 * time.Millisecond) // of the wait
		r.cut()
	}
	r.await("the request", func() bool { return len(r.commands) == 4 })
	holder.Do("unlock a", "u unlocked")
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	ms := timeouts()
	mustUnlock(t, got.lock)
	slices.Reverse(ms)
	if !slices.IsSorted(ms) || ms[0] > wait-9 || ms[3] > wait {
		t.Errorf("timeouts, the last first: %d", ms)
	}
}

// The wait covers the absence of the server from the start, and then the error says why.
func TestWaitCoversAbsence(t *testing.T) {
	address, stop := startServer(t, nil)
	stop()
	began := time.Now()
	const wait = 60 * time.Millisecond
	_, err := newClient(t, address, Options{}).Lock(patient(t), "a", wait)
	wantErr(t, err, ErrUnreachable, syscall.ECONNREFUSED)
	if took := time.Since(began); took < wait {
		t.Errorf("it gave up after %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	_, err = newClient(t, address, Options{}).Lock(ctx, "a", -1)
	wantErr(t, err, context.DeadlineExceeded, ErrUnreachable)

	failed := make(chan struct{}, 1)
	c := newClient(t, address, Options{Trouble: func(string, error) { failed <- struct{}{} }})
	waiting := lockLater(patient(t), c, "a", -1)
	<-failed
	startServer(t, at(address))
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
}

// TryLock is one attempt, which does not try again what passes.
func TestTryLockIsOneAttempt(t *testing.T) {
	var attempts atomic.Int32
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		attempts.Add(1)
		takeLine(conn)
	}), Options{})
	_, err := c.TryLock(patient(t), "a")
	wantErr(t, err, ErrConnectionLost)
	if n := attempts.Load(); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

// A server that has no room is one to wait for.
func TestWaitForRoom(t *testing.T) {
	address, _ := startServer(t, func(cfg *server.Config) { cfg.MaxConnections = 1 })
	other := prototest.Dial(t, address)
	other.Do("lock b 0", "l locked")
	_, err := newClient(t, address, Options{}).Lock(patient(t), "a", 20*time.Millisecond)
	wantText(t, err, "too many connections")
	failed := make(chan error, 1)
	waiting := lockLater(patient(t), newClient(t, address, Options{Trouble: func(_ string, err error) { failed <- err }}), "a", -1)
	wantText(t, <-failed, "too many connections")
	other.Close()
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	mustUnlock(t, got.lock)
}

// Trouble is reported once when it begins, however many attempts fail, and once when the call stands in the queue again.
func TestTrouble(t *testing.T) {
	address, stop := startServer(t, nil)
	r := startRelay(t, address)
	reports := make(chan error, 100)
	c := newClient(t, r.address, Options{Trouble: func(key string, err error) {
		if key != "a" {
			t.Errorf("the key is %q", key)
		}
		reports <- err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	prototest.Dial(t, address).Do("lock a 0", "l locked")
	waiting := lockLater(ctx, c, "a", -1)
	r.awaitCommand("lock a 9223372036854")
	before := r.count()
	stop()
	wantErr(t, <-reports, ErrConnectionLost)
	r.await("failed attempts", func() bool { return r.accepted > before+3 })
	address, _ = startServer(t, nil)
	prototest.Dial(t, address).Do("lock a 0", "l locked")
	r.update(func() { r.target = address })
	for want := range 2 {
		select {
		case err := <-reports:
			if (err == nil) != (want == 0) {
				t.Errorf("report %d: %v", want, err)
			}
		case <-time.After(prototest.Patience):
			t.Fatalf("no report %d", want)
		}
		r.cut()
	}
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
}

func TestPause(t *testing.T) {
	o := Options{}.withDefaults()
	for failed, most := range map[int]time.Duration{
		1:       50 * time.Millisecond,
		2:       100 * time.Millisecond,
		6:       1600 * time.Millisecond,
		7:       3200 * time.Millisecond,
		8:       5 * time.Second,
		1 << 40: 5 * time.Second,
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := o.pause(failed)
			if d < most/2 || d > most {
				t.Errorf("after %d attempts a pause of %s", failed, d)
			}
			seen[d] = true
		}
		if len(seen) < 50 {
			t.Errorf("after %d attempts %d pauses that differ", failed, len(seen))
		}
	}
	o = Options{Backoff: 1<<63 - 1}.withDefaults()
	if d := o.pause(100); d <= 0 {
		t.Errorf("the longest pause is %s", d)
	}
}
