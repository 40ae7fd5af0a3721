package reactor

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pattern is an endless text in which every place can be told from its neighbours.
type pattern struct{ at int }

func (p *pattern) next(n int) []byte {
	text := make([]byte, n)
	for i := range text {
		k := p.at + i
		text[i] = byte(k ^ k>>8 ^ k>>16 ^ k>>24)
	}
	p.at += n
	return text
}

// fill writes to the connection until output is left unsent, and returns how much that was. It runs on the loop.
func fill(tb testing.TB, c *Conn) (written int) {
	tb.Helper()
	var text pattern
	for c.Unsent() == 0 {
		if !c.IsOpen() {
			tb.Error("the connection is closed")
			break
		}
		c.Write(text.next(1 << 20))
	}
	return text.at
}

// drain has the client read what fill has written.
func drain(tb testing.TB, client net.Conn, written int) {
	tb.Helper()
	var want pattern
	buf := make([]byte, 1<<20)
	for want.at < written {
		at := want.at
		n, err := client.Read(buf[:min(len(buf), written-at)])
		if err != nil {
			tb.Fatalf("after %d of %d bytes: %v", at, written, err)
		}
		if string(want.next(n)) != string(buf[:n]) {
			tb.Fatalf("the output is damaged, somewhere from byte %d on", at)
		}
	}
}

func control(tb testing.TB, conn net.Conn, f func(fd int)) {
	tb.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// offer sends as much of the pattern as the kernel takes while the server does not read, up to limit.
func offer(tb testing.TB, conn net.Conn, s *session, text *pattern, limit int) (sent int) {
	tb.Helper()
	chunk := text.next(1 << 16)
	for idle := 0; idle < 3 && sent < limit; {
		n := 0
		control(tb, conn, func(fd int) { n, _ = unix.Write(fd, chunk) })
		if n <= 0 {
			// Full. The loop gets the time to read if it would.
			idle++
			s.handler.settleSockets(tb)
			continue
		}
		idle = 0
		sent += n
		chunk = append(chunk[n:], text.next(n)...)
	}
	text.at -= len(chunk)
	return sent
}

// TestPause offers 64 MB to a paused connection: nothing of it is read, and TCP holds the sender back. Resume brings
// everything, in order.
func TestPause(t *testing.T) {
	const offered = 64 << 20
	srv := start(t, setup{})
	client, s := srv.dial()
	send(t, client, "before")
	s.handler.settleSockets(t)
	s.do(t, func() {
		if string(s.input) != "before" {
			t.Errorf("received %q", s.input)
		}
		s.conn.Pause()
	})
	var text pattern
	sent := offer(t, client, s, &text, offered)
	if sent == offered {
		t.Errorf("the sender got rid of all %d bytes", offered)
	}
	if sent == 0 {
		t.Error("nothing was offered")
	}
	var want pattern
	got, all := 0, make(chan struct{})
	s.do(t, func() {
		if more := len(s.input) - len("before"); more != 0 {
			t.Errorf("%d bytes were read in a pause", more)
		}
		s.data = func(p []byte) {
			if string(want.next(len(p))) != string(p) {
				t.Errorf("what was held back is damaged, somewhere from byte %d on", got)
			}
			if got += len(p); got == offered {
				close(all)
			}
		}
		s.conn.Resume()
	})
	if _, err := client.Write(text.next(offered - sent)); err != nil {
		t.Errorf("send the rest: %v", err)
	}
	receive(t, all, "what was held back does not arrive")
}

// TestPauseFromData pauses inside Data: nothing comes after that call.
func TestPauseFromData(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	calls := 0
	s.do(t, func() {
		s.data = func([]byte) {
			calls++
			s.conn.Pause()
		}
	})
	var text pattern
	offer(t, client, s, &text, 64<<20)
	s.do(t, func() {
		if calls != 1 {
			t.Errorf("Data was called %d times, want once", calls)
		}
	})
}

// TestEndInPause ends the client while the connection is paused: that is noticed, and a reset is told from the end of
// the input.
func TestEndInPause(t *testing.T) {
	ends := map[string]func(testing.TB, *net.TCPConn){
		"reset":             reset,
		"close":             func(_ testing.TB, conn *net.TCPConn) { _ = conn.Close() },
		"half-close":        func(_ testing.TB, conn *net.TCPConn) { _ = conn.CloseWrite() },
		"input, then reset": func(tb testing.TB, conn *net.TCPConn) { send(tb, conn, "input"); reset(tb, conn) },
		"input, then close": func(tb testing.TB, conn *net.TCPConn) { send(tb, conn, "input"); _ = conn.Close() },
	}
	srv := start(t, setup{loops: 2})
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			client, s := srv.dial()
			s.do(t, func() { s.conn.Pause() })
			end(t, client)
			want := map[bool]error{false: io.EOF, true: unix.ECONNRESET}[strings.Contains(name, "reset")]
			if err := receive(t, s.ended, "the end was not noticed"); !errors.Is(err, want) {
				t.Errorf("the connection ended with %v, want %v", err, want)
			}
			s.do(t, func() {
				if len(s.input) > 0 {
					t.Errorf("%q was read in a pause", s.input)
				}
			})
		})
	}
}

