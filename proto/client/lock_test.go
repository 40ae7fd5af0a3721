package client

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

func TestLockAndUnlock(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	l := mustLock(t, c, "a")
	if l.Key() != "a" {
		t.Errorf("key %q", l.Key())
	}
	_, err := c.TryLock(patient(t), "a")
	wantErr(t, err, ErrTimeout)
	if got, want := err.Error(), `lock "a": client: timed out waiting for the key`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other, err := c.TryLock(patient(t), "A")
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, other)
	mustUnlock(t, l)
	l, err = c.TryLock(patient(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, l)
}

func TestWaitRunsOut(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	l := mustLock(t, c, "a")
	const wait = 20*time.Millisecond + 1
	began := time.Now()
	_, err := c.Lock(patient(t), "a", wait)
	wantErr(t, err, ErrTimeout)
	if waited := time.Since(began); waited < wait {
		t.Errorf("waited %s of %s", waited, wait)
	}
	mustUnlock(t, l)
}

// The timeout that is sent for a wait, on a new connection and on an idle one.
func TestWait(t *testing.T) {
	for _, tc := range []struct {
		wait time.Duration
		want string
	}{
		{0, "lock a 0"},
		{-1, "lock a 9223372036854"},
		{math.MinInt64, "lock a 9223372036854"},
	} {
		address, _ := startServer(t, nil)
		r := startRelay(t, address)
		c := newClient(t, r.address, Options{})
		for range 2 {
			l, err := c.Lock(patient(t), "a", tc.wait)
			if err != nil {
				t.Fatal(err)
			}
			mustUnlock(t, l)
		}
		r.await("the commands", func() bool { return len(r.commands) == 4 })
		if got, want := r.said(), []string{tc.want, "unlock a", tc.want, "unlock a"}; !slices.Equal(got, want) {
			t.Errorf("wait %d: %q, want %q", tc.wait, got, want)
		}
	}
}

func TestKeyThatCannotBeSent(t *testing.T) {
	c := newClient(t, "nowhere", Options{})
	for key, want := range map[string]error{
		"":                                  proto.ErrEmptyKey,
		"a b":                               proto.ErrKeyByte,
		"a\r\n":                             proto.ErrKeyByte,
		strings.Repeat("k", proto.MaxKey+1): proto.ErrKeyTooLong,
	} {
		_, err := c.Lock(patient(t), key, time.Second)
		wantErr(t, err, want)
		if len(err.Error()) > 200 {
			t.Errorf("%d bytes: %.99s", len(err.Error()), err)
		}
	}
}

func TestLongestKey(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	l, err := c.Lock(patient(t), strings.Repeat("k", proto.MaxKey), -1)
	if err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, l)
}

// Unlock ends the context and does not close Lost, not even when the connection ends later.
func TestUnlock(t *testing.T) {
	address, stop := startServer(t, nil)
	c := newClient(t, address, Options{})
	l := mustLock(t, c, "a")
	if err := l.Context().Err(); err != nil {
		t.Fatalf("the context of a held lock: %v", err)
	}
	mustUnlock(t, l)
	wantErr(t, l.Context().Err(), context.Canceled)
	wantErr(t, context.Cause(l.Context()), ErrUnlocked)

	next := mustLock(t, c, "a") // on the same connection
	wantErr(t, l.Unlock(patient(t)), ErrUnlocked)
	_, err := c.TryLock(patient(t), "a")
	wantErr(t, err, ErrTimeout)
	stop()
	mustEnd(t, "the loss of the second lock", next.Lost())
	wantErr(t, l.Unlock(patient(t)), ErrUnlocked)
	if isClosed(l.Lost()) {
		t.Error("a lock that was unlocked is lost")
	}
}

// Of several concurrent Unlocks one succeeds.
func TestUnlockTogether(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	for range 20 {
		l := mustLock(t, c, "a")
		errs := make(chan error, 4)
		for range cap(errs) {
			go func() { errs <- l.Unlock(patient(t)) }()
		}
		done := 0
		for range cap(errs) {
			if err := <-errs; err == nil {
				done++
			} else {
				wantErr(t, err, ErrUnlocked)
			}
		}
		if done != 1 {
			t.Fatalf("%d unlocks", done)
		}
	}
}

// The context of a lock has the values of the one that it is derived from, and ends with it; the lock does not.
func TestContextOfLock(t *testing.T) {
	type name struct{}
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.WithValue(patient(t), name{}, "value"))
	l, err := c.Lock(ctx, "a", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Context().Value(name{}); got != "value" {
		t.Errorf("value %v", got)
	}
	cancel(reason)
	mustEnd(t, "the end of the context", l.Context().Done())
	wantErr(t, context.Cause(l.Context()), reason)
	if isClosed(l.Lost()) {
		t.Error("the lock is lost")
	}
	_, err = c.TryLock(patient(t), "a")
	wantErr(t, err, ErrTimeout)
	mustUnlock(t, l)
	wantErr(t, context.Cause(l.Context()), reason)
}

// The race detector would see two holders at a time.
func TestContention(t *testing.T) {
	address, _ := startServer(t, nil)
	c := newClient(t, address, Options{MaxIdle: 3})
	const goroutines, times = 16, 25
	counter := 0
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for range times {
				l, err := c.Lock(patient(t), "counter", prototest.Patience)
				if err != nil {
					t.Error(err)
					return
				}
				counter++
				if err := l.Unlock(patient(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if counter != goroutines*times {
		t.Errorf("counted to %d, want %d", counter, goroutines*times)
	}
}
