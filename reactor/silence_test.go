package reactor

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout reads TCP_USER_TIMEOUT. It runs on the loop.
func userTimeout(tb testing.TB, c *Conn) time.Duration {
	tb.Helper()
	ms, err := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	if err != nil {
		tb.Errorf("read TCP_USER_TIMEOUT: %v", err)
	}
	return time.Duration(ms) * time.Millisecond
}

// TestSocketOptions reads back what an accepted socket is set to.
func TestSocketOptions(t *testing.T) {
	for keepAlive, backoff := range map[int]int{60: 20_000, 6: 2000, 1: 1000} {
		srv := start(t, setup{loops: 2, keepAlive: time.Duration(keepAlive) * time.Second})
		for range 3 {
			_, s := srv.dial()
			s.do(t, func() {
				for _, option := range []struct {
					name                string
					level, option, want int
				}{
					{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
					{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepAlive},
					{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
					{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2000 * keepAlive},
					{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
					{"TCP_RTO_MAX_MS", unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, backoff},
				} {
					got, err := unix.GetsockoptInt(s.conn.fd, option.level, option.option)
					if errors.Is(err, unix.ENOPROTOOPT) && option.option == unix.TCP_RTO_MAX_MS {
						continue // before Linux 6.15
					}
					if got != option.want || err != nil {
						t.Errorf("keepalive %d s: %s is %d (%v), want %d", keepAlive, option.name, got, err, option.want)
					}
				}
			})
		}
	}
}

// A socket that another process has opened accepts connections with the keepalive that it was given here, not with that of package net.
func TestAdoptedListener(t *testing.T) {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // as systemd opens it
	opened, err := plain.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := opened.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	passed, err := net.FileListener(file)
	if err := errors.Join(err, file.Close(), opened.Close()); err != nil {
		t.Fatal(err)
	}
	l := Adopt(passed.(*net.TCPListener), 7*time.Second)
	defer l.Close()
	if err := l.SetOptions(); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := socket.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 7, unix.TCP_KEEPINTVL: 1, unix.TCP_USER_TIMEOUT: 14_000} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); got != want || err != nil {
				t.Errorf("option %d is %d (%v), want %d", option, got, err, want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestJudge follows who judges a peer: the kernel at first, the loop from the first byte that is written until all has been
// acknowledged, however often that happens, and whether or not it was more than the buffers hold.
func TestJudge(t *testing.T) {
	srv := start(t, setup{keepAlive: 3 * time.Second}) // a look within 1.5 s
	client, s := srv.dial()
	for _, write := range []func() (written int){
		func() int { return 0 },
		func() int { s.conn.Write((&pattern{}).next(1)); return 1 },
		func() int { return fill(t, &s.conn) },
		func() int { s.conn.Write((&pattern{}).next(100)); return 100 },
	} {
		written := 0
		s.do(t, func() {
			if written = write(); written == 0 {
				return
			}
			if got := userTimeout(t, &s.conn); got != ourTime {
				t.Errorf("TCP_USER_TIMEOUT is %s after %d bytes were written, want %s", got, written, ourTime)
			}
		})
		drain(t, client, written)
		eventually(t, "the kernel does not judge a peer that has acknowledged everything", func() (idle bool) {
			s.do(t, func() { idle = userTimeout(t, &s.conn) == 6*time.Second && s.conn.judgement == nil })
			return idle
		})
	}
}

// TestJudgeStays has a peer leave unread what it has no room for, and the socket has. The kernel does not get to judge it:
// TestSlowReaders of the daemon shows what would come of that.
func TestJudgeStays(t *testing.T) {
	srv := start(t, setup{keepAlive: 30 * time.Second})
	client, s := srv.dial()
	control(t, client, func(fd int) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Error(err)
		}
	})
	var text pattern
	s.do(t, func() {
		for range 80 {
			s.conn.Write(text.next(100))
		}
		if n := s.conn.Unsent(); n > 0 {
			t.Errorf("%d bytes do not find room in the socket", n)
		}
	})
	looks, due := 0, Tick(0)
	eventually(t, "nobody looks at the peer", func() bool {
		s.do(t, func() {
			if got := userTimeout(t, &s.conn); got != ourTime {
				t.Errorf("TCP_USER_TIMEOUT is %s", got)
			}
			if timer := &s.conn.judgement.timer; timer.due > due {
				looks, due = looks+1, timer.due
			}
		})
		return looks > 3 || t.Failed()
	})
	drain(t, client, text.at)
}

// TestFirstLook looks soon at a peer that has been silent for long when something is written to it, and late at one that has just
// sent a command. The latter costs next to nothing.
func TestFirstLook(t *testing.T) {
	srv := start(t, setup{keepAlive: 30 * time.Second})
	client, s := srv.dial()
	// The first look is between the two from the write on, however long the machine takes for that.
	wait := func(write string) (least, most time.Duration) {
		r := s.conn.loop.reactor
		before := r.tick()
		s.conn.Write([]byte(write))
		due := s.conn.judgement.timer.due
		return time.Duration(due-r.tick()) * r.cfg.Tick, time.Duration(due-before) * r.cfg.Tick
	}
	s.do(t, func() {
		now := s.conn.loop.Now()
		s.conn.loop.now = now + time.Hour
		if least, _ := wait("grant"); least > 2*lookTime+s.conn.loop.reactor.cfg.Tick { // it is never early
			t.Errorf("the first look at a silent peer is after %s", least)
		}
		s.conn.loop.now = now
	})
	expect(t, client, "grant")
	eventually(t, "the kernel does not judge a peer that has acknowledged everything", func() (idle bool) {
		s.do(t, func() { idle = s.conn.judgement == nil })
		return idle
	})
	s.do(t, func() {
		s.data = func([]byte) {
			if least, most := wait("answer"); most < 7*time.Second || least > 8*time.Second {
				t.Errorf("the first look at a peer that has just sent something is after %s to %s", least, most)
			}
		}
	})
	send(t, client, "command")
	expect(t, client, "answer")
}

// goSilent makes the client's host look gone: its socket drops every packet that comes, so that nothing is
// acknowledged.
func goSilent(tb testing.TB, fd int) {
	tb.Helper()
	dropAll := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	program := &unix.SockFprog{Len: 1, Filter: &dropAll[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
		tb.Skipf("no packet filters on this machine: %v", err)
	}
}

// TestSilentPeer writes to a peer that does not acknowledge: the connection ends when the silence has lasted long enough, on
// its loop or on the one that it has moved to meanwhile.
func TestSilentPeer(t *testing.T) {
	srv := start(t, setup{loops: 2})
	for name, then := range map[string]func(s *session){
		"stays": func(*session) {},
		"moves": func(s *session) {
			if !s.conn.TryMove(1 - s.handler.loop.Index()) {
				t.Error("it does not move")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, s := srv.dial()
			control(t, client, func(fd int) { goSilent(t, fd) })
			began := time.Now()
			s.do(t, func() {
				s.moved = func(to int) { s.handler = srv.handlers[to] }
				s.conn.Write([]byte("answer"))
				then(s)
			})
			if err := receive(t, s.ended, "the silence was not noticed"); !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("the connection ended with %v, want %v", err, unix.ETIMEDOUT)
			}
			if took := time.Since(began); took < 2*time.Second-100*time.Millisecond { // what the handshake took
				t.Errorf("it ended after %s, want twice the keepalive of 1s", took)
			}
		})
	}
}

// TestPeerLost asks about a peer that does not acknowledge. It takes both that packets go unanswered and that the peer
// was silent for as long as a silent connection is kept.
func TestPeerLost(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, func() {
		s.conn.judge() // else the kernel ends the connection
		s.conn.loop.StopTimer(&s.conn.judgement.timer)
		s.conn.loop.reactor.silence.limit = 0
		if s.conn.peerLost() {
			t.Error("lost before anything was sent")
		}
	})
	control(t, client, func(fd int) { goSilent(t, fd) })
	s.do(t, func() {
		s.conn.Write([]byte("answer"))
		s.conn.loop.StopTimer(&s.conn.judgement.timer) // the looks are ours
	})
	eventually(t, "the peer is never lost", func() (lost bool) {
		s.do(t, func() { lost = s.conn.peerLost() })
		return lost
	})
	s.do(t, func() {
		s.conn.loop.reactor.silence.limit = time.Hour
		if s.conn.peerLost() {
			t.Error("lost within the time that a silent peer is kept")
		}
	})
}

// TestPeerAlive asks about a peer that does not read: it acknowledges every probe of its closed window, so it is not
// lost, however long that takes.
func TestPeerAlive(t *testing.T) {
	srv := start(t, setup{})
	_, s := srv.dial()
	s.do(t, func() {
		fill(t, &s.conn)
		s.conn.loop.StopTimer(&s.conn.judgement.timer)  // the looks are ours
		s.conn.loop.reactor.silence.limit = time.Second // so that it is up to the unanswered packets, if those are counted wrongly
	})
	answers, last := 0, uint32(0)
	eventually(t, "the kernel does not probe the window", func() bool {
		s.do(t, func() {
			if s.conn.peerLost() {
				t.Error("a peer that answers is taken for lost")
			}
			info, err := unix.GetsockoptTCPInfo(s.conn.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				t.Errorf("read TCP_INFO: %v", err)
				return
			}
			if info.Last_ack_recv < last {
				answers++
			}
			last = info.Last_ack_recv
		})
		return answers >= 3 || t.Failed()
	})
}

// backoff reads TCP_RTO_MAX_MS. It runs on the loop.
func backoff(tb testing.TB, c *Conn) time.Duration {
	tb.Helper()
	ms, err := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS)
	if err != nil {
		tb.Errorf("read TCP_RTO_MAX_MS: %v", err)
	}
	return time.Duration(ms) * time.Millisecond
}

// TestDoubt cuts a peer that does not read off for a while. The kernel is told not to end the connection before its time,
// and to ask often again when the peer is back, which keeps its connection.
func TestDoubt(t *testing.T) {
	srv := start(t, setup{keepAlive: 4 * time.Second})
	client, s := srv.dial()
	var known error
	s.do(t, func() { _, known = unix.GetsockoptInt(s.conn.fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS) })
	if known != nil {
		t.Skipf("the kernel cannot be told: %v", known)
	}
	written, usual := 0, time.Duration(0)
	s.do(t, func() { usual, written = backoff(t, &s.conn), fill(t, &s.conn) })
	control(t, client, func(fd int) { goSilent(t, fd) })
	eventually(t, "the kernel is not told to be patient", func() (patient bool) {
		s.do(t, func() { patient = backoff(t, &s.conn) == 4*time.Second })
		return patient
	})
	control(t, client, func(fd int) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the kernel is not told to ask often", func() (often bool) {
		s.do(t, func() { often = backoff(t, &s.conn) == usual })
		return often
	})
	drain(t, client, written)
	s.allSent(t)
}
