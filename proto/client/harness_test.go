package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The worker pool of gnet, which the server links, lives as long as the program.
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// startServer runs the real server on a free port of the loopback, with one loop unless change says otherwise. It returns
// the address and a function that stops the server, which otherwise ends with the test.
func startServer(tb testing.TB, change func(*server.Config)) (address string, stop func()) {
	tb.Helper()
	_, address, stop = runServer(tb, change)
	return address, stop
}

// runServer is startServer for tests that ask the server itself as well.
func runServer(tb testing.TB, change func(*server.Config)) (srv *server.Server, address string, stop func()) {
	tb.Helper()
	ready := make(chan string, 1)
	cfg := server.DefaultConfig()
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.Loops = 1
	cfg.Ready = func(address string) { ready <- address }
	if change != nil {
		change(&cfg)
	}
	srv, err := server.New(cfg)
	if err != nil {
		tb.Fatalf("the server: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("the server: %v", err)
		}
	})
	select {
	case address = <-ready:
	case err := <-ended:
		cancel()
		tb.Fatalf("the server: %v", err)
	}
	tb.Cleanup(stop)
	return srv, address, stop
}

// at makes a server listen at an address, such as that of one that was stopped.
func at(address string) func(*server.Config) {
	return func(cfg *server.Config) { cfg.Listen = []string{address} }
}

// newClient returns a client with short pauses between attempts. It is closed at the end of the test.
func newClient(tb testing.TB, address string, o Options) *Client {
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	c := New(address, o)
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// patient returns a context for calls that end long before it.
func patient(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), prototest.Patience)
	tb.Cleanup(cancel)
	return ctx
}

