package reactor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// startTLS starts a server of which one address is encrypted, and returns what connects a client to that.
func startTLS(tb testing.TB, s setup) (srv *server, connect func() (*tls.Conn, *session)) {
	tb.Helper()
	ca := prototest.NewCA(tb)
	cfg := &tls.Config{Certificates: []tls.Certificate{ca.Server("localhost")}, MinVersion: tls.VersionTLS12}
	s.keepAlive = patience // the kernel closes for us, and gives up soon if it is to be impatient
	listener, err := Listen(tb.Context(), "127.0.0.1:0", s.keepAlive)
	if err != nil {
		tb.Fatal(err)
	}
	encrypted := &Listener{Listener: listener, Prepare: func(ctx context.Context, conn net.Conn, _ any) (Prepared, error) {
		t, err := Handshake(ctx, conn, cfg)
		return Prepared{TLS: t}, err
	}}
	s.listeners = append(s.listeners, encrypted)
	srv = start(tb, s)
	return srv, func() (*tls.Conn, *session) {
		tb.Helper()
		conn := tls.Client(dial(tb, encrypted.Addr().String()), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err := conn.Handshake(); err != nil {
			tb.Fatalf("handshake: %v", err)
		}
		return conn, receive(tb, srv.accepted, "the connection is not served")
	}
}

// What is sent comes back through TLS, in whatever pieces it arrives, and the connection can move between two of them.
func TestTLSEcho(t *testing.T) {
	srv, connect := startTLS(t, setup{loops: 2})
	moved := make(chan struct{})
	conn, s := connect()
	s.do(t, func() {
		s.moved = func(to int) {
			s.handler = srv.handlers[to]
			moved <- struct{}{}
		}
		s.data = func(p []byte) {
			s.conn.Write(p)
			if s.conn.TryMove(1 - s.handler.loop.Index()) {
				t.Error("it moves while more may come out of the same piece")
			}
		}
	})
	sent := bytes.Repeat([]byte("to and fro, "), 50_000)
	for range 4 {
		go func() {
			for i := 0; i < len(sent); i += 997 {
				if _, err := conn.Write(sent[i:min(i+997, len(sent))]); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
		}()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("the echo is not what was sent: %v", err)
		}
		eventually(t, "it does not move", func() (moves bool) { // before all output is acknowledged
			s.do(t, func() { moves = s.conn.TryMove(1 - s.handler.loop.Index()) })
			return moves
		})
		receive(t, moved, "it does not arrive")
	}
}

// Bytes that are sent together with the end of the handshake are the first input.
func TestTLSEarly(t *testing.T) {
	_, connect := startTLS(t, setup{handler: echoing})
	for range 20 {
		conn, _ := connect()
		send(t, conn, "at once") // with TLS 1.3 it may be read with the client's last message of the handshake
		expect(t, conn, "at once")
	}
}

// A peer that says by TLS that it sends no more still gets its answers, and the end of them.
func TestTLSHalfClose(t *testing.T) {
	_, connect := startTLS(t, setup{linger: patience})
	conn, s := connect()
	text := strings.Repeat("answer ", 1<<20)
	s.do(t, func() {
		s.lingers = true
		s.half = func() {
			s.conn.Write([]byte(text))
			s.conn.CloseAfterOutput()
		}
	})
	send(t, conn, "question")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, text)
	expectEnd(t, conn) // an end without close_notify would be an error
	receive(t, s.ended, "the end was not told")
	s.do(t, func() {
		if string(s.input) != "question" {
			t.Errorf("it has read %q", s.input)
		}
	})
}

// The rest of the input of a peer that has been held back is read and decrypted after its end, piece by piece.
func TestTLSReadRest(t *testing.T) {
	_, connect := startTLS(t, setup{})
	conn, s := connect()
	rest := make(chan []byte, 1)
	s.do(t, func() {
		s.conn.Pause()
		s.lingers = true
		var got []byte
		s.half = func() {
			s.data = func(p []byte) {
				if got = append(got, p...); len(p) == 0 {
					rest <- got
				} else {
					s.conn.ReadRest()
				}
			}
			s.conn.ReadRest()
		}
	})
	sent := bytes.Repeat([]byte("unread "), 4_000) // few enough to let the end be seen behind them
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = conn.NetConn().(*net.TCPConn).CloseWrite()
	got := receive(t, rest, "the rest is not read")
	s.do(t, func() { got = append(s.input, got...) })
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes were read, want %d", len(got), len(sent))
	}
}

// The end of a connection is told apart from one that somebody else has cut: by close_notify.
func TestTLSEnds(t *testing.T) {
	_, connect := startTLS(t, setup{})
	conn, s := connect()
	s.do(t, func() {
		s.conn.Write([]byte("last words"))
		s.conn.Close()
	})
	expect(t, conn, "last words")
	expectEnd(t, conn)

	conn, s = connect()
	_ = conn.Close()
	if err := receive(t, s.ended, "the end was not told"); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v, want the end of the input", err)
	}

	conn, s = connect()
	send(t, conn.NetConn(), "this is no record of TLS")
	if err := receive(t, s.ended, "the end was not told"); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("it ended with %v, want what is wrong", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the peer reads %v, want an alert", err)
	}
}

// A peer that does not read holds back its output, and gets all of it in the end.
func TestTLSUnread(t *testing.T) {
	_, connect := startTLS(t, setup{linger: patience})
	conn, s := connect()
	var want bytes.Buffer
	s.do(t, func() {
		for i := 0; s.conn.Unsent() == 0 || i < 2000; i++ {
			p := bytes.Repeat([]byte{byte(i)}, 10_000)
			want.Write(p)
			s.conn.Write(p)
		}
		s.conn.CloseAfterOutput()
	})
	time.Sleep(10 * time.Millisecond) //nolint:forbidigo // gives the socket time to fill; the test holds without
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%d bytes were read (%v), want %d", len(got), err, want.Len())
	}
}
