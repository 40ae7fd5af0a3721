package reactor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// failWakes has system calls that wake loops fail, as many as the counter says that it returns. It must be called before the
// server starts.
func failWakes(t *testing.T, err error) (failures *atomic.Int64) {
	failures = new(atomic.Int64)
	original := writeWaker
	writeWaker = func(fd int, p []byte) (int, error) {
		if failures.Add(-1) >= 0 {
			return -1, err
		}
		return original(fd, p)
	}
	t.Cleanup(func() { writeWaker = original })
	return failures
}

// TestFailedWakeUp has the wake-ups of loops fail in every way. A message that is sent meanwhile arrives, and so do all that
// follow.
func TestFailedWakeUp(t *testing.T) {
	for _, err := range []error{unix.ENOBUFS, unix.ENOMEM, unix.EINTR, unix.EPERM, unix.EPIPE} {
		t.Run(err.Error(), func(t *testing.T) {
			var log lockedBuffer
			failures := failWakes(t, err)
			srv := start(t, setup{loops: 2, log: &log})
			for range 3 {
				for _, h := range srv.handlers {
					failures.Store(3)
					h.do(t, func() {})
				}
			}
			failures.Store(0)
			if said := log.contains("a loop cannot be woken"); said != (err != unix.EINTR) { //nolint:errorlint // this very one
				t.Errorf("the log says that a loop cannot be woken: %t", said)
			}
		})
	}
}

// TestFailedWakeUpOfTurn has a loop fail to wake itself for another turn.
func TestFailedWakeUpOfTurn(t *testing.T) {
	failures := failWakes(t, unix.ENOBUFS)
	done := make(chan struct{})
	srv := start(t, setup{handler: func(h *handler) {
		left := 0
		h.receive = func(*Message) { left = 5 }
		h.goOn = func() {
			if left > 0 {
				if left--; left == 0 {
					close(done)
				}
			}
		}
		h.endTurn = func() bool { return left > 0 }
	}})
	srv.handlers[0].loop.Send(&Message{})
	failures.Store(2)
	receive(t, done, "the loop does not go on")
}

// TestLostWakeUpConnection breaks the wake-up connection of a loop that has clients: it is replaced, and nobody notices.
func TestLostWakeUpConnection(t *testing.T) {
	var log lockedBuffer
	srv := start(t, setup{loops: 2, log: &log, handler: func(h *handler) { h.opened = echo }})
	client := dial(t, srv.address)
	for range 3 {
		for _, h := range srv.handlers {
			_ = unix.Shutdown(h.loop.waker, unix.SHUT_RDWR) // gnet reads the end and closes its side
			h.do(t, func() {})
			h.do(t, func() {})
		}
		send(t, client, "echo")
		expect(t, client, "echo")
	}
	if !log.contains("is replaced") {
		t.Error("the log does not say that a wake-up connection was replaced")
	}
}

// lockedBuffer is a log that any goroutine may write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) contains(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Contains(b.buf.Bytes(), []byte(text))
}

// TestWakeUpLostWithItsConnection breaks the wake-up connection of a loop when a byte is in it, which is lost as well: what the
// byte stands for is done.
func TestWakeUpLostWithItsConnection(t *testing.T) {
	srv := start(t, setup{})
	h := srv.handlers[0]
	held, released := make(chan struct{}), make(chan struct{})
	hold := gnet.RunnableFunc(func(context.Context) error { // between two turns: each looks at the mailbox at its end
		close(held)
		<-released
		return nil
	})
	if err := h.loop.events.Execute(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	receive(t, held, "the loop does not answer")
	done := make(chan struct{})
	c := &call{f: func() {}, done: done}
	c.message.Body = c
	h.loop.Send(&c.message)
	if n, err := unix.Read(wakeUpSocket(t, h.loop), make([]byte, 100)); n < 1 || err != nil {
		t.Fatalf("read %d bytes (%v), want those of the wake-up", n, err)
	}
	_ = unix.Shutdown(h.loop.waker, unix.SHUT_RDWR)
	close(released)
	receive(t, done, "the loop is deaf")
}

// wakeUpSocket returns gnet's descriptor of the wake-up connection of a loop without clients.
func wakeUpSocket(tb testing.TB, l *Loop) int {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(fdinfo, strconv.Itoa(l.epoll)))
	if err != nil {
		tb.Fatal(err)
	}
	for _, fd := range watchedBy(text) {
		if kind, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); strings.HasPrefix(kind, "socket:") {
			return fd
		}
	}
	tb.Fatal("the loop watches no socket")
	return -1
}
