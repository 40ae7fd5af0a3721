package reactor

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// on runs f on one loop, as Each does on all.
func (s *Standstill) on(loop int, f func(l *Loop)) error {
	return s.Each(func(l *Loop) {
		if l.Index() == loop {
			f(l)
		}
	})
}

// stand has the loops of a server stand still.
func (srv *server) stand(bound time.Duration) *Standstill {
	srv.tb.Helper()
	s, err := srv.handlers[0].loop.Reactor().StandStill(srv.tb.Context(), bound)
	if err != nil {
		srv.tb.Fatal(err)
	}
	srv.tb.Cleanup(s.Release)
	return s
}

// TestStandStill has loops do nothing but the tasks that they get, on their own goroutines, and go on afterwards.
func TestStandStill(t *testing.T) {
	const loops = 3
	srv := start(t, setup{loops: loops, handler: echoing})
	client, _ := srv.dial()
	for range 10 {
		s := srv.stand(time.Hour)
		if _, err := srv.handlers[0].loop.reactor.StandStill(t.Context(), time.Hour); err == nil {
			t.Error("they stand still twice at a time")
		}
		var turns [loops]int64
		var ran [loops]int
		task := func(l *Loop) {
			l.AssertOn("the loop")
			turns[l.Index()] = srv.handlers[l.Index()].turns.Load()
			ran[l.Index()]++
		}
		if err := s.Each(task); err != nil {
			t.Fatal(err)
		}
		send(t, client, "echo")
		for i, h := range srv.handlers {
			h.loop.wake()
			if err := s.on(i, func(l *Loop) { task(l) }); err != nil {
				t.Fatal(err)
			}
			if now := h.turns.Load(); now != turns[i] || ran[i] != 2 {
				t.Errorf("loop %d has run %d turns and %d tasks, want 0 and 2", i, now-turns[i], ran[i])
			}
		}
		s.Release()
		s.Release()
		expect(t, client, "echo")
		if err := s.Each(func(*Loop) { t.Error("a task runs on a loop that goes on") }); !errors.Is(err, ErrReleased) {
			t.Errorf("a task afterwards: %v, want %v", err, ErrReleased)
		}
		if s.Commit() || s.Quiet(func(*Message) bool { return false }) {
			t.Error("loops that go on are committed, or quiet")
		}
	}
}

