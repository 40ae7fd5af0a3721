package reactor

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unixListener listens on a Unix socket of the test.
func unixListener(tb testing.TB) *Listener {
	tb.Helper()
	l, err := net.Listen("unix", filepath.Join(tb.TempDir(), "socket"))
	if err != nil {
		tb.Fatal(err)
	}
	return &Listener{Listener: l}
}

// dialUnix connects to a Unix socket of the server.
func (srv *server) dialUnix(l *Listener) (*net.UnixConn, *session) {
	srv.tb.Helper()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		srv.tb.Fatal(err)
	}
	srv.tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.UnixConn), receive(srv.tb, srv.accepted, "the connection is not served")
}

// TestAdopt takes connections over, TCP and Unix, from two loops to three: what came before belongs to the old server, what
// comes while all stand still to the new one, and what that writes before it begins leaves when it does.
func TestAdopt(t *testing.T) {
	const each = 20
	local := unixListener(t)
	old := start(t, setup{loops: 2, handler: echoing, listeners: []*Listener{local}})
	k := takeover{from: old, setup: setup{loops: 3}}
	var clients []net.Conn
	for range each {
		client, s := old.dial()
		clients, k.sessions = append(clients, client), append(k.sessions, s)
		same, s := old.dialUnix(local)
		clients, k.sessions = append(clients, same), append(k.sessions, s)
	}
	for _, client := range clients {
		send(t, client, "to the old one")
		expect(t, client, "to the old one")
	}
	k.adopted = func(_ int, s *session) {
		if !s.conn.IsOpen() || s.conn.TryMove(0) {
			t.Error("an adopted connection is closed, or moves before it has begun")
		}
		echo(s)
		s.conn.Write([]byte("from the new one"))
	}
	k.frozen = func([]*session) {
		for _, client := range clients {
			send(t, client, "in between")
		}
	}
	srv, carried := k.run(t)
	for i, client := range clients {
		expect(t, client, "from the new onein between")
		s := carried[i]
		s.do(t, func() {
			_, isTCP := client.(*net.TCPConn)
			if s.conn.tcp != isTCP {
				t.Errorf("connection %d: TCP is %t, want %t", i, s.conn.tcp, isTCP)
			}
			if got, want := s.conn.RemoteAddr().String(), client.LocalAddr().String(); isTCP && got != want {
				t.Errorf("connection %d is that of %s, want %s", i, got, want)
			}
			expectWatched(t, &s.conn, watchInput)
			if epoll, err := findEpoll(s.conn.fd); epoll != s.conn.loop.epoll {
				t.Errorf("connection %d: watched by %d (%v), its loop has %d", i, epoll, err, s.conn.loop.epoll)
			}
		})
	}
	for i, s := range carried { // a loop that was served by the old one as well would not see the whole of it
		send(t, clients[i], "to the new one")
		expect(t, clients[i], "to the new one")
		if i%2 == 0 {
			_ = clients[i].Close()
			if err := receive(t, s.ended, "the end was not noticed"); !errors.Is(err, io.EOF) {
				t.Errorf("the connection ended with %v, want %v", err, io.EOF)
			}
		}
	}
	fresh, s := srv.dial() // of whom gnet does not know the one from the other
	s.do(t, func() { echo(s) })
	send(t, fresh, "echo")
	expect(t, fresh, "echo")
	for _, h := range srv.handlers {
		eventually(t, "blanks are left", func() bool { return h.loop.room.Load() == 0 })
		h.do(t, func() {
			if len(h.loop.blanks) > 0 || len(h.loop.adopted) > 0 {
				t.Errorf("loop %d has kept %d blanks and %d connections that have begun", h.loop.index, len(h.loop.blanks), len(h.loop.adopted))
			}
		})
	}
}

