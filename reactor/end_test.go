package reactor

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMessagesLeaveBeforeTheEnd ends connections from our side. What the client posts when it hears of the end is in the mailbox of the
// other loop before the peer can see the end, by TCP or by TLS: whatever the peer asks that loop then comes after it.
func TestMessagesLeaveBeforeTheEnd(t *testing.T) {
	for name, end := range map[string]func(s *session){
		"closed":        func(s *session) { s.conn.Close() },
		"after output":  func(s *session) { s.conn.CloseAfterOutput() },
		"half-closed":   func(s *session) { s.lingers, s.half = true, s.conn.Close },
		"end of stream": func(*session) {},
	} {
		t.Run(name, func(t *testing.T) { testMessagesLeave(t, end) })
	}
}

func testMessagesLeave(t *testing.T, end func(s *session)) {
	type ended struct { // once the client has been told
		peer  *net.TCPConn
		other *Loop // which takes no messages
	}
	var latest atomic.Pointer[ended]
	srv, connect := startTLS(t, setup{loops: 2, handler: func(h *handler) {
		h.opened = echo
		h.receive = func(*Message) {}
		h.endTurn = func() bool {
			if e := latest.Load(); e != nil && sees(e.peer) && e.other.mailbox.top.Load() == nil {
				t.Error("the peer sees the end before the message has left")
			}
			return false
		}
	}})
	for _, encrypted := range []bool{false, true} {
		raw, s := (*net.TCPConn)(nil), (*session)(nil)
		var conn interface {
			net.Conn
			CloseWrite() error
		}
		if encrypted {
			tlsConn, tlsSession := connect()
			conn, raw, s = tlsConn, tlsConn.NetConn().(*net.TCPConn), tlsSession
		} else {
			raw, s = srv.dial()
			conn = raw
		}
		send(t, conn, "echo")
		expect(t, conn, "echo")
		to := 1 - s.handler.loop.Index()
		other := srv.handlers[to].loop
		release := srv.handlers[to].hold(t)
		s.do(t, func() {
			s.closed = func(error) {
				s.handler.loop.Post(to, &Message{})
				latest.Store(&ended{raw, other})
			}
			end(s)
		})
		if err := conn.CloseWrite(); err != nil && !errors.Is(err, unix.EPIPE) {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("encrypted %t: %v, want the end", encrypted, err)
		}
		if other.mailbox.top.Load() == nil {
			t.Errorf("encrypted %t: the peer has seen the end, and the message has not left", encrypted)
		}
		latest.Store(nil)
		s.do(t, func() {}) // its loop may have been about to look
		release()
	}
}

// sees reports whether something has come to the peer that it has not read, be it the end.
func sees(peer *net.TCPConn) (came bool) {
	raw, err := peer.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			came = !errors.Is(err, unix.EAGAIN)
		})
	}
	return came || err != nil
}
