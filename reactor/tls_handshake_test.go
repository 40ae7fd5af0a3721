package reactor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"
)

// holdConn lets the first write through and holds back the others.
type holdConn struct {
	net.Conn
	writes int
	held   []byte
}

func (c *holdConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 1 {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// What was read beyond the handshake is not lost, nor is a part of a record.
func TestTLSBeyondHandshake(t *testing.T) {
	server, client := configs(t, tls.VersionTLS13) // the client has the last word
	for cut := range 20 {
		ours, theirs := net.Pipe()
		hold := &holdConn{Conn: theirs}
		s := &secured{tb: t, client: tls.Client(hold, client)}
		ended := make(chan error, 1)
		go func() {
			err := s.client.Handshake()
			_, _ = s.client.Write([]byte("lock a 0\r\n"))
			_, _ = s.client.Write([]byte("lock b 0\r\n"))
			_, _ = theirs.Write(hold.held[:len(hold.held)-cut])
			ended <- err
		}()
		var err error
		if s.server, err = Handshake(context.Background(), ours, server); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, ended, "the client's handshake does not end"); err != nil {
			t.Fatal(err)
		}
		if err := s.open(nil); err != nil || !bytes.HasPrefix(s.got, []byte("lock a 0\r\n")) {
			t.Fatalf("received %q (%v) from beyond the handshake", s.got, err)
		}
		if err := s.open(hold.held[len(hold.held)-cut:]); err != nil || string(s.got) != "lock a 0\r\nlock b 0\r\n" {
			t.Fatalf("received %q (%v) with the last %d bytes", s.got, err, cut)
		}
	}
}

// sockets returns the two ends of a connection.
func sockets(tb testing.TB) (ours, theirs net.Conn) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	theirs = dial(tb, listener.Addr().String())
	if ours, err = listener.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

// A client of today's defaults: session tickets, a certificate, and a second connection that resumes the session.
func TestTLSClient(t *testing.T) {
	eachVersion(t, func(t *testing.T, version uint16) {
		server, client := configs(t, version)
		server.SessionTicketsDisabled = false
		server.ClientAuth = tls.RequireAndVerifyClientCert
		client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		for round := range 2 {
			ours, theirs := sockets(t)
			said := make(chan error, 1)
			go func() {
				c := tls.Client(theirs, client)
				_, err := c.Write([]byte("lock a 0\r\n"))
				answer := make([]byte, 10)
				_, readErr := io.ReadFull(c, answer)
				if string(answer) != "l locked\r\n" {
					err = fmt.Errorf("read %q", answer)
				}
				said <- errors.Join(err, readErr, c.Close())
			}()
			ctx, cancel := context.WithCancel(context.Background())
			s := &secured{tb: t}
			var err error
			if s.server, err = Handshake(ctx, ours, server); err != nil {
				t.Fatal(err)
			}
			cancel() // which is about the handshake alone
			state := s.server.State()
			if name := state.PeerCertificates[0].Subject.CommonName; name != "worker" {
				t.Errorf("the client is %q", name)
			}
			if state.DidResume != (round == 1) {
				t.Errorf("round %d: resumed: %v", round, state.DidResume)
			}
			buf, answered := make([]byte, 1000), false
			for n := 0; err == nil; {
				if err = s.open(buf[:n]); err != nil {
					break
				}
				if !answered && string(s.got) == "lock a 0\r\n" {
					answered = true
					_, err = ours.Write(s.server.seal(nil, []byte("l locked\r\n")))
				}
				if err == nil {
					n, err = ours.Read(buf)
				}
			}
			if err != io.EOF { //nolint:errorlint // it is not wrapped
				t.Error(err)
			}
			if err := receive(t, said, "the client does not end"); err != nil {
				t.Errorf("the client: %v", err)
			}
		}
	})
}

// A handshake that fails says why, also when the client says nothing until the time is up. The connection stays the
// caller's.
func TestTLSHandshakeFails(t *testing.T) {
	server, client := configs(t, tls.VersionTLS13)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	stranger := client.Clone()
	stranger.Certificates = nil
	for _, c := range []struct {
		name   string
		client func(conn net.Conn)
		time   time.Duration
		want   string
	}{
		{"plain", func(conn net.Conn) { io.WriteString(conn, "lock a 0\r\n") }, patience, "first record does not look like a TLS handshake"},
		{"gone", func(conn net.Conn) { conn.Close() }, patience, "EOF"},
		{"no certificate", func(conn net.Conn) { tls.Client(conn, stranger).Handshake() }, patience, "client didn't provide a certificate"},
		{"silent", func(net.Conn) {}, time.Millisecond, "context deadline exceeded"},
		{"too late", func(conn net.Conn) { tls.Client(conn, client).Handshake() }, 0, "context deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := sockets(t)
			var wg sync.WaitGroup
			wg.Go(func() { c.client(theirs) })
			ctx, cancel := context.WithTimeout(context.Background(), c.time)
			defer cancel()
			secured, err := Handshake(ctx, ours, server)
			if err == nil || secured != nil || !strings.HasPrefix(err.Error(), "TLS handshake: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err := ours.Close(); err != nil {
				t.Errorf("the connection was not left to us: %v", err)
			}
			wg.Wait()
		})
	}
}

// After the handshake the socket is as it was: without a deadline, and not referred to.
func TestTLSLeavesSocket(t *testing.T) {
	type conn struct{ net.Conn }
	server, client := configs(t, tls.VersionTLS13)
	ours, theirs := sockets(t)
	ended := make(chan error, 1)
	go func() { ended <- tls.Client(theirs, client).Handshake() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	socket := &conn{ours}
	left := weak.Make(socket)
	secured, err := Handshake(ctx, socket, server)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := receive(t, ended, "the client's handshake does not end"); err != nil {
		t.Fatal(err)
	}
	send(t, theirs, "x")
	expect(t, ours, "x")
	eventually(t, "the socket cannot be collected", func() bool {
		runtime.GC()
		return left.Value() == nil
	})
	runtime.KeepAlive(secured)
}
