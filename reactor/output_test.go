package reactor

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDrained has a peer read what was unsent: the client hears of it, more than once for much output, and all arrives in
// order.
func TestDrained(t *testing.T) {
	srv := start(t, setup{loops: 2})
	client, s := srv.dial()
	written, calls := 0, 0
	s.do(t, func() {
		s.drained = func() { calls++ }
		written = fill(t, &s.conn)
	})
	drain(t, client, written)
	s.allSent(t)
	s.do(t, func() {
		if calls == 0 {
			t.Error("Drained was not called")
		}
		s.conn.Write([]byte("more"))
	})
	expect(t, client, "more")
}

// TestHalfClose lets the server answer after the peer has ended its side, which is when the end comes.
func TestHalfClose(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	half := make(chan struct{})
	s.do(t, func() {
		s.lingers = true
		s.half = func() { close(half) }
		s.conn.Write([]byte("one "))
	})
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, half, "the end of the input was not noticed")
	s.handler.settleSockets(t) // gnet has closed its own descriptor
	s.do(t, func() {
		if !s.conn.IsOpen() || s.conn.ReadRest() {
			t.Errorf("half-closed: open %t, want true; or something is left to read", s.conn.IsOpen())
		}
		s.conn.Write([]byte("two"))
	})
	expect(t, client, "one two")
	s.do(t, func() { s.conn.CloseAfterOutput() })
	expectEnd(t, client)
	if err := receive(t, s.ended, "Closed was not called"); err != nil {
		t.Errorf("the connection ended with %v, want none", err)
	}
}

// TestHalfCloseNotWanted ends the connection of a peer that has ended its side, if the client has nothing left to say.
func TestHalfCloseNotWanted(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, client)
	if err := receive(t, s.ended, "Closed was not called"); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v, want %v", err, io.EOF)
	}
}

// TestReadRest has a peer send something in a pause and end its side. All of it comes when it is asked for.
func TestReadRest(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	half, all := make(chan struct{}), make(chan struct{})
	s.do(t, func() {
		s.conn.Pause()
		s.lingers = true
		s.half = func() { close(half) }
		s.data = func(p []byte) {
			if len(p) == 0 {
				if s.conn.ReadRest() {
					t.Error("there is more after the last piece")
				}
				close(all)
				return
			}
			s.input = append(s.input, p...)
			if !s.conn.ReadRest() {
				t.Error("no more after a piece")
			}
		}
	})
	var text pattern
	sent := offer(t, client, s, &text, 1) // a chunk that fits into the buffers, so that the end comes as well
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, half, "the end of the input was not noticed")
	s.do(t, func() {
		if !s.conn.ReadRest() {
			t.Error("nothing is left to read")
		}
	})
	receive(t, all, "the rest does not come")
	s.do(t, func() {
		if string(s.input) != string((&pattern{}).next(sent)) {
			t.Errorf("%d bytes came of %d, or damaged", len(s.input), sent)
		}
		s.conn.Close()
	})
	receive(t, s.ended, "Closed was not called")
}

// TestCloseAfterOutput ends the connection when the peer has read everything.
func TestCloseAfterOutput(t *testing.T) {
	srv := start(t, setup{linger: time.Hour})
	client, s := srv.dial()
	written := 0
	s.do(t, func() {
		written = fill(t, &s.conn)
		s.conn.CloseAfterOutput()
		if !s.conn.IsOpen() {
			t.Error("the connection is closed with output unsent")
		}
	})
	drain(t, client, written)
	expectEnd(t, client)
	if err := receive(t, s.ended, "Closed was not called"); err != nil {
		t.Errorf("the connection ended with %v, want none", err)
	}
}

// TestLinger ends connections whose peers do not read the rest of their output, half-closed ones and others, when their
// time is over.
func TestLinger(t *testing.T) {
	srv := start(t, setup{linger: time.Millisecond})
	_, last := srv.dial()
	last.do(t, func() {
		fill(t, &last.conn)
		last.conn.CloseAfterOutput()
	})
	client, half := srv.dial()
	closing := make(chan struct{})
	half.do(t, func() {
		half.lingers = true
		half.half = func() {
			fill(t, &half.conn)
			close(closing)
		}
	})
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, closing, "the end of the input was not noticed")
	for _, s := range []*session{last, half} {
		if err := receive(t, s.ended, "Closed was not called"); !errors.Is(err, errNotReading) {
			t.Errorf("the connection ended with %v, want %v", err, errNotReading)
		}
	}
}

// TestServedMayRead keeps the connection of a peer that does not read and is not lost, however long that takes.
func TestServedMayRead(t *testing.T) {
	srv := start(t, setup{linger: time.Millisecond})
	client, s := srv.dial()
	written := 0
	s.do(t, func() { written = fill(t, &s.conn) })
	looks, due := 0, Tick(0)
	eventually(t, "nobody looks at a peer that lags", func() bool {
		s.do(t, func() {
			if timer := &s.conn.judgement.timer; timer.due > due {
				looks, due = looks+1, timer.due
			}
		})
		return looks > 2
	})
	drain(t, client, written)
	s.allSent(t)
}

// TestHalfClosedReset resets half-closed connections with output unsent: that is noticed when it is written.
func TestHalfClosedReset(t *testing.T) {
	srv := start(t, setup{linger: time.Hour})
	client, s := srv.dial()
	half := make(chan struct{})
	s.do(t, func() {
		s.lingers = true
		s.half = func() {
			fill(t, &s.conn)
			close(half)
		}
	})
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, half, "the end of the input was not noticed")
	reset(t, client)
	if err := receive(t, s.ended, "the reset was not noticed"); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

// TestStaleRoom lets word of room in a socket cross the end of its connection, and a new watch of the same connection: it
// is for neither.
func TestStaleRoom(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	written := 0
	s.do(t, func() {
		written = fill(t, &s.conn)
		old := s.conn.output.room
		s.conn.unwatchOutput()
		s.conn.watchOutput()
		before := s.conn.Unsent()
		old.arrived()
		if s.conn.output.room == old || s.conn.output.room == nil || s.conn.Unsent() != before {
			t.Error("word of a watch that is over was taken for another")
		}
	})
	drain(t, client, written)
	s.allSent(t)
	s.do(t, func() {
		fill(t, &s.conn)
		room := s.conn.output.room
		s.conn.Close()
		room.arrived()
	})
	receive(t, s.ended, "Closed was not called")
	s.do(t, func() {
		w := s.handler.loop.reactor.outputs
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.waiting) != 0 {
			t.Errorf("%d watches are left of closed connections", len(w.waiting))
		}
	})
}

// TestStopHalfClosed stops a server with half-closed connections: their descriptors are closed as well.
func TestStopHalfClosed(t *testing.T) {
	serve := func() {
		srv := start(t, setup{linger: time.Hour})
		client, s := srv.dial()
		half := make(chan struct{})
		s.do(t, func() {
			s.lingers = true
			s.half = func() { close(half) }
		})
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		receive(t, half, "the end of the input was not noticed")
		srv.stop()
		expectEnd(t, client)
		_ = client.Close()
	}
	serve()
	before := len(descriptors(t))
	serve()
	if after := len(descriptors(t)); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
