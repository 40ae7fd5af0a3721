package reactor

import (
	"errors"
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
	srv := start(t, setup{loops: 2, keepAlive: 60 * time.Second})
	for range 5 {
		_, s := srv.dial()
		s.do(t, func() {
			if got := userTimeout(t, &s.conn); got != 120*time.Second {
				t.Errorf("TCP_USER_TIMEOUT is %s, want 2m0s", got)
			}
			for _, option := range []struct {
				name                string
				level, option, want int
			}{
				{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
				{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 20},
				{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
				{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			} {
				got, err := unix.GetsockoptInt(s.conn.fd, option.level, option.option)
				if got != option.want || err != nil {
					t.Errorf("%s is %d (%v), want %d", option.name, got, err, option.want)
				}
			}
		})
	}
}

// TestUserTimeoutLifted has output wait for a peer that is alive and does not read: the kernel must not end that
// connection. When all is acknowledged, the limit comes back by itself.
func TestUserTimeoutLifted(t *testing.T) {
	srv := start(t, setup{keepAlive: 30 * time.Second})
	client, s := srv.dial()
	written := 0
	s.do(t, func() {
		written = fill(t, &s.conn)
		if got := userTimeout(t, &s.conn); got != 0 {
			t.Errorf("TCP_USER_TIMEOUT is %s with output unsent, want none", got)
		}
		s.conn.Write([]byte("more"))
		if got := userTimeout(t, &s.conn); got != 0 {
			t.Errorf("TCP_USER_TIMEOUT is %s with more output unsent, want none", got)
		}
	})
	drain(t, client, written)
	expect(t, client, "more")
	var got time.Duration
	eventually(t, "TCP_USER_TIMEOUT does not come back when all was read", func() bool {
		s.do(t, func() { got = userTimeout(t, &s.conn) })
		return got != 0
	})
	if got != time.Minute {
		t.Errorf("TCP_USER_TIMEOUT is %s when all was sent, want 1m0s", got)
	}
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

// TestSilentPeer writes to a peer that does not acknowledge: the connection ends by the user timeout.
func TestSilentPeer(t *testing.T) {
	srv := start(t, setup{})
	h := srv.handlers[0]
	h.do(t, func() { h.loop.reactor.silence.limit = 300 * time.Millisecond })
	client, s := srv.dial()
	control(t, client, func(fd int) { goSilent(t, fd) })
	s.do(t, func() { s.conn.Write([]byte("answer")) })
	if err := receive(t, s.ended, "the silence was not noticed"); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("the connection ended with %v, want %v", err, unix.ETIMEDOUT)
	}
}

// TestPeerLost asks about a peer that does not acknowledge. It takes both that packets go unanswered and that the peer
// was silent for as long as a silent connection is kept.
func TestPeerLost(t *testing.T) {
	srv := start(t, setup{})
	client, s := srv.dial()
	s.do(t, func() {
		s.conn.lift() // as with output unsent: else the kernel ends the connection
		s.conn.loop.StopTimer(&s.conn.output.timer)
		s.conn.loop.reactor.silence.limit = 0
		if s.conn.peerLost() {
			t.Error("lost before anything was sent")
		}
	})
	control(t, client, func(fd int) { goSilent(t, fd) })
	s.do(t, func() { s.conn.Write([]byte("answer")) })
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
		s.conn.loop.StopTimer(&s.conn.output.timer)     // the looks are ours
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