// TestAdoptUnsent takes over connections whose peers lag: all output arrives, in order, also what is written before they begin.
func TestAdoptUnsent(t *testing.T) {
	local := unixListener(t)
	old := start(t, setup{listeners: []*Listener{local}})
	tcp, s0 := old.dial()
	unixConn, s1 := old.dialUnix(local)
	last, s2 := old.dial()
	clients, sessions := []net.Conn{tcp, unixConn, last}, []*session{s0, s1, s2}
	written := make([]int, len(clients))
	taken := make([]time.Duration, len(clients))
	for i, s := range sessions {
		s.do(t, func() {
			written[i] = fill(t, &s.conn)
			taken[i] = s.conn.output.taken
		})
	}
	s2.do(t, s2.conn.CloseAfterOutput)
	drained := make(chan int, 4096)
	k := takeover{from: old, sessions: sessions, setup: setup{loops: 2, linger: time.Hour}}
	k.adopted = func(i int, s *session) {
		s.drained = func() {
			select {
			case drained <- i:
			default:
			}
		}
		if s.conn.Unsent() == 0 || s.handler.loop.Memory() == 0 {
			t.Errorf("connection %d: %d bytes are unsent, of %d in the memory of the loop", i, s.conn.Unsent(), s.handler.loop.Memory())
		}
		if i < 2 && s.conn.output.taken != taken[i] {
			t.Errorf("the peer took something at %s, want %s", s.conn.output.taken, taken[i])
		}
		if i < 2 {
			s.conn.Write([]byte("more"))
		}
	}
	_, carried := k.run(t)
	for i, s := range carried {
		s.do(t, func() {
			expectWatched(t, &s.conn, watchNothing)
			if s.conn.judgement == nil || !s.conn.judgement.timer.Running() {
				t.Errorf("nobody judges the peer of connection %d", i)
			}
		})
		drain(t, clients[i], written[i])
		if i < 2 {
			expect(t, clients[i], "more")
			s.allSent(t)
			s.do(t, func() { expectWatched(t, &s.conn, watchInput) })
		} else {
			receive(t, s.ended, "it stays although its output has left")
		}
	}
	for seen := 0; seen != 3; {
		seen |= 1 << receive(t, drained, "Drained was not called") & 3
	}
}

// TestAdoptPaused takes over a connection that is paused with input in its socket: it is read when it goes on, and in sips
// before that, if one was asked for.
func TestAdoptPaused(t *testing.T) {
	old := start(t, setup{})
	client, s := old.dial()
	other, s1 := old.dial()
	var sent int
	for i, p := range []*session{s, s1} {
		p.do(t, p.conn.Pause)
		sent = offer(t, []net.Conn{client, other}[i], p, &pattern{}, 1)
	}
	k := takeover{from: old, sessions: []*session{s, s1}, setup: setup{}}
	sip := make(chan int, 1)
	k.adopted = func(i int, s *session) {
		if i == 1 {
			s.data = func(p []byte) { sip <- len(p) }
			s.conn.Sip()
		}
	}
	_, carried := k.run(t)
	s = carried[0]
	s.handler.settleSockets(t)
	s.do(t, func() {
		expectWatched(t, &s.conn, watchHangup)
		if !s.conn.Paused() || len(s.input) > 0 || s.conn.Unread() != sent {
			t.Errorf("paused: %t, %d bytes read and %d unread, want %d unread", s.conn.Paused(), len(s.input), s.conn.Unread(), sent)
		}
		s.conn.Resume()
	})
	eventually(t, "the input does not come", func() (all bool) {
		s.do(t, func() { all = len(s.input) == sent })
		return all
	})
	s.do(t, func() {
		if string(s.input) != string((&pattern{}).next(sent)) {
			t.Error("the input is damaged")
		}
	})
	if n := receive(t, sip, "the sip does not come"); n != sipBytes {
		t.Errorf("a sip of %d bytes came, want %d", n, sipBytes)
	}
}