// TestUnsent has a client ask, not read the answer, ask again and end its side. Until it has read, nothing of that is
// seen: no input, no end. Then all comes, in order.
func TestUnsent(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	written := 0
	s.do(t, func() {
		s.data = func(p []byte) {
			if n := s.conn.Unsent(); n > 0 {
				t.Errorf("%q was read while %d bytes were unsent", p, n)
			}
			s.input = append(s.input, p...)
		}
		written = fill(t, &s.conn)
	})
	send(t, client, "input")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	s.handler.settleSockets(t)
	s.do(t, func() {
		if len(s.input) > 0 || len(s.ended) > 0 || !s.conn.IsOpen() {
			t.Errorf("with output unsent, %q was read and the end was seen: %v", s.input, !s.conn.IsOpen())
		}
	})

	drain(t, client, written)
	if err := receive(t, s.ended, "the end is not seen after everything was sent"); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v, want %v", err, io.EOF)
	}
	s.do(t, func() {
		if string(s.input) != "input" {
			t.Errorf("received %q before the end", s.input)
		}
	})
	expectEnd(t, client)
}

// TestResetUnsent resets a connection with unsent output: that is noticed.
func TestResetUnsent(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, func() { fill(t, &s.conn) })
	reset(t, client)
	if err := receive(t, s.ended, "the reset was not noticed"); err == nil {
		t.Error("no error: that would mean that the server has closed the connection")
	}
}

// TestPauseAndUnsent pauses a connection with unsent output. When that has drained, the pause still holds, and Resume
// brings what came meanwhile, in order.
func TestPauseAndUnsent(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	written := 0
	s.do(t, func() {
		s.conn.Pause()
		written = fill(t, &s.conn)
	})
	var text pattern
	sent := offer(t, client, s, &text, 1<<20)
	drain(t, client, written)
	s.allSent(t)
	s.handler.settleSockets(t)
	all := make(chan struct{})
	s.do(t, func() {
		if len(s.input) > 0 {
			t.Errorf("%d bytes were read in a pause", len(s.input))
		}
		s.data = func(p []byte) {
			s.input = append(s.input, p...)
			if len(s.input) == sent {
				close(all)
			}
		}
		s.conn.Resume()
	})
	receive(t, all, "what was held back does not arrive")
	s.do(t, func() {
		if string(s.input) != string((&pattern{}).next(sent)) {
			t.Error("what was held back is damaged")
		}
	})
}

// TestWriteInPause writes to a paused connection, with and without output left: the pause survives both.
func TestWriteInPause(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, func() {
		s.conn.Pause()
		s.conn.Write([]byte("answer"))
	})
	expect(t, client, "answer")
	for range 3 {
		written := 0
		s.do(t, func() { written = fill(t, &s.conn) })
		s.do(t, func() { s.conn.Write([]byte("answer")) })
		drain(t, client, written)
		expect(t, client, "answer")
		s.allSent(t)
	}
	send(t, client, "input")
	s.handler.settleSockets(t)
	s.do(t, func() {
		if len(s.input) > 0 {
			t.Errorf("%q was read in a pause", s.input)
		}
		s.conn.Resume()
	})
	eventually(t, "what was held back does not arrive", func() (came bool) {
		s.do(t, func() { came = string(s.input) == "input" })
		return came
	})
}