func mustLock(tb testing.TB, c *Client, key string) *Lock {
	tb.Helper()
	l, err := c.Lock(patient(tb), key, prototest.Patience)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func mustUnlock(tb testing.TB, l *Lock) {
	tb.Helper()
	if err := l.Unlock(patient(tb)); err != nil {
		tb.Fatal(err)
	}
}

// mustEnd waits for a channel to be closed.
func mustEnd(tb testing.TB, what string, ch <-chan struct{}) {
	tb.Helper()
	select {
	case <-ch:
	case <-time.After(prototest.Patience):
		tb.Fatalf("no %s within %s", strings.TrimPrefix(what, "the "), prototest.Patience)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// result is the result of Lock.
type result struct {
	lock *Lock
	err  error
}

// lockLater calls Lock on a goroutine of its own.
func lockLater(ctx context.Context, c *Client, key string, wait time.Duration) <-chan result {
	results := make(chan result, 1)
	go func() {
		l, err := c.Lock(ctx, key, wait)
		results <- result{l, err}
	}()
	return results
}

// listen serves connections over plain TCP: see serveAll.
func listen(tb testing.TB, serve func(*net.TCPConn)) (address string) {
	tb.Helper()
	l := listenOn(tb, "tcp", "127.0.0.1:0")
	serveAll(tb, l, func(conn net.Conn) { serve(conn.(*net.TCPConn)) })
	return l.Addr().String()
}

func listenOn(tb testing.TB, network, address string) net.Listener {
	tb.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// serveAll serves the connections of a listener, each on a goroutine of its own, until the end of the test. They are
// closed when serve returns.
func serveAll(tb testing.TB, l net.Listener, serve func(net.Conn)) {
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
}

// takeLine reads one command, after it has answered a name; false is the end of the connection.
func takeLine(conn net.Conn) bool {
	for {
		var line []byte
		for b := make([]byte, 1); b[0] != '\n'; line = append(line, b[0]) {
			if _, err := conn.Read(b); err != nil {
				return false
			}
		}
		if !bytes.HasPrefix(line, []byte("name ")) {
			return true
		}
		reply(conn, namedReply)
	}
}

// namedReply is the answer of a fake server to a name.
const namedReply = "n named 60000 00000000000000af\r\n"

// takeLines reads n commands; false is the end of the connection.
func takeLines(conn net.Conn, n int) bool {
	for range n {
		if !takeLine(conn) {
			return false
		}
	}
	return true
}

func reply(conn net.Conn, text string) { _, _ = io.WriteString(conn, text) }

// relay passes commands and answers between clients and a server. It records the commands, and can cut connections.
type relay struct {
	tb      testing.TB
	address string // for New

	mu       sync.Mutex
	target   string // the server's address
	change   *sync.Cond
	commands []string // that have been passed on, without the names
	names    []string // the commands that say a name
	accepted int      // connections
	open     map[net.Conn]struct{}
}

// startRelay starts a relay that is reached over plain TCP.
func startRelay(tb testing.TB, target string) *relay {
	return startRelayOn(tb, listenOn(tb, "tcp", "127.0.0.1:0"), "", target)
}

// startRelayOn starts a relay that is reached by a listener, whose address has that scheme.
func startRelayOn(tb testing.TB, l net.Listener, scheme, target string) *relay {
	r := &relay{tb: tb, address: scheme + l.Addr().String(), target: target, open: make(map[net.Conn]struct{})}
	r.change = sync.NewCond(&r.mu)
	serveAll(tb, l, func(near net.Conn) {
		var target string
		r.update(func() {
			r.accepted++
			r.open[near] = struct{}{}
			target = r.target
		})
		defer r.update(func() { delete(r.open, near) })
		far, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		var back sync.WaitGroup
		back.Go(func() {
			_, _ = io.Copy(near, far)
			_ = near.Close()
		})
		in := bufio.NewReader(near)
		for {
			command, err := in.ReadString('\n')
			if err != nil {
				break
			}
			r.update(func() { // whoever has the answer finds the command noted
				if _, err = io.WriteString(far, command); err != nil {
					return
				}
				command := command[:len(command)-2]
				if strings.HasPrefix(command, "name ") {
					r.names = append(r.names, command)
				} else {
					r.commands = append(r.commands, command)
				}
			})
			if err != nil {
				break
			}
		}
		_ = far.Close()
		back.Wait()
	})
	return r
}

func (r *relay) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.change.Broadcast()
}

// await waits until the relay has reached a state.
func (r *relay) await(what string, reached func() bool) {
	r.tb.Helper()
	late := false
	timer := time.AfterFunc(prototest.Patience, func() { r.update(func() { late = true }) })
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !reached() {
		if late {
			r.tb.Fatalf("%s: %d connections, %d open, commands %.200q", what, r.accepted, len(r.open), r.commands)
		}
		r.change.Wait()
	}
}

// awaitOpen waits until n connections are open.
func (r *relay) awaitOpen(n int) {
	r.tb.Helper()
	r.await("open connections", func() bool { return len(r.open) == n })
}

// awaitCommand waits until a command has been passed on and executed, which needs a server with one loop: it serves
// connections in the order in which their input arrived. That of a new connection cannot come before the command; that of an
// old one could, if the loop had not yet slept since it was served last.
func (r *relay) awaitCommand(command string) {
	r.tb.Helper()
	r.await(command, func() bool { return slices.Contains(r.commands, command) })
	prototest.Dial(r.tb, r.target).Do("unlock nobodys", "e not locked")
}

// count returns the number of connections that have been made.
func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// said returns the commands that were passed on.
func (r *relay) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.commands)
}

// cut ends all connections, without the closing alert of TLS.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		_ = conn.Close()
	}
}

// wantErr expects an error that is all of want.
func wantErr(tb testing.TB, got error, want ...error) {
	tb.Helper()
	for _, err := range want {
		if !errors.Is(got, err) {
			tb.Errorf("got %v, want %v", got, err)
		}
	}
}

// wantText expects a *ServerError.
func wantText(tb testing.TB, got error, text string) {
	tb.Helper()
	var refusal *ServerError
	if !errors.As(got, &refusal) || refusal.Text != text {
		tb.Errorf("got %v, want %q from the server", got, text)
	}
}