// TestAdoptHalfClosed takes over connections whose peers have ended their side: the rest of the input comes, the answer leaves.
func TestAdoptHalfClosed(t *testing.T) {
	old := start(t, setup{})
	client, s := old.dial()
	half := make(chan struct{})
	s.do(t, func() {
		s.conn.Pause()
		s.lingers = true
		s.half = func() { close(half) }
	})
	send(t, client, "the rest")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, half, "the end of the input was not noticed")
	rest := make(chan string, 2)
	k := takeover{from: old, sessions: []*session{s}, setup: setup{loops: 2}}
	k.adopted = func(_ int, s *session) {
		s.data = func(p []byte) {
			rest <- string(p)
			if len(p) > 0 {
				s.conn.ReadRest()
			}
		}
		if !s.conn.ReadRest() || len(s.handler.loop.readers) > 0 {
			t.Error("nothing is left to read, or it would be read too early")
		}
		s.conn.Write([]byte("the answer"))
	}
	_, carried := k.run(t)
	expect(t, client, "the answer")
	for _, want := range []string{"the rest", ""} {
		if got := receive(t, rest, "the rest of the input does not come"); got != want {
			t.Errorf("%q came of the rest, want %q", got, want)
		}
	}
	s = carried[0]
	s.do(t, func() { s.conn.CloseWrite() })
	expectEnd(t, client)
	s.do(t, func() { s.conn.Close() })
	receive(t, s.ended, "Closed was not called")
	s.do(t, func() {
		if len(s.handler.loop.halfClosed) > 0 {
			t.Error("the loop keeps a connection that is closed")
		}
	})
}

// TestAdoptGone takes over connections that end while all stand still: by the peer, by a reset, by the new server.
func TestAdoptGone(t *testing.T) {
	old := start(t, setup{})
	k := takeover{from: old, setup: setup{}}
	var clients []*net.TCPConn
	for i := range 4 {
		client, s := old.dial()
		clients, k.sessions = append(clients, client), append(k.sessions, s)
		if i == 1 {
			s.do(t, s.conn.Pause)
		}
	}
	k.adopted = func(i int, s *session) {
		if i == 3 {
			s.conn.Close()
		}
	}
	k.frozen = func([]*session) {
		_ = clients[0].Close()
		_ = clients[1].Close()
		reset(t, clients[2])
	}
	_, carried := k.run(t)
	for i, want := range []error{io.EOF, io.EOF, unix.ECONNRESET, nil} {
		if err := receive(t, carried[i].ended, "the end was not noticed"); !errors.Is(err, want) {
			t.Errorf("connection %d ended with %v, want %v", i, err, want)
		}
	}
}

// TestAdoptKeepAlive takes over connections with another keepalive: all options of their sockets are those of new ones, save those
// that a peer under judgement has for that time.
func TestAdoptKeepAlive(t *testing.T) {
	old := start(t, setup{keepAlive: 6 * time.Second})
	idle, s0 := old.dial()
	lagging, s1 := old.dial()
	written := 0
	s1.do(t, func() {
		written = fill(t, &s1.conn)
		s1.conn.doubt(true)
	})
	k := takeover{from: old, sessions: []*session{s0, s1}, setup: setup{keepAlive: 60 * time.Second}}
	k.adopted = func(i int, s *session) {
		if i == 1 && !s.conn.judgement.doubts {
			t.Error("it is forgotten that the kernel has been told to be patient")
		}
	}
	srv, carried := k.run(t)
	_, fresh := srv.dial()
	options := func(s *session) (all [4]int) {
		s.do(t, func() {
			for i, option := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_USER_TIMEOUT, unix.TCP_RTO_MAX_MS} {
				all[i], _ = unix.GetsockoptInt(s.conn.fd, unix.IPPROTO_TCP, option) // the last is newer than some kernels
			}
		})
		return all
	}
	want := options(fresh)
	if got := options(carried[0]); got != want {
		t.Errorf("the options are %d, want %d", got, want)
	}
	carried[1].do(t, func() {
		if got := userTimeout(t, &carried[1].conn); got != ourTime {
			t.Errorf("the TCP_USER_TIMEOUT of a peer that we judge is %s, want %s", got, ourTime)
		}
	})
	drain(t, lagging, written)
	eventually(t, "the peer is not left to the kernel", func() bool { return options(carried[1]) == want })
	_ = idle.Close()
}

// TestAdoptSilentPeer takes over a connection whose peer has vanished: it ends when its time is up, and no later for the takeover.
func TestAdoptSilentPeer(t *testing.T) {
	old := start(t, setup{})
	client, s := old.dial()
	control(t, client, func(fd int) { goSilent(t, fd) })
	s.do(t, func() { s.conn.Write([]byte("answer")) })
	k := takeover{from: old, sessions: []*session{s}, setup: setup{}}
	_, carried := k.run(t)
	if err := receive(t, carried[0].ended, "the silence was not noticed"); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("the connection ended with %v, want %v", err, unix.ETIMEDOUT)
	}
}
