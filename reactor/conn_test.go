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
		old.do(t, func() { fd = old.conn.fd })
		// While the loop is held up, the old client goes and the other one comes, so that the loop sees both at once:
		// else the other end of the new connection, which is in this process as well, could get the number.
		release := old.handler.hold(t)
		reset(t, client)
		other = dial(t, srv.address)
		release()
		receive(t, old.ended, "the reset was not noticed")
		s = receive(t, srv.accepted, "the connection is not served")
		s.do(t, func() { same = s.conn.fd == fd })
	}
	s.do(t, func() {
		old.conn.Write([]byte("stale"))
		old.conn.CloseWrite()
		old.conn.Pause()
		old.conn.Resume()
		old.conn.Close()
		if old.conn.IsOpen() || old.conn.Unsent() != 0 || old.conn.RemoteAddr() != nil {
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
				if s.conn.IsOpen() {
					t.Error("the connection is open when Closed is called")
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

// TestClose closes in every callback. Closed comes at the end of the turn, not inside Close, once and without an error, and
// the peer gets what was written before.
func TestClose(t *testing.T) {
	closing := func(s *session) {
		closed := false
		s.closed = func(error) { closed = true }
		s.conn.Write([]byte("bye"))
		s.conn.Close()
		if closed || s.conn.IsOpen() {
			t.Errorf("inside Close, Closed was called: %t; the connection is open: %t", closed, s.conn.IsOpen())
		}
		s.conn.Write([]byte("more"))
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
		"EndTurn": func(h *handler) {
			var open []*session
			h.opened = func(s *session) { open = append(open, s) }
			h.endTurn = func() bool {
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

// TestBrokenWrites grants to 50 peers in a row that have all been reset. Each Write fails, which has the next one granted.
// None of that is nested: Closed comes when Write and EndTurn have returned.
func TestBrokenWrites(t *testing.T) {
	const peers = 50
	var (
		sessions []*session
		granted  []*session // in this turn
		busy     bool       // inside EndTurn
		broken   int        // calls of Closed
	)
	srv := start(t, setup{handler: func(h *handler) {
		h.opened = func(s *session) {
			i := len(sessions)
			sessions = append(sessions, s)
			s.closed = func(err error) {
				if busy || err == nil {
					t.Errorf("Closed came from inside EndTurn: %t, with the error %v", busy, err)
				}
				broken++
				granted = append(granted, sessions[(i+1)%peers])
			}
		}
		h.endTurn = func() bool {
			busy = true
			for _, s := range granted {
				s.conn.Write([]byte("granted"))
			}
			granted = nil
			busy = false
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
			fds := []unix.PollFd{{Fd: int32(s.conn.fd)}}
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
		if broken != peers {
			t.Errorf("Closed came %d times, want %d", broken, peers)
		}
	})
}

// TestManyEndInOneTurn closes more connections in a turn than one turn takes: the others follow.
func TestManyEndInOneTurn(t *testing.T) {
	const peers = 2*turnUnits/closeUnits + 10
	srv := start(t, setup{})
	var clients []*net.TCPConn
	var sessions []*session
	for range peers {
		client, s := srv.dial()
		clients, sessions = append(clients, client), append(sessions, s)
	}
	srv.handlers[0].do(t, func() {
		for _, s := range sessions {
			s.conn.Write([]byte("bye"))
			s.conn.Close()
		}
	})
	for i, client := range clients {
		expect(t, client, "bye")
		expectEnd(t, client)
		receive(t, sessions[i].ended, "Closed was not called")
	}
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
