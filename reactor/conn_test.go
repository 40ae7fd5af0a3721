package reactor

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEcho sends through connections of several loops, at once and in pieces.
func TestEcho(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: func(h *handler) { h.opened = echo }})
	var clients []*net.TCPConn
	for range 20 {
		client, s := srv.dial()
		if s.conn.loop != s.handler.loop {
			t.Error("the connection belongs to another loop than its client")
		}
		clients = append(clients, client)
	}
	for _, text := range []string{"a", "piece", strings.Repeat("a long piece ", 10000)} {
		for _, client := range clients {
			send(t, client, text)
		}
		for _, client := range clients {
			expect(t, client, text)
		}
	}
}

// TestWriteWhenClosed uses a connection after its end, when another one has its descriptor: nothing of that reaches the
// other one.
func TestWriteWhenClosed(t *testing.T) {
	srv := start(t, setup{handler: echoing})
	var old, s *session
	var other *net.TCPConn
	for n, same := 0, false; !same; n++ {
		if n == 200 {
			t.Fatal("the descriptor is never used again")
		}
		var client *net.TCPConn
		client, old = srv.dial()
		fd := 0
		old.do(t, func() { fd = old.conn.sock.Fd() })
		// While the loop is held up, the old client goes and the other one comes, so that the loop sees both at once:
		// else the other end of the new connection, which is in this process as well, could get the number.
		release := old.handler.hold(t)
		reset(t, client)
		other = dial(t, srv.address)
		release()
		receive(t, old.ended, "the reset was not noticed")
		s = receive(t, srv.accepted, "the connection is not served")
		s.do(t, func() { same = s.conn.sock.Fd() == fd })
	}
	s.do(t, func() {
		old.conn.Write([]byte("stale"))
		old.conn.CloseWrite()
		old.conn.Pause()
		old.conn.Resume()
		old.conn.Close()
		if old.conn.Open() || old.conn.Unsent() != 0 || old.conn.PeerLost() || old.conn.RemoteAddr() != nil {
			t.Error("the connection is not closed")
		}
		s.conn.Write([]byte("fresh"))
	})
	expect(t, other, "fresh")
	send(t, other, "echo")
	expect(t, other, "echo")
}

// TestWriteInClosed writes while it is told of the end: the peer, who would still read, gets nothing.
func TestWriteInClosed(t *testing.T) {
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = func(s *session) {
			s.closed = func(error) {
				if s.conn.Open() {
					t.Error("the connection is open when Closed is called")
				}
				if s.conn.RemoteAddr() == nil {
					t.Error("RemoteAddr is not known in Closed")
				}
				s.conn.Write([]byte("late"))
				s.conn.Close()
			}
		}
	}})
	client, s := srv.dial()
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEnd(t, client)
	if err := receive(t, s.ended, "Closed was not called"); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v, want %v", err, io.EOF)
	}
}

// TestClose closes in every callback. Closed has been called when Close returns, once and without an error, and the
// peer gets what was written before.
func TestClose(t *testing.T) {
	closing := func(s *session) {
		closed := false
		s.closed = func(error) { closed = true }
		s.conn.Write([]byte("bye"))
		s.conn.Close()
		if !closed || s.conn.Open() {
			t.Error("the connection is open after Close")
		}
		s.conn.Close()
	}
	cases := map[string]func(h *handler){
		"Opened": func(h *handler) { h.opened = closing },
		"Data": func(h *handler) {
			h.opened = func(s *session) {
				s.data = func(p []byte) {
					closing(s)
					if string(p) != "input" {
						t.Errorf("the input is %q after Close", p)
					}
				}
			}
		},
		"Settle": func(h *handler) {
			var open []*session
			h.opened = func(s *session) { open = append(open, s) }
			h.settle = func() bool {
				for _, s := range open {
					closing(s)
				}
				open = nil
				return false
			}
		},
	}
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			srv := start(t, setup{handler: handler})
			client, s := srv.dial()
			if name == "Data" {
				send(t, client, "input")
			}
			expect(t, client, "bye")
			expectEnd(t, client)
			if err := receive(t, s.ended, "Closed was not called"); err != nil {
				t.Errorf("the connection ended with %v, want none", err)
			}
		})
	}
}

