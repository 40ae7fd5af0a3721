package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

// A context that ends takes its waiter out of the queue at once, and the next waiter moves up.
func TestCancelLeavesQueue(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	holder, next := prototest.Dial(t, address), prototest.Dial(t, address)
	holder.Do("lock a 0", "l locked")

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiting := lockLater(ctx, c, "a", -1)
	r.awaitCommand("lock a 9223372036854")
	next.Send("lock a 30000")
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
	r.awaitOpen(0)
	holder.Do("unlock a", "u unlocked")
	next.Expect("l locked")
}

func TestDeadlineWhileWaiting(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	l := mustLock(t, c, "a")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Lock(ctx, "a", -1)
	wantErr(t, err, context.DeadlineExceeded)
	if errors.Is(err, ErrTimeout) {
		t.Errorf("%v: that is for the wait", err)
	}
	mustUnlock(t, l)
}

// The grant and the end of the context meet: either there is a lock, or the key is free. The time between the two adapts,
// so that each comes first about as often.
func TestCancelRacesGrant(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	holder := prototest.Dial(t, address)
	times, granted, head := 300, 0, 100*time.Microsecond
	if testing.Short() {
		times = 60
	}
	for n := range times {
		holder.Do("lock a 30000", "l locked")
		ctx, cancel := context.WithCancel(context.Background())
		waiting := lockLater(ctx, c, "a", -1)
		r.await("the request", func() bool { return len(r.commands) == n+granted+1 })
		holder.Do("unlock nobodys", "e not locked")
		unlocked := time.Now()
		holder.Send("unlock a")
		for time.Since(unlocked) < head {
			runtime.Gosched()
		}
		cancel()
		got := <-waiting
		holder.Expect("u unlocked")
		if got.err == nil {
			granted++
			head -= head / 10
			mustUnlock(t, got.lock)
			r.await("the unlock", func() bool { return len(r.commands) == n+granted+1 })
		} else {
			wantErr(t, got.err, context.Canceled)
			head += head / 10
		}
	}
	t.Logf("%d of %d were granted", granted, times)
	if granted == 0 || granted == times {
		t.Errorf("%d of %d were granted: there was no race", granted, times)
	}
}

func TestContextEndedBefore(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 { // without an idle connection and with one
		_, err := c.TryLock(ended, "a")
		wantErr(t, err, context.Canceled)
		mustUnlock(t, mustLock(t, c, "a"))
	}
	if n := r.count(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// An unlock whose context has ended closes the connection, which unlocks as well.
func TestUnlockWithoutTime(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	c := newClient(t, r.address, Options{})
	l := mustLock(t, c, "a")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := l.Unlock(ctx)
	wantErr(t, err, context.Canceled)
	if got, want := err.Error(), "unlock a: context canceled"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if isClosed(l.Lost()) {
		t.Error("lost by Unlock")
	}
	wantErr(t, l.Unlock(patient(t)), ErrUnlocked)
	r.awaitOpen(0)
	mustUnlock(t, mustLock(t, c, "a"))
}

// The same while the answer to the unlock is outstanding.
func TestUnlockRunsOutOfTime(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		reply(conn, "l locked\r\n")
		for takeLine(conn) {
		}
	}), Options{})
	l := mustLock(t, c, "a")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	wantErr(t, l.Unlock(ctx), context.DeadlineExceeded)
}

// A server that reads nothing and writes nothing delays no call beyond its context: the kernel accepts the connection and
// even the longest commands.
func TestServerThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, fence := range []bool{false, true} {
		c := newClient(t, l.Addr().String(), Options{Fence: fence})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		_, err = c.TryLock(ctx, strings.Repeat("k", proto.MaxKey))
		cancel()
		wantErr(t, err, context.DeadlineExceeded)
	}
}

// A context that ends between two attempts ends the call.
func TestCancelBetweenAttempts(t *testing.T) {
	dialled := make(chan struct{}, 1)
	c := newClient(t, listen(t, func(*net.TCPConn) { dialled <- struct{}{} }), Options{Backoff: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiting := lockLater(ctx, c, "a", -1)
	<-dialled
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
}

// A host that does not answer a dial: the backlog of its port is full.
func TestDialThatHangs(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0))
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	prototest.Dial(t, address) // there is room for one

	c := newClient(t, address, Options{Attempts: 1})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = c.TryLock(ctx, "a")
	wantErr(t, err, context.DeadlineExceeded)
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = c.TryLock(ctx, "a")
	wantErr(t, err, context.Canceled)

	c = newClient(t, address, Options{Attempts: 2, DialTimeout: 10 * time.Millisecond})
	_, err = c.TryLock(patient(t), "a")
	wantErr(t, err, ErrUnreachable)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}
