package reactor

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what must come. No machine needs it.
const patience = 30 * time.Second

// childEnv names the part that a process plays which a test has started.
const childEnv = "REACTOR_TEST_CHILD"

// TestMain fails the package if a test leaves a goroutine behind. In a child process it runs the child's part.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case childStarts:
		os.Exit(runStarts())
	case childStarves:
		os.Exit(runStarving())
	}
	goleak.VerifyTestMain(m,
		// The worker pool of gnet, which lives as long as the program.
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// childProcess returns this program, to be started in the part of a child.
func childProcess(tb testing.TB, part string) *exec.Cmd {
	tb.Helper()
	program, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childEnv+"="+part, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// setup says what server a test wants. The zero value is one loop on a free port of the loopback.
type setup struct {
	address   string
	loops     int
	tick      time.Duration
	keepAlive time.Duration
	linger    time.Duration
	log       io.Writer
	handler   func(h *handler) // fills in what the handler does
	stopping  func(srv *server)
	listeners []*Listener // beside that of the address
	admit     func(conn net.Conn) (info any, ok bool)
	abandoned func(info any, err error)
	failed    func(reason string)
	began     time.Time
	inherit   func(ctx context.Context, srv *server, h *Heir) error
}

// server is a reactor that runs in the test's own process.
type server struct {
	tb        testing.TB
	address   string
	keepAlive time.Duration
	handlers  []*handler
	accepted  chan *session // in the order in which they were opened
	stop      func()        // stops it and waits until it has ended
}

// start starts a server and stops it at the end of the test.
func start(tb testing.TB, s setup) *server {
	tb.Helper()
	srv, err := s.start(tb)
	if err != nil {
		tb.Fatalf("start: %v", err)
	}
	return srv
}

func (s setup) start(tb testing.TB) (*server, error) {
	if s.address == "" {
		s.address = "127.0.0.1:0"
	}
	s.keepAlive = max(s.keepAlive, time.Second)
	listener, err := Listen(tb.Context(), s.address, s.keepAlive)
	if err != nil {
		return nil, err
	}
	srv := &server{tb: tb, address: listener.Addr().String(), keepAlive: s.keepAlive, accepted: make(chan *session, 4096)}
	ready := make(chan struct{})
	cfg := Config{
		Listeners: append([]*Listener{{Listener: listener, Admit: s.admit}}, s.listeners...),
		Loops:     max(s.loops, 1),
		Tick:      max(s.tick, time.Millisecond),
		KeepAlive: s.keepAlive,
		Linger:    s.linger,
		Log:       zerolog.New(s.log),
		NewHandler: func(l *Loop) Handler {
			h := &handler{loop: l, accepted: srv.accepted}
			if s.handler != nil {
				s.handler(h)
			}
			srv.handlers = append(srv.handlers, h)
			return h
		},
		Start:        s.began,
		Ready:        func() { close(ready) },
		Abandoned:    s.abandoned,
		AcceptFailed: s.failed,
		Ending:       func() {},
		Stopping: func() {
			if s.stopping != nil {
				s.stopping(srv)
			}
		},
	}
	if s.inherit != nil {
		cfg.Inherit = func(ctx context.Context, h *Heir) error { return s.inherit(ctx, srv, h) }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		return nil, err
	case <-time.After(patience):
		cancel()
		return nil, fmt.Errorf("not ready within %s", patience)
	}
	srv.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				tb.Errorf("stop: %v", err)
			}
		case <-time.After(patience):
			tb.Error("the server has not stopped")
		}
	})
	tb.Cleanup(srv.stop)
	return srv, nil
}

// dial connects to the server and returns both ends of the connection.
func (srv *server) dial() (*net.TCPConn, *session) {
	srv.tb.Helper()
	conn := dial(srv.tb, srv.address)
	return conn, receive(srv.tb, srv.accepted, "the connection is not served")
}

// handler is the server's part of one loop. What the test does not fill in does nothing.
type handler struct {
	loop     *Loop
	accepted chan<- *session
	opened   func(s *session)
	receive  func(m *Message)
	expire   func(t *Timer)
	goOn     func()
	endTurn  func() (more bool)
	turns    atomic.Int64
}

func (h *handler) Accept(info any) Client {
	return &session{handler: h, info: info, ended: make(chan error, 1)}
}

func (h *handler) Receive(m *Message) {
	if c, ok := m.Body.(*call); ok {
		c.f()
		close(c.done)
	} else {
		h.receive(m)
	}
}

func (h *handler) Expire(t *Timer) { h.expire(t) }

