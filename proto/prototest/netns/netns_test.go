package netns

import (
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
)

// TestHosts: each host has its own ports, and its sockets stay on it wherever they are used.
func TestHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	const address = "127.0.0.1:6001"
	var listeners [2]net.Listener
	for i := range listeners {
		h, err := New()
		if err != nil {
			t.Skip(err)
		}
		defer h.Close()
		err = h.Do(func() (err error) {
			listeners[i], err = net.Listen("tcp", address)
			return err
		})
		if err != nil {
			t.Fatalf("host %d: %v", i, err)
		}
		defer listeners[i].Close()
		var conn net.Conn
		err = h.Do(func() (err error) {
			conn, err = net.Dial("tcp", address)
			return err
		})
		if err != nil {
			t.Fatalf("host %d: %v", i, err)
		}
		defer conn.Close()
		served, err := listeners[i].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer served.Close()
		if served.RemoteAddr().String() != conn.LocalAddr().String() {
			t.Errorf("host %d accepts %s, want %s", i, served.RemoteAddr(), conn.LocalAddr())
		}
	}
}

// TestGoexit: a function that ends its goroutine, as a test does that fails, does not keep its caller waiting.
func TestGoexit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	h, err := New()
	if err != nil {
		t.Skip(err)
	}
	defer h.Close()
	if err := h.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errNotReturned) {
		t.Errorf("%v, want %v", err, errNotReturned)
	}
}
