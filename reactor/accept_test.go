package reactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unreliable is a listener whose Accept fails as often as there are errors.
type unreliable struct {
	net.Listener
	errors chan error
}

func (u *unreliable) Accept() (net.Conn, error) {
	select {
	case err := <-u.errors:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: u.Addr(), Err: err}
	default:
		return u.Listener.Accept()
	}
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := Listen(tb.Context(), "127.0.0.1:0", time.Second)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// TestAcceptErrors has accept fail in every way. Connections are accepted afterwards, each error is counted by its name,
// and the log has at most one line a second, with what to do.
func TestAcceptErrors(t *testing.T) {
	names := map[unix.Errno]string{
		unix.EMFILE: "EMFILE", unix.ENFILE: "ENFILE", unix.ENOMEM: "ENOMEM", unix.ENOBUFS: "ENOBUFS", unix.EPERM: "EPERM",
		unix.EPROTO: "EPROTO", unix.ENETDOWN: "ENETDOWN", unix.EHOSTUNREACH: "EHOSTUNREACH", unix.EOPNOTSUPP: "EOPNOTSUPP",
		unix.ECONNABORTED: "ECONNABORTED", unix.EINVAL: "EINVAL",
	}
	const each = 1
	broken := &unreliable{Listener: listen(t), errors: make(chan error, each*len(names)+1)}
	for number := range names {
		for range each {
			broken.errors <- number
		}
	}
	broken.errors <- errors.New("something else")
	var log bytes.Buffer
	began := time.Now()
	counts := make(chan string, cap(broken.errors))
	srv := start(t, setup{
		handler: echoing, log: &log, listeners: []*Listener{{Listener: broken}},
		failed: func(reason string) { counts <- reason },
	})
	expectEcho(t, srv.address) // the other listener is not concerned
	expectEcho(t, broken.Addr().String())
	took := time.Since(began)
	srv.stop()
	close(counts)
	counted := make(map[string]int)
	for reason := range counts {
		counted[reason]++
	}
	for _, name := range names {
		if counted[name] != each {
			t.Errorf("%s was counted %d times, want %d", name, counted[name], each)
		}
	}
	if counted["other"] != 1 {
		t.Errorf("an error that is no errno was counted %d times", counted["other"])
	}
	lines := strings.Count(log.String(), "connections cannot be accepted: ")
	if most := int(took/warnEvery) + 2; lines < 1 || lines > most {
		t.Errorf("%d warnings in %s, want 1 to %d", lines, took, most)
	}
}

// TestAcceptPauses has accept fail for a while: it is not called again and again meanwhile.
func TestAcceptPauses(t *testing.T) {
	for _, number := range []unix.Errno{unix.EMFILE, unix.EPROTO} {
		broken := &unreliable{Listener: listen(t), errors: make(chan error, 10_000)}
		for range cap(broken.errors) {
			broken.errors <- number
		}
		var calls atomic.Int64
		srv := start(t, setup{
			listeners: []*Listener{{Listener: broken}},
			failed:    func(string) { calls.Add(1) },
		})
		time.Sleep(500 * time.Millisecond) //nolint:forbidigo // a bound from above: a slow machine calls less often
		// 16 without a pause, if it may be about one connection; then 5, 10, 20, 40, 80, 160, 320 ms.
		if n := calls.Load(); n < 1 || n > 26 {
			t.Errorf("%v: %d calls in half a second, want pauses", number, n)
		}
		srv.stop()
	}
}

// TestAdmit: what Admit says of a connection gets to the handler, and a connection that it refuses to nobody.
func TestAdmit(t *testing.T) {
	var n atomic.Int64
	srv := start(t, setup{handler: echoing, admit: func(conn net.Conn) (any, bool) {
		i := n.Add(1)
		return fmt.Sprint(conn.RemoteAddr(), " is ", i), i != 2
	}})
	first, s := srv.dial()
	if want := fmt.Sprint(first.LocalAddr(), " is 1"); s.info != want {
		t.Errorf("the handler got %v, want %s", s.info, want)
	}
	expectEnd(t, dial(t, srv.address))
	expectEcho(t, srv.address)
}

