package reactor

import "testing"

// TestSip reads a paused connection in sips: each brings a little, in order, and nothing comes unasked.
func TestSip(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, s.conn.Pause)
	var text pattern
	sent := string(text.next(3*sipBytes - 10))
	send(t, client, sent)
	got := func() (n int) {
		s.handler.settleSockets(t)
		s.do(t, func() {
			n = len(s.input)
			if string(s.input) != sent[:n] {
				t.Errorf("what came is damaged, somewhere in %d bytes", n)
			}
		})
		return n
	}
	for i, want := range []int{sipBytes, 2 * sipBytes, len(sent), len(sent)} {
		if n := got(); n != min(i*sipBytes, len(sent)) {
			t.Fatalf("%d bytes after %d sips", n, i)
		}
		s.do(t, func() {
			s.conn.Sip()
			s.conn.Sip() // is the same one
		})
		eventually(t, "the sip does not come", func() bool { return got() == want })
	}
	s.do(t, s.conn.Resume)
	send(t, client, "rest")
	sent += "rest"
	eventually(t, "what follows the sips does not come", func() bool { return got() == len(sent) })
}

// TestSipNotPaused: who is not paused is not read by sips, and a connection that has ended since is left alone.
func TestSipNotPaused(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, s.conn.Sip)
	send(t, client, "once")
	eventually(t, "input does not come", func() (came bool) {
		s.do(t, func() { came = string(s.input) == "once" })
		return came
	})
	s.do(t, func() {
		s.conn.Pause()
		s.conn.Sip()
		s.conn.Close()
	})
	if err := receive(t, s.ended, "it does not end"); err != nil {
		t.Errorf("it ended by %v", err)
	}
	s.handler.settleSockets(t)
}

// memory returns what the loop counts.
func (h *handler) memory(tb testing.TB) (n int64) {
	tb.Helper()
	h.do(tb, func() { n = h.loop.Memory() })
	return n
}

// TestMemory: what a peer does not read is counted for as long as it is kept.
func TestMemory(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	if n := s.handler.memory(t); n != 0 {
		t.Errorf("%d bytes for an idle connection", n)
	}
	written, unsent := 0, 0
	s.do(t, func() {
		written = fill(t, &s.conn)
		s.conn.Write(make([]byte, 100_000))
		unsent = s.conn.Unsent()
	})
	if n := s.handler.memory(t); n < int64(unsent) || n > int64(3*unsent) {
		t.Errorf("%d bytes for %d that are unsent", n, unsent)
	}
	drain(t, client, written)
	s.allSent(t)
	if n := s.handler.memory(t); n != 0 {
		t.Errorf("%d bytes when all is sent", n)
	}
	s.do(t, func() {
		fill(t, &s.conn)
		s.conn.Close()
	})
	receive(t, s.ended, "it does not end")
	if n := s.handler.memory(t); n != 0 {
		t.Errorf("%d bytes for no connection", n)
	}
}

// TestMemoryOfTLS: a TLS connection is counted, with what a long record takes.
func TestMemoryOfTLS(t *testing.T) {
	_, connect := startTLS(t, setup{})
	conn, s := connect()
	h := s.handler
	if n := h.memory(t); n < tlsSize || n > 2*tlsSize {
		t.Errorf("%d bytes for an idle connection, want about %d", n, tlsSize)
	}
	record := make([]byte, 16<<10)
	if _, err := conn.Write(record); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record does not come", func() (came bool) {
		s.do(t, func() { came = len(s.input) == len(record) })
		return came
	})
	if n := h.memory(t); n <= tlsSize || n > tlsSize+2*maxRecord {
		t.Errorf("%d bytes after a long record", n)
	}
	_ = conn.Close()
	receive(t, s.ended, "it does not end")
	if n := h.memory(t); n != 0 {
		t.Errorf("%d bytes for no connection", n)
	}
}
