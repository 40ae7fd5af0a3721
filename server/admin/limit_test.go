package admin

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// The places are those of all listeners. Who waits for one gets it when a connection anywhere is closed.
func TestLimit(t *testing.T) {
	places := make(limit, 2)
	var listeners [2]net.Listener
	for i := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for range 2 {
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
		}
		listeners[i] = places.share(l)
	}
	accepted := make(chan net.Conn)
	accept := func(l net.Listener) {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}
	var conns [2]net.Conn
	for i, l := range listeners {
		go accept(l)
		conns[i] = <-accepted
	}
	go accept(listeners[0])
	select {
	case <-accepted:
		t.Fatal("there are more connections than places")
	default:
	}
	for range 2 { // the second one frees nothing
		conns[1].Close()
	}
	third := <-accepted
	if len(places) != 2 {
		t.Errorf("%d places are taken, want 2", len(places))
	}

	// Close ends the wait for a place.
	ended := make(chan error)
	go func() {
		_, err := listeners[1].Accept()
		ended <- err
	}()
	listeners[1].Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
	conns[0].Close()
	third.Close()
	if _, err := listeners[1].Accept(); err == nil || len(places) != 0 {
		t.Errorf("%v, and %d places are taken by nobody", err, len(places))
	}
}

// After an error of a connection or of the machine a place is free again, and the caller can go on.
func TestAcceptError(t *testing.T) {
	places := make(limit, 1)
	for _, c := range []struct {
		err     error
		passing bool
	}{
		{syscall.ENOMEM, true},
		{syscall.EPROTO, true},
		{net.ErrClosed, false},
	} {
		_, err := places.share(brokenListener{err: c.err}).Accept()
		temporary, ok := err.(interface{ Temporary() bool })
		if !errors.Is(err, c.err) || (ok && temporary.Temporary()) != c.passing {
			t.Errorf("%v: %#v", c.err, err)
		}
	}
	if len(places) != 0 {
		t.Errorf("%d places are taken by nobody", len(places))
	}
}

// brokenListener accepts nothing.
type brokenListener struct {
	net.Listener
	err error
}

func (l brokenListener) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Err: l.err}
}
