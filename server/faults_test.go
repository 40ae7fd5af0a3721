package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// What the tests of faults have in common: connections and keys of a chosen loop, barriers, a loop that stands still,
// peers that do not read, and the question whether everything is free again.

// dialOn connects a client that the loop serves. A connection goes to the loop with the fewest, so those that go elsewhere stay
// until then.
func (d *daemon) dialOn(loop int) *prototest.Client {
	d.tb.Helper()
	for range 200 {
		c := d.dial()
		if d.loopOf(c) == loop {
			return c
		}
		defer c.Close()
	}
	d.tb.Fatalf("no connection lands on loop %d", loop)
	return nil
}

// loopOf returns the loop that serves a client. The kernel tells which epoll instance watches the server's end of the
// connection.
func (d *daemon) loopOf(c *prototest.Client) int {
	d.tb.Helper()
	c.Do("unlock neverlocked", "e not locked") // it has been accepted
	return d.loopOfPort(c.Conn().LocalAddr().(*net.TCPAddr).Port)
}

func (d *daemon) loopOfPort(port int) int {
	d.tb.Helper()
	loop, _ := d.watched(port)
	return loop
}

// descriptorOf returns the server's descriptor of the connection from a port of the loopback.
func (d *daemon) descriptorOf(port int) int {
	d.tb.Helper()
	_, fd := d.watched(port)
	return fd
}

// watched returns the loop that watches the connection from a port of the loopback, and its descriptor. For a moment after it
// was accepted, and while it moves, a connection has another descriptor as well, and perhaps no loop.
func (d *daemon) watched(port int) (loop, fd int) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		for loop = range d.server.shards {
			if fd = d.watchedBy(loop, port); fd >= 0 {
				return nil
			}
		}
		return fmt.Errorf("no loop watches the connection from port %d", port)
	})
	return loop, fd
}

// watchedBy returns the descriptor of the connection from a port of the loopback if the loop watches it, else -1.
func (d *daemon) watchedBy(loop, port int) int {
	epoll := reflect.ValueOf(d.server.shards[loop].loop).Elem().FieldByName("epoll").Int() // constant since the loop is seated
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.FormatInt(epoll, 10))
	if err != nil {
		d.tb.Fatal(err)
	}
	for line := range bytes.Lines(info) {
		f := bytes.Fields(line)
		if len(f) < 2 || string(f[0]) != "tfd:" {
			continue
		}
		fd, _ := strconv.Atoi(string(f[1]))
		peer, _ := unix.Getpeername(fd)
		if in, ok := peer.(*unix.SockaddrInet4); ok && in.Port == port {
			return fd
		}
	}
	return -1
}

// canaries are clients, one of each loop, that only show that the loops have come to a point.
type canaries struct {
	clients []*prototest.Client
	keys    []string // nobody locks them
}

func (d *daemon) canaries() *canaries {
	cs := &canaries{}
	for loop := range d.server.cfg.Loops {
		cs.clients = append(cs.clients, d.dialOn(loop))
		keys := d.keysOf(loop, 1000)
		cs.keys = append(cs.keys, keys[999])
	}
	return cs
}

// pass returns when whatever was sent to clients of the loop from before has been read, and the requests that came of
// it have been served in the loop to: epoll and mailboxes keep the order.
func (cs *canaries) pass(from, to int) {
	cs.clients[from].Do("unlock "+cs.keys[to], "e not locked")
}

// passAll is pass for every pair of loops.
func (cs *canaries) passAll() {
	for from := range cs.clients {
		for to := range cs.clients {
			cs.pass(from, to)
		}
	}
}

// pairs calls f for every pair of a connection's loop and a key's loop.
func (d *daemon) pairs(f func(conn, key int)) {
	for conn := range d.server.cfg.Loops {
		for key := range d.server.cfg.Loops {
			f(conn, key)
		}
	}
}

// wantFree proves that keys are free and that nobody waits for them: whoever did would be granted the key by the first
// unlock, and the second lock would not come through.
func (d *daemon) wantFree(keys ...string) {
	d.tb.Helper()
	c := d.dial()
	for range 2 {
		for _, key := range keys {
			c.Do("lock "+key+" 600000", "l locked")
		}
		for _, key := range keys {
			c.Do("unlock "+key, "u unlocked")
		}
	}
	c.Close()
}

// wantConnections waits until so many connections are counted.
func (d *daemon) wantConnections(n int) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if got := d.server.connections.Load(); got != int64(n) {
			return fmt.Errorf("%d connections are counted, want %d", got, n)
		}
		return nil
	})
}

