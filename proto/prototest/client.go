// Package prototest is a client for tests: it speaks the protocol line by line over TCP, TLS or a Unix socket, and fails
// the test if the daemon does something else than expected. It never sleeps: it waits for answers, and fails the test if
// one has not come after a time that no machine needs. CA makes the certificates that tests of TLS need.
package prototest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Patience is the time after which a test fails because something has not happened. Only a fault makes it take that long.
const Patience = 30 * time.Second

// Client is one connection. Its methods fail the test; after a failure the client cannot be used.
type Client struct {
	tb   testing.TB
	sock net.Conn // the connection itself
	conn net.Conn // what the protocol is spoken on: sock, or TLS over it
	in   *bufio.Reader
}

// Dial connects to the daemon over TCP, to host:port. The connection is closed at the end of the test.
func Dial(tb testing.TB, address string) *Client {
	tb.Helper()
	sock := dial(tb, "tcp", address)
	return newClient(tb, sock, sock)
}

// DialTLS connects to the daemon over TLS, to host:port, and does the handshake. Without a ServerName in the configuration,
// the certificate must be for the host. The connection is closed at the end of the test.
func DialTLS(tb testing.TB, address string, cfg *tls.Config) *Client {
	tb.Helper()
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			tb.Fatalf("dial: %v", err)
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	sock := dial(tb, "tcp", address)
	conn := tls.Client(sock, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = sock.Close()
		tb.Fatalf("handshake: %v", err)
	}
	return newClient(tb, sock, conn)
}

// DialUnix connects to the daemon over the Unix socket at a path. The connection is closed at the end of the test.
func DialUnix(tb testing.TB, path string) *Client {
	tb.Helper()
	sock := dial(tb, "unix", path)
	return newClient(tb, sock, sock)
}

func dial(tb testing.TB, network, address string) net.Conn {
	tb.Helper()
	sock, err := net.DialTimeout(network, address, Patience)
	if err != nil {
		tb.Fatalf("dial: %v", err)
	}
	return sock
}

func newClient(tb testing.TB, sock, conn net.Conn) *Client {
	c := &Client{tb: tb, sock: sock, conn: conn, in: bufio.NewReader(conn)}
	tb.Cleanup(func() { _ = sock.Close() })
	return c
}

// Conn returns the TCP connection, for tests that do what a well-behaved client does not. With TLS it is the one below.
func (c *Client) Conn() *net.TCPConn {
	c.tb.Helper()
	sock, ok := c.sock.(*net.TCPConn)
	if !ok {
		c.tb.Fatalf("the connection to %v is no TCP connection", c.sock.RemoteAddr())
	}
	return sock
}

// Stream returns what the protocol is spoken on: a *net.TCPConn, a *tls.Conn or a *net.UnixConn.
func (c *Client) Stream() net.Conn { return c.conn }

// Send sends commands, each without its CR LF, in one write.
func (c *Client) Send(commands ...string) {
	c.tb.Helper()
	var text []byte
	for _, command := range commands {
		text = append(append(text, command...), "\r\n"...)
	}
	c.Write(text)
}

// Write sends bytes as they are.
func (c *Client) Write(p []byte) {
	c.tb.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.tb.Fatalf("send %.40q: %v", p, err)
	}
}

// Expect reads one answer for each of the replies, given without CR LF, and compares them.
func (c *Client) Expect(replies ...string) {
	c.tb.Helper()
	for i, want := range replies {
		got, err := c.ReadReply()
		if err != nil {
			c.tb.Fatalf("answer %d of %d: want %q: %v", i+1, len(replies), want, err)
		}
		if got != want {
			c.tb.Fatalf("answer %d of %d: want %q, got %q", i+1, len(replies), want, got)
		}
	}
}

// Do sends one command and expects one reply.
func (c *Client) Do(command, reply string) {
	c.tb.Helper()
	c.Send(command)
	c.Expect(reply)
}

// ReadReply returns the next answer without its CR LF. At the end of the stream it returns io.EOF; an incomplete line is
// another error.
func (c *Client) ReadReply() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && line != "" {
			return "", fmt.Errorf("the stream ends in the middle of a line: %q", line)
		}
		return "", err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return "", fmt.Errorf("a line without CR: %q", line)
	}
	return line[:len(line)-2], nil
}

// ExpectEnd expects that the daemon closes the connection without another answer, by FIN or by RST.
func (c *Client) ExpectEnd() {
	c.tb.Helper()
	reply, err := c.ReadReply()
	if err == nil {
		c.tb.Fatalf("want the end of the connection, got %q", reply)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.tb.Fatalf("want the end of the connection, got nothing within %s", Patience)
	}
}

// CloseWrite closes the sending side, as nc -N does at the end of its input. With TLS, that is its closing alert.
func (c *Client) CloseWrite() {
	c.tb.Helper()
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok {
		c.tb.Fatalf("a %T has no writing side to close", c.conn)
	}
	if err := half.CloseWrite(); err != nil {
		c.tb.Fatalf("close the writing side: %v", err)
	}
}

// Close closes the connection.
func (c *Client) Close() { _ = c.conn.Close() }

// Reset closes the connection with an RST, and with TLS without its closing alert. A Unix socket has no RST: it is closed.
func (c *Client) Reset() {
	if sock, ok := c.sock.(*net.TCPConn); ok {
		_ = sock.SetLinger(0)
	}
	_ = c.sock.Close()
}
