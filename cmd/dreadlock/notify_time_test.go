package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// What the notifier does as time goes by, in virtual time.

// fakeServer says what it is told to say.
type fakeServer struct {
	mu     sync.Mutex
	status api.Status
	hangs  bool // a loop does not answer
	asked  int  // how often
}

// change changes what it says.
func (f *fakeServer) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeServer) Status(ctx context.Context) (*api.Status, error) {
	if err := f.Alive(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.status
	return &st, nil
}

func (f *fakeServer) Alive(ctx context.Context) error {
	f.mu.Lock()
	f.asked++
	hangs := f.hangs
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return fmt.Errorf("%w: 1 of 2 loops do not answer", api.ErrUnavailable)
	}
	return nil
}

// bubble is a notifier in virtual time.
type bubble struct {
	n        *notifier
	server   fakeServer
	requests chan os.Signal
	messages chan string // has room for all
	log      bytes.Buffer
	stop     func() // ends the notifier
}

// inBubble calls f while a notifier runs. Unless it is told so, nobody is told anything.
func inBubble(t *testing.T, watchdog time.Duration, told bool, reload func(), f func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{requests: make(chan os.Signal, 1), messages: make(chan string, 1000)}
		b.n = &notifier{log: zerolog.New(&b.log), period: statusPeriod, watchdog: watchdog, ready: make(chan struct{})}
		if told {
			b.n.send = func(message string) error {
				b.messages <- message
				return nil
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			b.n.run(ctx, &b.server, b.requests, reload)
		}()
		b.stop = func() {
			cancel()
			<-ended
		}
		defer b.stop()
		f(b)
	})
}

// in returns what was sent in that time from now.
func (b *bubble) in(d time.Duration) (messages []string) {
	<-time.After(d)
	synctest.Wait()
	for len(b.messages) > 0 {
		messages = append(messages, <-b.messages)
	}
	return messages
}

func (b *bubble) want(t *testing.T, d time.Duration, want ...string) {
	t.Helper()
	if got := b.in(d); !slices.Equal(got, want) {
		t.Fatalf("in %s systemd is told %q, want %q", d, got, want)
	}
}

const (
	alive   = "WATCHDOG=1"
	nothing = "STATUS=serving 0 connections, 0 keys held, 0 waiting"
)

// The sign of life comes in time while all loops answer, and not at all while one of them hangs.
func TestWatchdog(t *testing.T) {
	inBubble(t, 30*time.Second, true, nil, func(b *bubble) {
		b.want(t, time.Hour) // not yet: it does not serve
		b.n.serving("")
		b.want(t, 0, "READY=1\nSTATUS=serving", nothing)
		b.want(t, 61*time.Second, alive, alive, alive, alive)
		if b.log.Len() > 0 {
			t.Errorf("the log says %s", &b.log)
		}
		b.server.change(func() { b.server.hangs = true })
		b.want(t, 5*time.Minute)
		if !strings.Contains(b.log.String(), "no sign of life") || !strings.Contains(b.log.String(), "1 of 2 loops") {
			t.Errorf("the log says %s", &b.log)
		}
		b.server.change(func() { b.server.hangs = false })
		b.want(t, 30*time.Second, alive, alive)
		b.stop()
		b.want(t, time.Hour, "STOPPING=1\nSTATUS=stopping")
	})
}

// Without a watchdog, and while nothing changes, nothing is sent. A loop that hangs is no change.
func TestStatusOnChange(t *testing.T) {
	inBubble(t, 0, true, nil, func(b *bubble) {
		b.n.serving("")
		b.want(t, time.Hour, "READY=1\nSTATUS=serving", nothing)
		b.server.change(func() { b.server.status = api.Status{Connections: 2, HeldKeys: 1, Waiters: 3} })
		b.want(t, statusPeriod, "STATUS=serving 2 connections, 1 key held, 3 waiting")
		b.server.change(func() { b.server.hangs = true })
		b.want(t, time.Minute)
		b.server.change(func() { b.server.hangs, b.server.status = false, api.Status{} })
		b.want(t, statusPeriod+statusTime, nothing)
	})
}

// In a drain the daemon is about to end, and has the time for that.
func TestNotifyDrain(t *testing.T) {
	inBubble(t, 0, true, nil, func(b *bubble) {
		b.n.serving("")
		b.want(t, 0, "READY=1\nSTATUS=serving", nothing)
		b.n.draining(time.Now().Add(time.Hour))
		b.n.draining(time.Now().Add(-time.Second))
		b.server.change(func() { b.server.status = api.Status{Connections: 2, HeldKeys: 2, Drain: &api.Drain{}} })
		b.want(t, statusPeriod, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=3610000000",
			"STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=10000000", "STATUS=draining 2 connections, 2 keys held, 0 waiting")
		b.stop()
		b.want(t, time.Hour, "STOPPING=1\nSTATUS=stopping")
	})
}

// Where nobody is to be told, nobody asks the loops either, and SIGHUP still reloads.
func TestNobodyToTell(t *testing.T) {
	reloads := 0
	inBubble(t, 0, false, func() { reloads++ }, func(b *bubble) {
		b.n.serving("")
		b.in(24 * time.Hour)
		b.requests <- syscall.SIGHUP
		b.want(t, 0)
		if reloads != 1 || b.server.asked > 0 {
			t.Errorf("%d reloads, and the loops were asked %d times, want 1 and 0", reloads, b.server.asked)
		}
	})
}

// A reload that takes long, as from a file system that hangs, does not end the signs of life. One that is asked for before
// the daemon serves waits until it does, or systemd would take its end for the end of the start.
func TestLongReload(t *testing.T) {
	var release chan struct{}
	inBubble(t, time.Minute, true, func() { <-release }, func(b *bubble) {
		release = make(chan struct{})
		b.requests <- syscall.SIGHUP
		b.want(t, time.Hour)
		b.n.serving("")
		got := b.in(0)
		if len(got) != 3 || got[0] != "READY=1\nSTATUS=serving" || got[1] != nothing || !strings.HasPrefix(got[2], "RELOADING=1\nMONOTONIC_USEC=") {
			t.Fatalf("systemd is told %q", got)
		}
		b.want(t, 2*time.Minute, alive, alive, alive, alive)
		close(release)
		b.want(t, 0, "READY=1\n"+nothing)
	})
}

// A daemon that stops before it serves was ready at no moment.
func TestStopBeforeServing(t *testing.T) {
	inBubble(t, time.Minute, true, nil, func(b *bubble) {
		b.stop()
		b.want(t, time.Hour, "STOPPING=1\nSTATUS=stopping")
	})
}