// eventually waits until check returns nil.
func eventually(tb testing.TB, check func() error) {
	tb.Helper()
	deadline := time.Now().Add(prototest.Patience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for err := check(); err != nil; err = check() {
		if time.Now().After(deadline) {
			tb.Fatal(err)
		}
		<-again.C
	}
}

// gate is a log that a loop can be made to stand still in.
type gate struct {
	logLines
	mu     sync.Mutex
	holds  string        // the next line with that text is held up; empty for none
	held   chan struct{} // closed when a line is
	opened chan struct{}
}

func (g *gate) Write(line []byte) (int, error) {
	g.mu.Lock()
	closing := g.holds != "" && bytes.Contains(line, []byte(g.holds))
	if closing {
		g.holds = ""
	}
	held, opened := g.held, g.opened
	g.mu.Unlock()
	if closing {
		close(held)
		<-opened
	}
	return g.logLines.Write(line)
}

// hold blocks the writer of the next line with a text until open is called.
func (g *gate) hold(text string) (held <-chan struct{}, open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds = text
	g.held, g.opened = make(chan struct{}), make(chan struct{})
	return g.held, sync.OnceFunc(func() { close(g.opened) })
}

// startGated starts a daemon whose loops can be frozen.
func startGated(tb testing.TB, change func(*Config)) (*daemon, *gate) {
	g := &gate{}
	d := startDaemon(tb, func(cfg *Config) {
		cfg.Log = zerolog.New(g)
		if change != nil {
			change(cfg)
		}
	})
	return d, g
}

// freeze makes the loop stand still, in the warning about a syntax error, until thaw is called. Messages for it stay in
// its mailbox meanwhile. The warnings must not have been used up by a burst.
func (d *daemon) freeze(g *gate, loop int) (thaw func()) {
	d.tb.Helper()
	bad := d.dialOn(loop)
	held, thaw := g.hold("syntax error")
	d.tb.Cleanup(thaw)
	bad.Write([]byte("!"))
	select {
	case <-held:
	case <-time.After(prototest.Patience):
		d.tb.Fatal("the loop does not warn")
	}
	return thaw
}

// dialNarrow connects with socket buffers that together hold little more than 250 KB: the kernel sizes the server's by
// the largest segment that the client takes. Others hold megabytes.
func (d *daemon) dialNarrow() *net.TCPConn {
	d.tb.Helper()
	dialer := net.Dialer{Timeout: prototest.Patience, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 48<<10))
		}), err)
	}}
	conn, err := dialer.DialContext(context.Background(), "tcp", d.address)
	if err != nil {
		d.tb.Fatal(err)
	}
	tcp := conn.(*net.TCPConn)
	d.tb.Cleanup(func() { _ = tcp.Close() })
	_ = tcp.SetDeadline(time.Now().Add(2 * prototest.Patience))
	return tcp
}

// dialNarrowOn is dialNarrow for a client that the loop serves.
func (d *daemon) dialNarrowOn(loop int) *net.TCPConn {
	d.tb.Helper()
	for range 200 {
		conn := d.dialNarrow()
		fmt.Fprint(conn, "unlock neverlocked\r\n")
		answer := make([]byte, len("e not locked\r\n"))
		if _, err := io.ReadFull(conn, answer); err != nil {
			d.tb.Fatal(err)
		}
		if d.loopOfPort(conn.LocalAddr().(*net.TCPAddr).Port) == loop {
			return conn
		}
		defer conn.Close()
	}
	d.tb.Fatalf("no connection lands on loop %d", loop)
	return nil
}

// wantRead waits until the server has read everything that was sent.
func (d *daemon) wantRead(conn *net.TCPConn) {
	d.tb.Helper()
	fd := d.descriptorOf(conn.LocalAddr().(*net.TCPAddr).Port)
	raw, err := conn.SyscallConn()
	if err != nil {
		d.tb.Fatal(err)
	}
	eventually(d.tb, func() error {
		var sending int
		var failed error
		err := raw.Control(func(fd uintptr) { sending, failed = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		unread, err2 := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err := errors.Join(err, failed, err2); err != nil || sending+unread > 0 {
			return fmt.Errorf("%d bytes are being sent, %d are unread: %w", sending, unread, err)
		}
		return nil
	})
}

// writeSome writes what the socket takes without waiting, and returns how much that was.
func writeSome(fd int, p []byte) int {
	n, err := unix.Write(fd, p)
	if err != nil {
		return 0
	}
	return n
}

func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// cycle is a pipeline that can be repeated: it leaves its key as it found it, free, and gives each kind of answer that
// one client alone can get.
type cycle struct {
	commands, answers []byte
}

// makeCycle pads each command to width bytes, since a client that sends much more than it gets back is the interesting
// one in some tests.
func makeCycle(width int, keys ...string) cycle {
	var c cycle
	for _, key := range keys {
		for _, exchange := range [][2]string{
			{"unlock " + key, "e not locked"},
			{"lock " + key + " 0", "l locked"},
			{"lock " + key + " 99999", "e already locked"},
			{"unlock " + key, "u unlocked"},
		} {
			c.commands = append(c.commands, exchange[0]...)
			c.commands = append(c.commands, strings.Repeat(" ", max(0, width-2-len(exchange[0])))...)
			c.commands = append(c.commands, "\r\n"...)
			c.answers = append(c.answers, exchange[1]+"\r\n"...)
		}
	}
	return c
}

// flood sends the cycle n times, reading nothing.
func (c cycle) flood(w io.Writer, n int) error {
	chunk := max(1, min(n, (64<<10)/len(c.commands)))
	buf := bytes.Repeat(c.commands, chunk)
	for n > 0 {
		k := min(n, chunk)
		if _, err := w.Write(buf[:k*len(c.commands)]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// wantAnswers reads the answers of n cycles and compares every byte.
func (c cycle) wantAnswers(r io.Reader, n int) error {
	chunk := max(1, min(n, (64<<10)/len(c.answers)))
	want := bytes.Repeat(c.answers, chunk)
	got := make([]byte, len(want))
	for done := 0; done < n; {
		k := min(n-done, chunk) * len(c.answers)
		if m, err := io.ReadFull(r, got[:k]); err != nil {
			return fmt.Errorf("%d bytes into the answers of cycles %d to %d of %d: %w", m, done, done+chunk, n, err)
		}
		if !bytes.Equal(got[:k], want[:k]) {
			return fmt.Errorf("wrong answers in cycles %d to %d of %d", done, done+chunk, n)
		}
		done += k / len(c.answers)
	}
	return nil
}

// wantEOF expects the end of the stream, by FIN.
func wantEOF(r io.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(r, 100))
	if err != nil {
		return fmt.Errorf("want the end of the connection: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("want the end of the connection, got %q", rest)
	}
	return nil
}

// heap returns the bytes of memory in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