// TestPrepare: a connection is prepared on a goroutine of its own, which holds up no other, and what has been read there is
// the first input of its client.
func TestPrepare(t *testing.T) {
	abandoned := make(chan error, MaxPreparing)
	failure := errors.New("not wanted")
	prepare := func(ctx context.Context, conn net.Conn, info any) (Prepared, error) {
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		defer stop()
		buf := make([]byte, 16)
		n, err := conn.Read(buf)
		switch {
		case err != nil:
			return Prepared{}, err
		case string(buf[:n]) == "bad":
			return Prepared{}, failure
		}
		return Prepared{Input: buf[:n]}, nil
	}
	prepared := &Listener{Listener: listen(t), Prepare: prepare}
	srv := start(t, setup{handler: echoing, listeners: []*Listener{prepared}, abandoned: func(_ any, err error) { abandoned <- err }})
	address := prepared.Addr().String()
	silent := dial(t, address)
	expectEcho(t, address)
	bad := dial(t, address)
	send(t, bad, "bad")
	expectEnd(t, bad)
	if err := receive(t, abandoned, "nobody is told"); !errors.Is(err, failure) {
		t.Errorf("the connection was abandoned for %v, want %v", err, failure)
	}
	for range MaxPreparing - 1 {
		dial(t, address)
	}
	expectEcho(t, srv.address) // the other listener is not concerned
	_ = silent.Close()
	expectEcho(t, address) // it waited for its turn
	srv.stop()             // the others are on their way
	for range MaxPreparing - 1 {
		if err := receive(t, abandoned, "nobody is told"); err == nil {
			t.Error("a connection was abandoned without a reason")
		}
	}
}

// TestSpread has the loops get as many connections each.
func TestSpread(t *testing.T) {
	const loops, clients = 4, 100
	srv := start(t, setup{loops: loops})
	counts := make(map[*handler]int)
	for range clients {
		_, s := srv.dial()
		counts[s.handler]++
	}
	for h, n := range counts {
		if n != clients/loops {
			t.Errorf("loop %d has %d of %d connections, want %d", h.loop.Index(), n, clients, clients/loops)
		}
	}
}

// TestListenerCloses: the loops go on when a listener is closed, and so do the connections.
func TestListenerCloses(t *testing.T) {
	other := listen(t)
	srv := start(t, setup{handler: echoing, listeners: []*Listener{{Listener: other}}})
	conn := dial(t, other.Addr().String())
	send(t, conn, "one")
	expect(t, conn, "one")
	_ = other.Close()
	if conn, err := net.Dial("tcp", other.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("a listener that was closed is connected to")
	}
	send(t, conn, "two")
	expect(t, conn, "two")
	expectEcho(t, srv.address)
}

// TestUnixSocket serves a Unix socket: echo, hold back, half-close, move.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := start(t, setup{loops: 2, listeners: []*Listener{{Listener: l}}})
	dialUnix := func() (*net.UnixConn, *session) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn.(*net.UnixConn), receive(t, srv.accepted, "the connection is not served")
	}

	conn, s := dialUnix()
	w := wanderer{srv: srv}
	s.do(t, func() { w.wander(s, s.conn.Write) })
	eventually(t, "the connection has not moved", func() bool {
		send(t, conn, "to and fro")
		expect(t, conn, "to and fro")
		return w.moves.Load() > 1
	})
	_ = conn.Close()
	receive(t, s.ended, "the end was not told")

	conn, s = dialUnix()
	text := bytes.Repeat([]byte("x"), 4<<20) // more than the socket takes
	s.do(t, func() {
		s.lingers = true
		s.half = func() {
			s.conn.Write([]byte("the end"))
			s.conn.CloseAfterOutput()
		}
		s.conn.Write(text)
	})
	_ = conn.CloseWrite()
	expect(t, conn, string(text)+"the end")
	expectEnd(t, conn)
	receive(t, s.ended, "the end was not told")
}

// TestBrokenLoop has a loop end by itself: Run says so.
func TestBrokenLoop(t *testing.T) {
	listener := listen(t)
	var reactor *Reactor
	ready := make(chan struct{})
	cfg := childConfig(listener, func() { close(ready) })
	newHandler := cfg.NewHandler
	cfg.NewHandler = func(l *Loop) Handler {
		reactor = l.reactor
		return newHandler(l)
	}
	ended := make(chan error, 1)
	go func() { ended <- Run(context.Background(), cfg) }()
	receive(t, ready, "it does not serve")
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)                                                          //nolint:errcheck // nothing was written
	if err := unix.Dup3(null, reactor.loops[1].epoll, unix.O_CLOEXEC); err != nil { // its next epoll_wait fails
		t.Fatal(err)
	}
	reactor.loops[1].wake()
	if err := receive(t, ended, "it does not end"); !errors.Is(err, ErrEnded) {
		t.Errorf("Run returned %v, want %v", err, ErrEnded)
	}
}