// TestClosedInsideWrite grants to 50 peers in a row that have all been reset. Each Write calls Closed from inside,
// which has the next one granted. None of that is nested: Settle is not called again while it runs.
func TestClosedInsideWrite(t *testing.T) {
	const peers = 50
	var (
		sessions         []*session
		granted          []*session // in this turn
		settling, nested int        // calls of Settle
		writing          bool
		inWrite          int // calls of Closed from inside Write
	)
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = func(s *session) {
			i := len(sessions)
			sessions = append(sessions, s)
			s.closed = func(error) {
				if writing {
					inWrite++
				}
				granted = append(granted, sessions[(i+1)%peers])
			}
		}
		h.settle = func() bool {
			settling++
			nested = max(nested, settling)
			for len(granted) > 0 {
				s := granted[0]
				granted = granted[1:]
				writing = true
				s.conn.Write([]byte("granted"))
				writing = false
			}
			settling--
			return false
		}
	}})
	var clients []*net.TCPConn
	for range peers {
		client, _ := srv.dial()
		clients = append(clients, client)
	}
	h := srv.handlers[0]
	h.do(t, func() {
		for _, client := range clients { // here, where the loop cannot see the resets before the first write
			_ = client.SetLinger(0)
			_ = client.Close()
		}
		for _, s := range sessions {
			// The reset has to be there, or the write would work.
			fds := []unix.PollFd{{Fd: int32(s.conn.sock.Fd())}}
			if n, err := unix.Poll(fds, int(patience.Milliseconds())); n != 1 {
				t.Errorf("the reset does not arrive: %v", err)
			}
		}
		granted = append(granted, sessions[0])
	})
	for _, s := range sessions {
		receive(t, s.ended, "a reset was not noticed")
	}
	h.do(t, func() {
		if nested != 1 || inWrite == 0 {
			t.Errorf("Settle was nested %d deep, want 1; Closed came %d times from inside Write", nested, inWrite)
		}
	})
}

// TestDup keeps the socket of a closed connection alive: what is written to the duplicate reaches a peer that has ended
// its side only, and the end comes when the duplicate is closed.
func TestDup(t *testing.T) {
	duplicate := make(chan int, 1)
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = func(s *session) {
			s.closed = func(error) {
				fd, err := s.conn.Dup()
				if err != nil {
					t.Errorf("Dup: %v", err)
				}
				duplicate <- fd
			}
		}
	}})
	client, s := srv.dial()
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	fd := receive(t, duplicate, "the end was not noticed")
	s.handler.settleSockets(t) // gnet has closed its own descriptor
	if _, err := unix.Write(fd, []byte("late answer")); err != nil {
		t.Errorf("write: %v", err)
	}
	expect(t, client, "late answer")
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
	expectEnd(t, client)
}

// TestCloseWrite ends the output only: the peer reads the end and can still send.
func TestCloseWrite(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	got := make(chan string, 1)
	s.do(t, func() {
		s.data = func(p []byte) { got <- string(p) }
		s.conn.Write([]byte("bye"))
		s.conn.CloseWrite()
	})
	expect(t, client, "bye")
	expectEnd(t, client)
	send(t, client, "input")
	if text := receive(t, got, "the input does not arrive"); text != "input" {
		t.Errorf("received %q", text)
	}
	_ = client.Close()
	if err := receive(t, s.ended, "the end was not noticed"); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v, want %v", err, io.EOF)
	}
}

// TestReset says what a reset of a connection that reads looks like.
func TestReset(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	reset(t, client)
	if err := receive(t, s.ended, "the reset was not noticed"); err == nil {
		t.Error("no error: that would mean that the server has closed the connection")
	}
}
