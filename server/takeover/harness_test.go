package takeover

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// pair is the two ends in one process, each with a process at the other end that is none.
type pair struct {
	tb     testing.TB
	p      *Predecessor // the successor's end
	s      *Successor   // the predecessor's end
	child  *fakeChild
	parent *fakeParent
}

func newTestPair(tb testing.TB) *pair {
	tb.Helper()
	ours, theirs, err := newPair()
	if err != nil {
		tb.Fatal(err)
	}
	other, err := newConn(theirs)
	if err != nil {
		tb.Fatal(err)
	}
	t := &pair{tb: tb, child: &fakeChild{ended: make(chan struct{}), end: other}, parent: &fakeParent{end: ours}}
	t.s, t.p = newSuccessor(ours, t.child), newPredecessor(other, t.parent)
	t.s.patience = 20 * time.Millisecond
	tb.Cleanup(func() {
		_ = ours.Close()
		_ = other.Close()
	})
	return t
}

// fakeChild is a process that ends by its end of the pair being closed.
type fakeChild struct {
	end    *conn
	ended  chan struct{}
	once   sync.Once
	killed bool
	leaves bool // its end of the pair stays open when it has ended: a child of its own has it
}

func (c *fakeChild) die() {
	c.once.Do(func() {
		if !c.leaves {
			_ = c.end.Close()
		}
		close(c.ended)
	})
}

func (c *fakeChild) pid() int              { return 4711 }
func (c *fakeChild) done() <-chan struct{} { return c.ended }
func (c *fakeChild) state() string         { return "exit status 3" }
func (c *fakeChild) signal(s os.Signal) error {
	if s == syscall.SIGKILL {
		c.killed = true
		c.die()
	}
	return nil
}

// fakeParent is a process that ends by its end of the pair being closed.
type fakeParent struct {
	end            *conn
	killed, waited bool
	leaves         bool // its end of the pair stays open when it has ended: a child of its own has it
}

func (p *fakeParent) kill() {
	p.killed = true
	if !p.leaves {
		_ = p.end.Close()
	}
}

func (p *fakeParent) awaitDeath(time.Duration) bool {
	p.waited = true
	return p.killed
}

// within returns a context that ends when nothing can be waited for any more.
func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), prototest.Patience)
	tb.Cleanup(cancel)
	return ctx
}

// shortly returns a context that ends soon: for waits that are to fail.
func shortly(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 50*time.Millisecond)
	tb.Cleanup(cancel)
	return ctx
}

// does runs the two sides at the same time and fails the test if one has an error.
func (t *pair) does(predecessor, successor func() error) {
	t.tb.Helper()
	var other error
	var both sync.WaitGroup
	both.Go(func() { other = successor() })
	err := predecessor()
	both.Wait()
	if err = errors.Join(err, other); err != nil {
		t.tb.Fatal(err)
	}
}

// greets does the first step. The successor gets the listeners.
func (t *pair) greets(listeners ...*Listener) {
	t.tb.Helper()
	ctx := within(t.tb)
	t.does(func() error {
		_, err := t.s.Greet(ctx, Hello{Version: "old", Loops: 2, Connections: 5}, listeners)
		return err
	}, func() error {
		if err := t.p.hear(ctx); err != nil {
			return err
		}
		return t.p.Prepared(ctx, Prepared{Room: 7, Version: "new"})
	})
}

// handsOver does everything up to ready.
func (t *pair) handsOver() {
	t.tb.Helper()
	t.greets()
	ctx := within(t.tb)
	estate := memory(t.tb, "estate")
	t.does(func() error {
		_, err := t.s.HandOver(ctx, Estate{}, estate, nil)
		return err
	}, func() error {
		if _, _, _, err := t.p.Receive(ctx); err != nil {
			return err
		}
		return t.p.conn.send(ctx, stepReady, verified{[]byte("digest")})
	})
}

// memory returns a file in memory.
func memory(tb testing.TB, content string) *os.File {
	tb.Helper()
	file, err := NewMemory()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = file.Close() })
	if _, err := file.WriteString(content); err != nil {
		tb.Fatal(err)
	}
	return file
}

// listen returns a listener, and one that can be passed.
func listen(tb testing.TB, key string, lock *os.File) (net.Listener, *Listener) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	passed, err := NewListener(key, l, lock)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(passed.Close)
	return l, passed
}

// says fails the test unless the error has all of the texts.
func says(tb testing.TB, err error, texts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			tb.Errorf("%v, want %q", err, text)
		}
	}
}

// isNonblock reports whether a descriptor does not block.
func isNonblock(tb testing.TB, fd uintptr) bool {
	tb.Helper()
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return flags&unix.O_NONBLOCK != 0
}

func isCloseOnExec(tb testing.TB, fd int) bool {
	tb.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return flags&unix.FD_CLOEXEC != 0
}
