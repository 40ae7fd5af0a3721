package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// When server and client do not accept each other, the error says why, and there is one attempt only.
func TestHandshakeRefused(t *testing.T) {
	address, _ := startServer(t, nil)
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	wrong := other.Client("ann")
	with := func(certs ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: ca.Pool(), Certificates: certs}
	}
	for _, tc := range []struct {
		name   string
		server tls.Certificate
		mutual bool // the server wants a certificate of ca
		client *tls.Config
		says   string
	}{
		{"the wrong authority", other.Server(), false, with(), "Options.TLS.RootCAs"},
		{"the authorities of the system", ca.Server(), false, nil, "Options.TLS.RootCAs"},
		{"another name", ca.Server("locks.example"), false, with(), "another name"},
		{"another name wanted", ca.Server(), false, &tls.Config{RootCAs: ca.Pool(), ServerName: "locks.example"}, "another name"},
		{"expired", ca.Issue("127.0.0.1", prototest.Expired), false, with(), "has expired"},
		{"not yet valid", ca.Issue("127.0.0.1", prototest.NotYetValid), false, with(), "has expired, or one of the clocks"},
		{"a client as the server", ca.Issue("127.0.0.1", func(cert *x509.Certificate) {
			cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), false, with(), "incompatible key usage"},
		{"no certificate", ca.Server(), true, with(), "Options.TLS.Certificates"},
		{"the wrong certificate", ca.Server(), true, with(wrong), "Options.TLS.Certificates"},
		{"the wrong certificate, insisted on", ca.Server(), true, &tls.Config{
			RootCAs:              ca.Pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &wrong, nil },
		}, "Options.TLS.Certificates"},
		{"an expired certificate", ca.Server(), true, with(ca.Issue("ann", prototest.Expired)), "Options.TLS.Certificates"},
		{"a server as the client", ca.Server(), true, with(ca.Server()), "Options.TLS.Certificates"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tc.name+"/"+tls.VersionName(version), func(t *testing.T) {
				cfg := &tls.Config{Certificates: []tls.Certificate{tc.server}, MinVersion: version, MaxVersion: version}
				if tc.mutual {
					cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
				}
				var attempts atomic.Int32
				l := tls.NewListener(counted{listenOn(t, "tcp", "127.0.0.1:0"), &attempts}, cfg)
				r := startRelayOn(t, l, "tls://", address)
				_, err := newClient(t, r.address, Options{TLS: tc.client, Backoff: time.Hour}).Lock(patient(t), "a", -1)
				wantErr(t, err, ErrHandshake)
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("got %v, want %q", err, tc.says)
				}
				if n := attempts.Load(); n != 1 {
					t.Errorf("%d attempts", n)
				}
			})
		}
	}
}

// counted counts the connections of a listener.
type counted struct {
	net.Listener
	accepted *atomic.Int32
}

func (l counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// What does not speak TLS is recognized by its first words, also one that speaks only when it is asked.
func TestNoTLS(t *testing.T) {
	address := listen(t, func(conn *net.TCPConn) {
		reply(conn, "e too many connections\r\n")
		takeLine(conn)
	})
	_, err := newClient(t, "tls://"+address, Options{Backoff: time.Hour}).TryLock(patient(t), "a")
	wantErr(t, err, ErrHandshake)
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("got %v", err)
	}
}

// The server's certificate must be for the host of the address, or for the name that the options have.
func TestServerName(t *testing.T) {
	ca := prototest.NewCA(t)
	locks := &tls.Config{RootCAs: ca.Pool(), ServerName: "locks.example"}
	for _, tc := range []struct {
		cert   tls.Certificate
		host   string
		client *tls.Config
	}{
		{ca.Server("localhost"), "localhost", nil},
		{ca.Server("localhost"), "", nil},
		{ca.Server("127.0.0.1"), "127.0.0.1", nil},
		{ca.Server("::ffff:127.0.0.1"), "[::ffff:127.0.0.1]", nil},
		{ca.Server("locks.example"), "127.0.0.1", locks},
	} {
		address, _ := startServer(t, nil)
		l := listenOn(t, "tcp", "127.0.0.1:0")
		startRelayOn(t, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{tc.cert}}), "tls://", address)
		if tc.client == nil {
			tc.client = &tls.Config{RootCAs: ca.Pool()}
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		mustUnlock(t, mustLock(t, newClient(t, "tls://"+tc.host+":"+port, Options{TLS: tc.client}), "a"))
	}
}

// A server that does not answer the handshake is given up after the time to connect, and at once when the context ends.
func TestSilentHandshake(t *testing.T) {
	var attempts atomic.Int32
	begun := make(chan struct{}, 16)
	address := "tls://" + listen(t, func(conn *net.TCPConn) {
		attempts.Add(1)
		begun <- struct{}{}
		_, _ = io.Copy(io.Discard, conn) // until the client closes the connection
	})
	c := newClient(t, address, Options{DialTimeout: 20 * time.Millisecond, Attempts: 3})
	_, err := c.Lock(patient(t), "a", -1)
	wantErr(t, err, ErrUnreachable, context.DeadlineExceeded)
	if n := attempts.Load(); n != 3 {
		t.Errorf("%d attempts", n)
	}
	for range 3 {
		<-begun
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := lockLater(ctx, newClient(t, address, Options{DialTimeout: time.Hour}), "a", -1)
	<-begun
	cancel()
	wantErr(t, (<-waiting).err, context.Canceled)
}

// A connection that ends in the middle of the handshake says nothing about the next one.
func TestHandshakeEnds(t *testing.T) {
	ca := prototest.NewCA(t)
	address, _ := startServer(t, nil)
	var attempts atomic.Int32
	l := tls.NewListener(failing{counted{listenOn(t, "tcp", "127.0.0.1:0"), &attempts}},
		&tls.Config{Certificates: []tls.Certificate{ca.Server()}})
	r := startRelayOn(t, l, "tls://", address)
	mustUnlock(t, mustLock(t, newClient(t, r.address, Options{TLS: &tls.Config{RootCAs: ca.Pool()}}), "a"))
	if n := attempts.Load(); n != 4 {
		t.Errorf("%d attempts", n)
	}
}

// failing closes the first three connections, one of them with an RST.
type failing struct{ counted }

func (l failing) Accept() (net.Conn, error) {
	for {
		conn, err := l.counted.Accept()
		n := l.accepted.Load()
		if err != nil || n > 3 {
			return conn, err
		}
		if n == 2 {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
}
