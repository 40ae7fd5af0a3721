package reactor

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// TestStopping stops a server with clients: while Stopping runs, the loops still serve them; then each connection is
// closed, and Run returns without an error.
func TestStopping(t *testing.T) {
	stopped := make(chan struct{})
	var client *net.TCPConn
	srv := start(t, setup{
		loops:   2,
		handler: echoing,
		stopping: func(srv *server) {
			defer close(stopped)
			send(t, client, "echo")
			expect(t, client, "echo")
			for _, h := range srv.handlers {
				h.do(t, func() {})
			}
		},
	})
	var clients []*net.TCPConn
	var sessions []*session
	for range 10 {
		var s *session
		client, s = srv.dial()
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
	listener, err := Listen(t.Context(), "127.0.0.1:0", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ready, stopping := 0, 0
	err = Run(ctx, Config{
		Listeners:  []*Listener{{Listener: listener}},
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
