package reactor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freePort returns a port that nobody uses, below those that the kernel gives to port 0: no other test takes it in
// between.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if ln, err := net.Listen("tcp", ":"+strconv.Itoa(port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

func expectInUse(tb testing.TB, err error, address string) {
	tb.Helper()
	if !errors.Is(err, unix.EADDRINUSE) {
		tb.Fatalf("listen on a taken address: %v, want %v", err, unix.EADDRINUSE)
	}
	if !strings.Contains(err.Error(), address) {
		tb.Errorf("the error %q does not name %s", err, address)
	}
}

// expectEcho fails unless the address is served.
func expectEcho(tb testing.TB, address string) {
	tb.Helper()
	client := dial(tb, address)
	send(tb, client, "echo")
	expect(tb, client, "echo")
}

func echoing(h *handler) { h.opened = echo }

// TestListenTwice starts a second server on a port that is served: it fails, and the first one gets every connection.
func TestListenTwice(t *testing.T) {
	srv := start(t, setup{loops: 2, handler: echoing})
	port := srv.address[strings.LastIndex(srv.address, ":")+1:]
	for _, address := range []string{srv.address, ":" + port, "0.0.0.0:" + port} {
		_, err := setup{address: address}.start(t)
		expectInUse(t, err, port)
	}
	for range 10 {
		expectEcho(t, srv.address)
	}
	srv.stop()
	again := start(t, setup{address: srv.address, handler: echoing})
	expectEcho(t, again.address)
}

// TestListenTaken tries a port where another program listens.
func TestListenTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	address := ln.Addr().String()
	_, err = Listen(t.Context(), address, time.Second)
	expectInUse(t, err, address)
	_, err = Listen(t.Context(), ":"+strconv.Itoa(ln.Addr().(*net.TCPAddr).Port), time.Second)
	expectInUse(t, err, "listen :")
}

// TestListenAtOnce starts many servers on one port in the same instant, again and again. Exactly one serves.
func TestListenAtOnce(t *testing.T) {
	const rounds, starts = 15, 8
	for range rounds {
		address := "127.0.0.1:" + strconv.Itoa(freePort(t))
		var (
			group   sync.WaitGroup
			mu      sync.Mutex
			serving []*server
		)
		begin := make(chan struct{})
		for range starts {
			group.Go(func() {
				<-begin
				srv, err := setup{address: address, loops: 2, handler: echoing}.start(t)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					serving = append(serving, srv)
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("start: %v", err)
				}
			})
		}
		close(begin)
		group.Wait()
		if len(serving) != 1 {
			t.Fatalf("%d servers on %s, want 1", len(serving), address)
		}
		expectEcho(t, address)
		serving[0].stop()
	}
}

// TestListenAgain restarts on a port whose last connections were closed by the server, so that they are remembered for
// a while.
func TestListenAgain(t *testing.T) {
	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	for range 5 {
		srv := start(t, setup{address: address, loops: 2, handler: echoing})
		var clients []net.Conn
		for range 10 {
			client, _ := srv.dial()
			clients = append(clients, client)
		}
		srv.stop()
		for _, client := range clients {
			expectEnd(t, client)
			_ = client.Close()
		}
	}
}

// TestListenFamilies serves what the address says, and nothing else.
func TestListenFamilies(t *testing.T) {
	v4, v6 := "127.0.0.1", "::1"
	if ln, err := net.Listen("tcp", "[::1]:0"); err == nil {
		_ = ln.Close()
	} else {
		t.Logf("without IPv6, which this machine does not have: %v", err)
		v6 = ""
	}
	for host, serves := range map[string][]string{
		"127.0.0.1": {v4},
		"0.0.0.0":   {v4},
		"[::1]":     {v6},
		"[::]":      {v4, v6},
		"":          {v4, v6},
		"localhost": {},
	} {
		t.Run("host "+host, func(t *testing.T) {
			if v6 == "" && host == "[::1]" {
				t.Skip("no IPv6 on this machine")
			}
			srv := start(t, setup{address: host + ":0", loops: 2, handler: echoing})
			_, port, err := net.SplitHostPort(srv.address)
			if err != nil {
				t.Fatal(err)
			}
			if len(serves) == 0 {
				expectEcho(t, srv.address)
				return
			}
			for _, ip := range []string{v4, v6} {
				if ip == "" {
					continue
				}
				address := net.JoinHostPort(ip, port)
				if slices.Contains(serves, ip) {
					expectEcho(t, address)
				} else if conn, err := net.Dial("tcp", address); err == nil {
					_ = conn.Close()
					t.Errorf("%s is served", address)
				}
			}
		})
	}
}

func TestListenBadAddress(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1", "::1", ":port", ":65536", ":-1", "[::1:80", "localhost:80:80",
		"192.0.2.1:80", // nobody's: set aside for examples
		"[fe80::1%nosuchlink]:80",
	} {
		listener, err := Listen(t.Context(), address, time.Second)
		if err == nil {
			_ = listener.Close()
			t.Errorf("%q: no error", address)
			continue
		}
		if want := fmt.Sprintf("listen %s: ", address); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: the error %q does not name it", address, err)
		}
	}
}
