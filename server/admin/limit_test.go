package admin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"dreadlock/server/noise"
)

// crowd fills a limit with connections, each older by a second than the next one. They are from the addresses in turns.
func crowd(l *limit, from ...string) (conns []*limitedConn) {
	oldest := time.Now().Add(-time.Hour)
	for i := range maxOpen {
		near, _ := net.Pipe()
		c := &limitedConn{Conn: near, limit: l, from: noise.Address(netip.MustParseAddr(from[i%len(from)]))}
		if _, ok := l.tryEnter(c); !ok {
			panic("no place")
		}
		c.since = oldest.Add(time.Duration(i) * time.Second)
		conns = append(conns, c)
	}
	return conns
}

func isClosed(c *limitedConn) bool {
	return errors.Is(c.SetDeadline(time.Time{}), io.ErrClosedPipe)
}

// A new connection gets the place of the one that has been silent longest, at the address with the most of them.
func TestVictim(t *testing.T) {
	const noisy, quiet, other = "10.0.0.1", "10.0.0.2", "10.0.0.3"
	for _, c := range []struct {
		name string
		from []string
		busy []int // that serve a request
		want int   // which one leaves
	}{
		{"one address", []string{noisy}, nil, 0},
		{"the oldest is of an address that has fewer", []string{quiet, noisy, noisy}, nil, 1},
		{"one that serves a request stays", []string{noisy}, []int{0, 1}, 2},
		{"those that serve a request do not count", []string{quiet, noisy, noisy, other, other}, []int{1, 2, 6}, 3},
	} {
		l := newLimit()
		conns := crowd(l, c.from...)
		for _, i := range c.busy {
			if !l.hold(conns[i]) {
				t.Fatalf("%s: a request is refused", c.name)
			}
		}
		newcomer := &limitedConn{limit: l, from: noise.Address(netip.MustParseAddr(quiet))}
		if _, ok := l.tryEnter(newcomer); !ok {
			t.Errorf("%s: no place for a new connection", c.name)
		}
		for i, conn := range conns {
			if isClosed(conn) != (i == c.want) {
				t.Errorf("%s: connection %d is closed: %v, and %d should be", c.name, i, isClosed(conn), c.want)
			}
		}
		if len(l.open) != maxOpen {
			t.Errorf("%s: %d places are taken, want %d", c.name, len(l.open), maxOpen)
		}
	}
}

// A connection that has just come has some time to send its request, and one that was served a moment ago to send the next.
func TestNewcomersStay(t *testing.T) {
	l := newLimit()
	conns := crowd(l, "10.0.0.1")
	before := conns[0].since
	l.touch(conns[0])
	if !conns[0].since.After(before) {
		t.Error("a request does not count")
	}
	const inTheFuture = time.Hour // the newest of all, so that the test does not depend on the time it takes
	for _, c := range conns {
		c.since = time.Now().Add(inTheFuture)
	}
	if wait, ok := l.tryEnter(&limitedConn{limit: l}); ok || wait <= inTheFuture-time.Minute || wait > inTheFuture+newcomerTime {
		t.Errorf("a place for another one: %v, wait %v", ok, wait)
	}
	closed := make(chan struct{})
	close(closed)
	if l.enter(&limitedConn{limit: l}, closed) {
		t.Error("another one gets a place")
	}
	conns[3].Close()
	if _, ok := l.tryEnter(&limitedConn{limit: l}); !ok {
		t.Error("the place of one that has ended is not free")
	}
}

// At most maxRequests requests hold a place, so that there is always one for another connection.
func TestHold(t *testing.T) {
	l := newLimit()
	conns := crowd(l, "10.0.0.1")
	for i := range maxRequests {
		if !l.hold(conns[i]) {
			t.Fatalf("request %d is refused", i)
		}
	}
	if l.hold(conns[maxRequests]) {
		t.Error("there are more requests than may be")
	}
	l.release(conns[0])
	if !l.hold(conns[maxRequests]) {
		t.Error("the place of a request that has ended is not free")
	}
	if l.victim() == nil {
		t.Error("nobody could leave for a health check")
	}
}

// After an error of a connection or of the machine the caller can go on.
func TestAcceptError(t *testing.T) {
	for _, c := range []struct {
		err     error
		passing bool
	}{
		{syscall.ENOMEM, true},
		{syscall.EPROTO, true},
		{net.ErrClosed, false},
	} {
		_, err := newLimit().share(brokenListener{err: c.err}).Accept()
		temporary, ok := err.(interface{ Temporary() bool })
		if !errors.Is(err, c.err) || (ok && temporary.Temporary()) != c.passing {
			t.Errorf("%v: %#v", c.err, err)
		}
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

// Health is answered whoever else is there and whatever they do: connections that say nothing, slow headers, connections
// that are kept alive, and as many requests under way as may be.
func TestHealthWhileSaturated(t *testing.T) {
	s := slow{newFake(), make(chan struct{}, maxRequests), make(chan struct{})}
	url := serve(t, Config{Source: s})
	defer close(s.gone)
	address := url[len("http://"):]
	say := func(text string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	ask := func(path string, want int) {
		t.Helper()
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if r.StatusCode != want || want == http.StatusServiceUnavailable && r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, want %d; %v", path, r.StatusCode, want, r.Header)
		}
	}
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	for range maxRequests {
		say("GET /api/v1/deadlocks" + head + "\r\n")
		<-s.asked
	}
	ask("/api/v1/status", http.StatusServiceUnavailable)
	ask("/metrics", http.StatusServiceUnavailable)
	for name, text := range map[string]string{
		"silent":     "",
		"slow":       "GET /healthz" + head,
		"kept alive": "GET /healthz" + head + "\r\n",
	} {
		for range 4 * MaxConnections {
			conn := say(text)
			if name == "kept alive" {
				if n, err := conn.Read(make([]byte, 100)); n == 0 {
					t.Fatalf("no answer: %v", err)
				}
			}
		}
		ask("/healthz", http.StatusOK)
		ask("/readyz", http.StatusOK)
	}
}

// Who shows no token holds no place, whatever is asked for.
func TestStrangersHoldNothing(t *testing.T) {
	url := serve(t, Config{Source: newFake(), TokenFile: secretFile(t, "0123456789abcdef", 0o600)})
	for i := range 3 * maxRequests {
		r, err := http.Get(fmt.Sprintf("%s/api/v1/keys?prefix=%d", url, i))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusUnauthorized {
			t.Fatalf("request %d: %d, want 401", i, r.StatusCode)
		}
	}
}
