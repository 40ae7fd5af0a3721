package reactor

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wanderer makes a session go to the other loop whenever that is possible, after everything it reads.
type wanderer struct {
	srv   *server
	moves atomic.Int64
}

func (w *wanderer) wander(s *session, data func(p []byte)) {
	s.moved = func(to int) {
		s.handler = w.srv.handlers[to]
		w.moves.Add(1)
	}
	s.data = func(p []byte) {
		data(p)
		if !s.conn.IsOpen() {
			return
		}
		l := s.handler.loop
		if s.conn.loop != l {
			w.srv.tb.Errorf("the connection is on loop %d, its client on %d", s.conn.loop.Index(), l.Index())
		}
		s.conn.TryMove(1 - l.Index())
	}
}

// What a peer sends while its connection moves to and fro comes in order, once, and so does the answer.
func TestMoveLosesNothing(t *testing.T) {
	srv := start(t, setup{loops: 2})
	var w wanderer
	w.srv = srv
	conn, s := srv.dial()
	s.do(t, func() { w.wander(s, s.conn.Write) })
	sent := bytes.Repeat([]byte("to and fro, "), 20_000)
	go func() {
		for i := 0; i < len(sent); i += 97 {
			if _, err := conn.Write(sent[i:min(i+97, len(sent))]); err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("the echo is not what was sent: %v", err)
	}
	eventually(t, "the connection has not moved", func() bool { // it does not while its echo waits for us to read
		send(t, conn, "once more")
		expect(t, conn, "once more")
		return w.moves.Load() > 0
	})
	t.Logf("%d moves", w.moves.Load())
	_ = conn.Close()
	if err := receive(t, s.ended, "the end was not told"); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v, want the end of the input", err)
	}
}

// A silent peer is probed as before, whatever the Go library does to the sockets that go through its hands.
func TestMoveKeepsOptions(t *testing.T) {
	srv := start(t, setup{loops: 2, keepAlive: 3 * time.Second})
	_, s := srv.dial()
	options := func() (all [3]int) {
		for i, option := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_USER_TIMEOUT} {
			var err error
			if all[i], err = unix.GetsockoptInt(s.conn.fd, unix.IPPROTO_TCP, option); err != nil {
				t.Error(err)
			}
		}
		return all
	}
	before, after := make(chan [3]int, 1), make(chan [3]int, 1)
	s.do(t, func() {
		s.moved = func(int) { after <- options() }
		before <- options()
		if !s.conn.TryMove(1 - s.handler.loop.Index()) {
			t.Error("it does not move")
		}
	})
	want := <-before
	if got := receive(t, after, "it has not arrived"); got != want || want[0] != 3 {
		t.Errorf("keepalive and user timeout are %v, want %v", got, want)
	}
}

// A peer that ends while its connection moves is told of once, however it ends.
func TestMoveMeetsEnd(t *testing.T) {
	srv := start(t, setup{loops: 2})
	var w wanderer
	w.srv = srv
	for i := range 200 {
		conn, s := srv.dial()
		s.do(t, func() { w.wander(s, func([]byte) {}) })
		send(t, conn, "x")
		switch i % 3 {
		case 0:
			_ = conn.Close()
		case 1:
			reset(t, conn)
		case 2:
			_ = conn.CloseWrite()
		}
		if err := receive(t, s.ended, "the end was not told"); err == nil {
			t.Error("the end of the peer looks like one of ours")
		}
	}
	for _, h := range srv.handlers {
		h.settleSockets(t) // a second call of Closed would keep a loop from answering
	}
	if w.moves.Load() == 0 {
		t.Error("no connection has moved")
	}
}

// A connection that cannot be taken to its loop ends there.
func TestMoveFails(t *testing.T) {
	srv := start(t, setup{loops: 2})
	_, s := srv.dial()
	r := s.handler.loop.reactor
	to := srv.handlers[1-s.handler.loop.Index()].loop
	arrived := -1
	s.do(t, func() {
		s.moved = func(to int) { arrived = to }
		sock := s.conn.sock
		s.conn.sock, s.conn.fd, s.conn.state = nil, -1, closed
		_ = s.conn.loop.events.Close(sock)
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // no socket
		if err != nil {
			t.Error(err)
		}
		moving := &transfer{conn: &s.conn, to: to, fd: fd}
		moving.message.Body = moving
		r.moving.Add(1)
		r.gate.begin()
		r.transit.begin()
		go moving.enroll()
	})
	if err := receive(t, s.ended, "the end was not told"); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("it ended with %v, want what went wrong", err)
	}
	if arrived != to.Index() {
		t.Error("it has not ended on its new loop")
	}
}

// A connection stays where it is while it is held back, while its peer does not read, and while too many others move.
func TestMoveRefused(t *testing.T) {
	srv := start(t, setup{loops: 2})
	conn, s := srv.dial()
	r := s.handler.loop.reactor
	refused := func(why string) {
		if s.conn.TryMove(1 - s.handler.loop.Index()) {
			t.Errorf("it moves although %s", why)
		}
	}
	s.do(t, func() {
		s.conn.Pause()
		refused("it is paused")
		s.conn.Resume()
		r.moving.Add(maxMoves)
		refused("too many others do")
		r.moving.Add(-maxMoves)
		r.transit.mu.Lock()
		r.transit.open = false
		r.transit.mu.Unlock()
		refused("the loops are about to end")
		r.transit.start()
		if n := r.moving.Load(); n != 0 {
			t.Errorf("%d connections are said to move, want none", n)
		}
		for s.conn.Unsent() == 0 {
			s.conn.Write(make([]byte, 1<<20))
		}
		refused("output is unsent")
	})
	_ = conn.Close()
	receive(t, s.ended, "the end was not told")
	s.do(t, func() { refused("it is closed") })
}

// Connections that are on their way when the loops end keep nobody from ending.
func TestStopWhileMoving(t *testing.T) {
	for range 20 {
		srv := start(t, setup{loops: 2})
		var w wanderer
		w.srv = srv
		for range 4 {
			conn, s := srv.dial()
			s.do(t, func() { w.wander(s, s.conn.Write) })
			go func() { // until the connection ends
				buf := make([]byte, 64)
				for err := error(nil); err == nil; _, err = conn.Read(buf) {
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
		}
		eventually(t, "nobody moves", func() bool { return w.moves.Load() > 10 })
		srv.stop()
	}
}
