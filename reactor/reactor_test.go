package reactor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestStopping stops a server with clients: while Stopping runs, the loops still serve them; then each connection is
// closed, and Run returns without an error.
func TestStopping(t *testing.T) {
	stopped := make(chan struct{})
	srv := start(t, setup{
		loops:   2,
		handler: echoing,
		stopping: func(srv *server) {
			defer close(stopped)
			for range 4 {
				expectEcho(t, srv.address)
			}
			for _, h := range srv.handlers {
				h.do(t, func() {})
			}
		},
	})
	var clients []*net.TCPConn
	var sessions []*session
	for range 10 {
		client, s := srv.dial()
		clients, sessions = append(clients, client), append(sessions, s)
	}
	srv.stop()
	receive(t, stopped, "Stopping was not called")
	for i, client := range clients {
		if err := receive(t, sessions[i].ended, "a connection was not closed"); err != nil {
			t.Errorf("a connection ended with %v, want none", err)
		}
		expectEnd(t, client)
	}
}

// TestStopBeforeStart runs with a context that has ended already.
func TestStopBeforeStart(t *testing.T) {
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ready, stopping := 0, 0
	err = Run(ctx, Config{
		Listener:   listener,
		Loops:      3,
		Tick:       time.Millisecond,
		KeepAlive:  time.Second,
		Log:        zerolog.Nop(),
		NewHandler: func(l *Loop) Handler { return &handler{loop: l} },
		Ready:      func() { ready++ },
		Stopping:   func() { stopping++ },
		Ending:     func() {},
	})
	if err != nil || ready != 1 || stopping != 1 {
		t.Errorf("Run returned %v, called Ready %d times and Stopping %d times; want no error, once, once", err, ready, stopping)
	}
}

// TestRunFails gives the loops an address that has been taken after Listen: the error says so.
func TestRunFails(t *testing.T) {
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Address()
	listener.Close()
	other, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = Run(context.Background(), Config{
		Listener:   listener,
		Loops:      1,
		Tick:       time.Millisecond,
		KeepAlive:  time.Second,
		Log:        zerolog.Nop(),
		NewHandler: func(l *Loop) Handler { return &handler{loop: l} },
		Ready:      func() { t.Error("Ready was called") },
		Stopping:   func() { t.Error("Stopping was called") },
		Ending:     func() {},
	})
	if err == nil || errors.Is(err, ErrEnded) {
		t.Errorf("Run returned %v, want what is wrong with the address", err)
	}
}

// atLaunch is a log that does something when the engine listens and its loops have not started: gnet logs that.
type atLaunch struct{ do func() }

func (a *atLaunch) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("Launching gnet")) {
		a.do()
	}
	return len(line), nil
}

// TestEarlyClients connects when the port listens and no loop is known yet. These connections are served when their
// loop is: what they sent by then arrives once, in order, as one that ends meanwhile does no harm.
func TestEarlyClients(t *testing.T) {
	for _, loops := range []int{1, 4} {
		address := "127.0.0.1:" + strconv.Itoa(freePort(t))
		var clients []*net.TCPConn
		srv := start(t, setup{
			address: address,
			loops:   loops,
			handler: echoing,
			log: &atLaunch{do: func() {
				for i := range 30 {
					client := dial(t, address)
					send(t, client, "early")
					switch i % 5 {
					case 1:
						reset(t, client)
					case 2:
						_ = client.Close()
					default:
						clients = append(clients, client)
					}
				}
			}},
		})
		if len(clients) == 0 {
			t.Fatal("gnet does not log its launch any more: nothing was tested")
		}
		for _, client := range clients {
			expect(t, client, "early")
			send(t, client, "late")
			expect(t, client, "late")
		}
		h := srv.handlers[0]
		h.do(t, func() {
			r := h.loop.reactor
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(r.early) > 0 || len(r.byGnet) != loops {
				t.Errorf("%d connections wait for their loop, %d of %d loops are known", len(r.early), len(r.byGnet), loops)
			}
		})
		srv.stop()
	}
}

// unstarted is a connection of a loop that has not started, with what gnet has read of it.
type unstarted struct {
	gnet.Conn
	input []byte
}

func (*unstarted) EventLoop() gnet.EventLoop { return nil }
func (*unstarted) Fd() int                   { return -1 }
func (*unstarted) SetContext(any)            {}
func (u *unstarted) InboundBuffered() int    { return len(u.input) }

func (u *unstarted) Next(n int) (p []byte, err error) {
	p, u.input = u.input[:n], u.input[n:]
	return p, nil
}

// TestStarted has connections come, say something and end before their loop starts. Those that are left are served then,
// with what they said; the others are not, for their descriptors may be somebody else's.
func TestStarted(t *testing.T) {
	r := &Reactor{cfg: Config{Log: zerolog.Nop()}, byGnet: make(map[gnet.EventLoop]*Loop)}
	accepted := make(chan *session, 3)
	h := &handler{accepted: accepted}
	h.loop = &Loop{reactor: r, handler: h, wheel: NewWheel(0)}
	speaker, ended, silent := &unstarted{input: []byte("early")}, &unstarted{}, &unstarted{}
	for _, conn := range []*unstarted{speaker, ended, silent} {
		if l := r.loopOf(conn); l != nil {
			t.Error("a loop that has not started is known")
		}
	}
	r.forget(ended)
	r.started(h.loop, &unstarted{})
	close(accepted)
	var inputs []string
	for s := range accepted {
		inputs = append(inputs, string(s.input))
	}
	if !slices.Equal(inputs, []string{"early", ""}) {
		t.Errorf("clients are served that said %q, want one that said \"early\" and a silent one", inputs)
	}
	if len(r.early) > 0 || r.loopOf(&unstarted{}) != h.loop {
		t.Error("the loop is not known after its start")
	}
}

// TestDescriptors counts the descriptors of the process before and after a server: none is left behind, neither by a
// start that fails.
func TestDescriptors(t *testing.T) {
	serve := func() {
		srv := start(t, setup{loops: 3, handler: echoing})
		if _, err := (setup{address: srv.address}).start(t); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("the second start: %v", err)
		}
		var clients []*net.TCPConn
		for range 20 {
			client, _ := srv.dial()
			send(t, client, "echo")
			expect(t, client, "echo")
			clients = append(clients, client)
		}
		reset(t, clients[0])
		_ = clients[1].Close()
		srv.stop()
		for _, client := range clients {
			_ = client.Close()
		}
	}
	serve() // what the runtime opens once for the process stays
	before := descriptors(t)
	serve()
	if after := descriptors(t); !slices.Equal(after, before) {
		t.Errorf("descriptors %v before, %v after", before, after)
	}
}

// descriptors returns the names of the process's open descriptors.
func descriptors(tb testing.TB) (names []string) {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	for _, entry := range entries {
		// The one of the directory itself is closed by now.
		if _, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil {
			names = append(names, entry.Name())
		}
	}
	return names
}