// TestStandStillAtOnce has the tasks of different loops run at the same time.
func TestStandStillAtOnce(t *testing.T) {
	srv := start(t, setup{loops: 2})
	s := srv.stand(time.Hour)
	meet := make(chan struct{})
	err := s.Each(func(l *Loop) {
		select {
		case meet <- struct{}{}:
		case <-meet:
		case <-time.After(patience):
			t.Error("one runs after the other")
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestStandStillBound has the loops go on when nobody lets them, unless somebody has committed.
func TestStandStillBound(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: echoing})
	client, _ := srv.dial()
	s := srv.stand(10 * time.Millisecond)
	send(t, client, "echo")
	expect(t, client, "echo")
	if s.Commit() {
		t.Error("a standstill that is over is committed")
	}
	s = srv.stand(time.Hour)
	if !s.Commit() || s.Commit() {
		t.Error("a standstill cannot be committed, or can be twice")
	}
	if s.bound.Stop() {
		t.Error("the bound is not off")
	}
	s.bound.Reset(0) // as if it had been over at this very moment
	receive(t, time.After(50*time.Millisecond), "no time goes by")
	if err := s.Each(func(*Loop) {}); err != nil {
		t.Errorf("a task after the commit: %v", err)
	}
	s.Release()
	send(t, client, "echo")
	expect(t, client, "echo")
}

// TestCommitOrRelease has both come at the same time, again and again: one of them wins, and the loops do what that says.
func TestCommitOrRelease(t *testing.T) {
	srv := start(t, setup{loops: 2})
	for range 200 {
		s := srv.stand(time.Hour)
		letGo := make(chan bool, 1)
		go func() { letGo <- s.release(standing) }()
		won := s.Commit()
		if receive(t, letGo, "release does not return") == won {
			t.Fatalf("committed: %t, and released: %t", won, won)
		}
		if err := s.Each(func(*Loop) {}); won && err != nil {
			t.Fatalf("committed, and a task gets %v", err)
		}
		s.Release()
	}
	srv.handlers[0].do(t, func() {})
}

// TestStandStillBusy gives up when a loop does not stand still within the bound, or when nobody waits any more. The others go on,
// and so does that one, later.
func TestStandStillBusy(t *testing.T) {
	srv := start(t, setup{loops: 2})
	r := srv.handlers[0].loop.reactor
	release := srv.handlers[1].hold(t)
	if _, err := r.StandStill(t.Context(), 10*time.Millisecond); !errors.Is(err, ErrReleased) {
		t.Errorf("with a busy loop: %v, want %v", err, ErrReleased)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.StandStill(ctx, time.Hour); !errors.Is(err, ErrReleased) || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v, want %v and %v", err, ErrReleased, context.Canceled)
	}
	srv.handlers[0].do(t, func() {})
	release()
	srv.handlers[1].do(t, func() {})
	srv.stand(time.Hour).Release()
}

// TestStandStillDeaf has a loop stand still although the machine fails to wake it at first.
func TestStandStillDeaf(t *testing.T) {
	srv := start(t, setup{loops: 2})
	failures := failWakes(t, unix.ENOMEM)
	s := srv.stand(patience)
	if failures.Load() == 0 {
		t.Error("nothing has failed")
	}
	s.Release()
}

// TestQuiet tells what is under way from what is not: messages wherever they wait, ends of connections, moves.
func TestQuiet(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: func(h *handler) { h.receive = func(*Message) {} }})
	_, session := srv.dial()
	l := session.handler.loop
	other := 1 - l.Index()
	r := l.reactor
	all := func(*Message) bool { return true }
	none := func(*Message) bool { return false }
	newMessage := func() *Message { return &Message{Body: "a message"} }

	quiet := func(matters func(*Message) bool, do func(l *Loop)) bool {
		t.Helper()
		for _, at := range []int{l.Index(), other} { // what the last one has left
			srv.handlers[at].do(t, func() {})
		}
		s := srv.stand(time.Hour)
		defer s.Release()
		if !s.Quiet(all) {
			t.Error("not quiet with nothing under way")
		}
		if err := s.on(l.Index(), do); err != nil {
			t.Fatal(err)
		}
		return s.Quiet(matters)
	}
	for name, do := range map[string]func(l *Loop){
		"in the mailbox": func(l *Loop) { l.Send(newMessage()) },
		"deep in the mailbox": func(l *Loop) {
			l.Send(newMessage())
			l.Send(&Message{Body: &room{conn: &Conn{}}})
		},
		"taken": func(l *Loop) {
			l.Send(newMessage())
			l.inbox = l.mailbox.take()
		},
		"posted": func(l *Loop) { l.Post(other, newMessage()) },
	} {
		if quiet(all, do) {
			t.Errorf("quiet with a message %s", name)
		}
		if !quiet(none, do) {
			t.Errorf("not quiet with a message %s that does not matter", name)
		}
	}
	if !quiet(all, func(l *Loop) { l.Send(&Message{Body: &room{conn: &Conn{}}}) }) {
		t.Error("not quiet with nothing but word of room in a socket")
	}
	if quiet(none, func(*Loop) { r.moving.Add(1) }) {
		t.Error("quiet while a connection moves")
	}
	r.moving.Add(-1)
	if quiet(none, func(*Loop) { session.conn.Close() }) {
		t.Error("quiet while a connection is about to be closed")
	}
	receive(t, session.ended, "it is not closed after the standstill")
}

// TestStandStillEndsTurn has a loop stand still with the turn before it ended: what it has posted has left.
func TestStandStillEndsTurn(t *testing.T) {
	var got atomic.Int64
	srv := start(t, setup{loops: 2, handler: func(h *handler) { h.receive = func(*Message) { got.Add(1) } }})
	l := srv.handlers[0].loop
	c := &call{done: make(chan struct{}), f: func() { l.Post(1, &Message{Body: "a message"}) }}
	c.message.Body = c
	release := srv.handlers[0].hold(t)
	l.Send(&c.message)
	go release()
	s := srv.stand(time.Hour)
	if err := s.on(0, func(l *Loop) {
		if len(l.posted) > 0 {
			t.Error("what the turn has posted has not left")
		}
	}); err != nil {
		t.Error(err)
	}
	s.Release()
	eventually(t, "the message does not come", func() bool { return got.Load() == 1 })
}

// BenchmarkStandStill has two idle loops stand still, run a task and go on.
func BenchmarkStandStill(b *testing.B) {
	srv := start(b, setup{loops: 2})
	r := srv.handlers[0].loop.reactor
	for b.Loop() {
		s, err := r.StandStill(b.Context(), time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Each(func(*Loop) {}); err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}