func (h *handler) Continue() {
	if h.goOn != nil {
		h.goOn()
	}
}

func (h *handler) EndTurn() (more bool) {
	h.turns.Add(1)
	return h.endTurn != nil && h.endTurn()
}

// call is a function that travels to a loop.
type call struct {
	message Message // Body: the call
	f       func()
	done    chan struct{}
}

// do runs f on the loop and waits for it. It must not fail the test with Fatal: that is for the test's goroutine.
func (h *handler) do(tb testing.TB, f func()) {
	tb.Helper()
	c := &call{f: f, done: make(chan struct{})}
	c.message.Body = c
	h.loop.Send(&c.message)
	receive(tb, c.done, "the loop does not answer")
}

// hold stops the loop until it is released.
func (h *handler) hold(tb testing.TB) (release func()) {
	tb.Helper()
	held, released := make(chan struct{}), make(chan struct{})
	c := &call{done: make(chan struct{}), f: func() {
		close(held)
		<-released
	}}
	c.message.Body = c
	h.loop.Send(&c.message)
	receive(tb, held, "the loop does not answer")
	return func() { close(released) }
}

// settleSockets returns when the loop has handled what its sockets have had to say until now. A call comes in by a
// socket as well, so one more wait of epoll lies between two calls, and the first is behind what was there before.
func (h *handler) settleSockets(tb testing.TB) {
	tb.Helper()
	h.do(tb, func() {})
	h.do(tb, func() {})
}

// session is the server's end of a connection. Its fields belong to the loop.
type session struct {
	conn    Conn
	handler *handler
	info    any        // from Admit
	input   []byte     // what came, unless data takes it
	ended   chan error // gets what Closed was told
	lingers bool
	half    func() // the peer has ended its side
	drained func()
	data    func(p []byte)
	closed  func(err error)
	moved   func(loop int)
}

func (s *session) Conn() *Conn { return &s.conn }

func (s *session) Opened() {
	if s.handler.opened != nil {
		s.handler.opened(s)
	}
	s.handler.accepted <- s
}

func (s *session) Data(p []byte) {
	if s.data != nil {
		s.data(p)
	} else {
		s.input = append(s.input, p...)
	}
}

func (s *session) Drained() {
	if s.drained != nil {
		s.drained()
	}
}

func (s *session) Lingers(bool) bool { return s.lingers }

func (s *session) HalfClosed() { s.half() }

func (s *session) Moved(to int) { s.moved(to) }

// Closed would block the loop for ever if it was called twice.
func (s *session) Closed(err error) {
	if s.closed != nil {
		s.closed(err)
	}
	s.ended <- err
}

// echo makes the session send back what it gets.
func echo(s *session) { s.data = s.conn.Write }

// do runs f on the loop of the session.
func (s *session) do(tb testing.TB, f func()) {
	tb.Helper()
	s.handler.do(tb, f)
}

// allSent waits until nothing of the session's output is unsent.
func (s *session) allSent(tb testing.TB) {
	tb.Helper()
	eventually(tb, "output stays unsent although it was read", func() (sent bool) {
		s.do(tb, func() { sent = s.conn.Unsent() == 0 })
		return sent
	})
}

// receive returns what comes out of a channel, or that it was closed.
func receive[T any](tb testing.TB, c <-chan T, failure string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatal(failure)
		panic("not reached")
	}
}

// eventually polls for what nobody reports.
func eventually(tb testing.TB, failure string, reached func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !reached(); {
		if time.Now().After(deadline) {
			tb.Fatal(failure)
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is no event to wait for
	}
}

// dial connects to an address, and closes the connection at the end of the test.
func dial(tb testing.TB, address string) *net.TCPConn {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		tb.Fatalf("dial: %v", err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// reset closes a connection so that the peer gets a reset.
func reset(tb testing.TB, conn *net.TCPConn) {
	tb.Helper()
	if err := conn.SetLinger(0); err != nil {
		tb.Fatal(err)
	}
	_ = conn.Close()
}

func send(tb testing.TB, conn net.Conn, text string) {
	tb.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatalf("send %.20q: %v", text, err)
	}
}

func expect(tb testing.TB, conn net.Conn, want string) {
	tb.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		tb.Fatalf("received %.20q (%v), want %.20q", got[:n], err, want)
	}
}

// expectEnd fails if anything comes before the end of the stream.
func expectEnd(tb testing.TB, conn net.Conn) {
	tb.Helper()
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		tb.Fatalf("received %.20q (%v), want the end", rest, err)
	}
}
