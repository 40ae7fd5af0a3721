package reactor

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// deafen has gnet fail to wake the loop from now on, until heal is called while the loop runs.
func deafen(tb testing.TB, l *Loop) (heal func()) {
	tb.Helper()
	eventfd, err := findEventfd(l.epoll)
	if err != nil {
		tb.Fatal(err)
	}
	original, err := unix.FcntlInt(uintptr(eventfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	readOnly, err := os.Open(os.DevNull)
	if err != nil {
		tb.Fatal(err)
	}
	defer readOnly.Close()
	replace := func(by int) {
		if err := unix.Dup3(by, eventfd, unix.O_CLOEXEC); err != nil {
			tb.Error(err)
		}
	}
	replace(int(readOnly.Fd()))
	tb.Cleanup(func() { _ = unix.Close(original) })
	return func() { replace(original) } // which the epoll instance has watched all the time
}

// deafenAsleep is deafen for a loop that gnet has to wake for the next thing: it is done with what it was woken for before.
func deafenAsleep(tb testing.TB, h *handler) (heal func()) {
	tb.Helper()
	h.settleSockets(tb)
	return deafen(tb, h.loop)
}

// TestDeafLoop has gnet fail to wake a loop for a new connection. That connection may end; those that come afterwards are
// served, and those that are connected do not notice.
func TestDeafLoop(t *testing.T) {
	abandoned := make(chan error, 10)
	srv := start(t, setup{handler: echoing, abandoned: func(_ any, err error) { abandoned <- err }})
	connected, _ := srv.dial()
	for range 3 {
		heal := deafenAsleep(t, srv.handlers[0])
		lost := dial(t, srv.address)
		if err := receive(t, abandoned, "the connection is not given up"); !errors.Is(err, unix.EBADF) {
			t.Errorf("it is given up for %v, want %v", err, unix.EBADF)
		}
		heal()
		expectEnd(t, lost)
		expectEcho(t, srv.address)
		send(t, connected, "echo")
		expect(t, connected, "echo")
	}
}

// TestDeafLoopWhenOthersWait has gnet fail to wake a loop for one of many connections that come at the same time: those who wait
// for the loop behind it are served.
func TestDeafLoopWhenOthersWait(t *testing.T) {
	const clients = 40
	served, abandoned := make(chan struct{}, clients), make(chan error, clients)
	srv := start(t, setup{
		handler:   func(h *handler) { h.opened = func(*session) { served <- struct{}{} } },
		abandoned: func(_ any, err error) { abandoned <- err },
	})
	heal := deafenAsleep(t, srv.handlers[0])
	release := srv.handlers[0].hold(t)
	for range clients {
		dial(t, srv.address)
	}
	if err := receive(t, abandoned, "no connection is given up"); !errors.Is(err, unix.EBADF) {
		t.Errorf("a connection is given up for %v, want %v", err, unix.EBADF)
	}
	heal()
	release()
	for range clients - 1 {
		receive(t, served, "a connection does not get to its loop")
	}
}

// TestDeafLoopMoves has gnet fail to wake a loop for a connection that moves there: that ends, and the next gets there.
func TestDeafLoopMoves(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: echoing})
	_, lost := srv.dial()
	client, s := srv.dial()
	for lost.handler == s.handler {
		client, s = srv.dial()
	}
	to := 1 - s.handler.loop.Index()
	s.moved = func(int) {}
	heal := deafenAsleep(t, srv.handlers[to])
	s.do(t, func() {
		if !s.conn.TryMove(to) {
			t.Error("the connection does not move")
		}
	})
	if err := receive(t, s.ended, "the connection does not end"); !errors.Is(err, unix.EBADF) {
		t.Errorf("it ends with %v, want %v", err, unix.EBADF)
	}
	heal()
	expectEnd(t, client)
	expectEcho(t, srv.address)
	expectEcho(t, srv.address)
	srv.handlers[to].settleSockets(t)
	select {
	case err := <-s.ended:
		t.Errorf("it ends once more, with %v", err)
	default:
	}
}

// TestDeafLoopIsWokenAgain has the wake-up that follows a failed one of gnet's fail as well, for a while.
func TestDeafLoopIsWokenAgain(t *testing.T) {
	failures := failWakes(t, unix.ENOBUFS)
	abandoned := make(chan error, 1)
	srv := start(t, setup{handler: echoing, abandoned: func(_ any, err error) { abandoned <- err }})
	heal := deafenAsleep(t, srv.handlers[0])
	failures.Store(10)
	dial(t, srv.address)
	receive(t, abandoned, "the connection is not given up")
	heal()
	expectEcho(t, srv.address)
}

// TestDeafLoopWithTasksLeft has a loop fail to wake itself for those of gnet's tasks that it has left for another turn: gnet
// writes that into its log, and nowhere else.
func TestDeafLoopWithTasksLeft(t *testing.T) {
	const tasks = netpoll.MaxPollEventsCap + 2*netpoll.MaxAsyncTasksAtOneTime // a turn does all but the last ones
	srv := start(t, setup{})
	l := srv.handlers[0].loop
	release := srv.handlers[0].hold(t)
	done := make(chan struct{}, tasks)
	task := gnet.RunnableFunc(func(context.Context) error {
		done <- struct{}{}
		return nil
	})
	for range tasks {
		if err := l.events.Execute(t.Context(), task); err != nil {
			t.Fatal(err)
		}
	}
	heal := deafen(t, l)
	release()
	for range tasks {
		receive(t, done, "a task is not done")
	}
	heal()
}

// TestStopDeafLoop stops a server one of whose loops gnet cannot wake.
func TestStopDeafLoop(t *testing.T) {
	srv := start(t, setup{loops: 2})
	deafenAsleep(t, srv.handlers[1])
	srv.stop()
}
