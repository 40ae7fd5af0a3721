package reactor

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPauseAccepting has clients connect all the time while accepting pauses again and again, on TCP and Unix sockets: in a pause
// nobody is accepted, and in the end all are served.
func TestPauseAccepting(t *testing.T) {
	const clients, pauses = 200, 10
	var opened atomic.Int64
	local := unixListener(t)
	prepared := &Listener{Listener: listen(t), Prepare: func(context.Context, net.Conn, any) (Prepared, error) {
		return Prepared{Input: []byte("prepared")}, nil
	}}
	srv := start(t, setup{
		loops:     2,
		listeners: []*Listener{local, prepared},
		handler:   func(h *handler) { h.opened = func(*session) { opened.Add(1) } },
		abandoned: func(_ any, err error) { t.Errorf("a connection is given up: %v", err) },
	})
	r := srv.handlers[0].loop.reactor
	var dialers sync.WaitGroup
	defer dialers.Wait()
	for _, way := range [][2]string{{"tcp", srv.address}, {"unix", local.Addr().String()}, {"tcp", prepared.Addr().String()}} {
		dialers.Go(func() {
			for range clients {
				conn, err := net.DialTimeout(way[0], way[1], patience)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				defer conn.Close()
			}
		})
	}
	for range pauses {
		if err := r.PauseAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.PauseAccepting(t.Context()); err == nil {
			t.Fatal("accepting pauses twice")
		}
		before := opened.Load()
		for _, h := range srv.handlers {
			h.settleSockets(t)
		}
		if now := opened.Load(); now != before {
			t.Fatalf("%d connections are served in a pause", now-before)
		}
		r.ResumeAccepting()
		r.ResumeAccepting()
		if before < 3*clients {
			eventually(t, "nobody is accepted after a pause", func() bool { return opened.Load() > before })
		}
	}
	eventually(t, "a connection is lost", func() bool { return opened.Load() == 3*clients })
}

// TestPauseAcceptingIsNoError counts what a pause leaves: no error of accept, and no line in the log.
func TestPauseAcceptingIsNoError(t *testing.T) {
	var log lockedBuffer
	srv := start(t, setup{
		log:     &log,
		failed:  func(reason string) { t.Errorf("accept has failed: %s", reason) },
		handler: echoing,
	})
	r := srv.handlers[0].loop.reactor
	for range 5 {
		if err := r.PauseAccepting(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.ResumeAccepting()
		expectEcho(t, srv.address)
	}
	if log.contains("accept") {
		t.Error("a pause is logged as an error of accept")
	}
}

// TestPauseAcceptingAbandons gives up a connection that does not get ready: it is reported with why, and accepting resumes as if
// nothing had happened.
func TestPauseAcceptingAbandons(t *testing.T) {
	preparing, abandoned := make(chan struct{}, 1), make(chan error, 1)
	var slow atomic.Bool
	slow.Store(true)
	listener := &Listener{Listener: listen(t), Prepare: func(ctx context.Context, _ net.Conn, _ any) (Prepared, error) {
		if !slow.Load() {
			return Prepared{}, nil
		}
		preparing <- struct{}{}
		<-ctx.Done()
		return Prepared{}, errors.New("interrupted")
	}}
	srv := start(t, setup{
		handler:   echoing,
		listeners: []*Listener{listener},
		abandoned: func(_ any, err error) { abandoned <- err },
	})
	r := srv.handlers[0].loop.reactor
	lost := dial(t, listener.Addr().String())
	receive(t, preparing, "the connection is not prepared")
	if err := r.PauseAccepting(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, abandoned, "the connection is not reported"); !errors.Is(err, errPaused) {
		t.Errorf("it is given up for %v, want %v", err, errPaused)
	}
	expectEnd(t, lost)
	slow.Store(false)
	r.ResumeAccepting()
	expectEcho(t, listener.Addr().String())
}

// TestPauseAcceptingFails when a loop does not take the connection that is on its way to it, and for a listener that cannot be
// interrupted. Accepting goes on.
func TestPauseAcceptingFails(t *testing.T) {
	t.Run("busy loop", func(t *testing.T) {
		srv := start(t, setup{handler: echoing})
		r := srv.handlers[0].loop.reactor
		release := srv.handlers[0].hold(t)
		waits := dial(t, srv.address)
		eventually(t, "the connection is not accepted", func() bool {
			r.gate.mu.Lock()
			defer r.gate.mu.Unlock()
			return r.gate.count == 2 // it, and the acceptor
		})
		if err := r.PauseAccepting(t.Context()); err == nil {
			t.Error("accepting pauses although a connection is on its way")
		}
		release()
		send(t, waits, "echo")
		expect(t, waits, "echo")
		expectEcho(t, srv.address)
	})
	t.Run("listener", func(t *testing.T) {
		deaf := &Listener{Listener: &unreliable{Listener: listen(t)}}
		srv := start(t, setup{handler: echoing, listeners: []*Listener{deaf}})
		if err := srv.handlers[0].loop.reactor.PauseAccepting(t.Context()); err == nil {
			t.Error("accepting pauses although a listener takes no deadline")
		}
		expectEcho(t, srv.address)
		expectEcho(t, deaf.Addr().String())
	})
}

// TestPauseAcceptingStopsMoves has no connection move in a pause, and waits for one that does.
func TestPauseAcceptingStopsMoves(t *testing.T) {
	srv := start(t, setup{loops: 2})
	r := srv.handlers[0].loop.reactor
	_, s := srv.dial()
	moved := make(chan int, 1)
	to := 1 - s.handler.loop.Index()
	s.do(t, func() {
		s.moved = func(to int) {
			s.handler = srv.handlers[to]
			moved <- to
		}
		if !s.conn.TryMove(to) {
			t.Error("it does not move")
		}
	})
	if err := r.PauseAccepting(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-moved:
	default:
		t.Error("the pause has not waited for a move")
	}
	s.do(t, func() {
		if s.conn.TryMove(1 - to) {
			t.Error("it moves in a pause")
		}
	})
	r.ResumeAccepting()
	s.do(t, func() {
		if !s.conn.TryMove(1 - to) {
			t.Error("it does not move after the pause")
		}
	})
	receive(t, moved, "it does not arrive")
}

// TestStopWhilePaused stops a server that does not accept, or has its loops stand still for a while.
func TestStopWhilePaused(t *testing.T) {
	srv := start(t, setup{loops: 2})
	r := srv.handlers[0].loop.reactor
	if err := r.PauseAccepting(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv.stand(100 * time.Millisecond)
	srv.stop()
}
