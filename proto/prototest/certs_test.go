package prototest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCA: a certificate is accepted for what it was issued for, and refused for everything else.
func TestCA(t *testing.T) {
	ca, other := NewCA(t), NewCA(t)
	for _, tc := range []struct {
		name  string
		cert  tls.Certificate
		host  string // checked if not empty
		usage x509.ExtKeyUsage
		pool  *x509.CertPool
		err   string // a part of it; empty: accepted
	}{
		{"this host", ca.Server(), "localhost", x509.ExtKeyUsageServerAuth, ca.Pool(), ""},
		{"its address", ca.Server(), "127.0.0.1", x509.ExtKeyUsageServerAuth, ca.Pool(), ""},
		{"its IPv6 address", ca.Server(), "::1", x509.ExtKeyUsageServerAuth, ca.Pool(), ""},
		{"another host", ca.Server("locks.example", "10.0.0.1"), "10.0.0.1", x509.ExtKeyUsageServerAuth, ca.Pool(), ""},
		{"another name", ca.Server("locks.example"), "localhost", x509.ExtKeyUsageServerAuth, ca.Pool(), "is valid for locks.example"},
		{"another authority", ca.Server(), "localhost", x509.ExtKeyUsageServerAuth, other.Pool(), "unknown authority"},
		{"a client", ca.Client("ann"), "", x509.ExtKeyUsageClientAuth, ca.Pool(), ""},
		{"a server as a client", ca.Server(), "", x509.ExtKeyUsageClientAuth, ca.Pool(), "incompatible key usage"},
		{"a client as a server", ca.Client("ann"), "", x509.ExtKeyUsageServerAuth, ca.Pool(), "incompatible key usage"},
		{"both", ca.Issue("ann", nil), "ann", x509.ExtKeyUsageClientAuth, ca.Pool(), ""},
		{"expired", ca.Issue("ann", Expired), "", x509.ExtKeyUsageClientAuth, ca.Pool(), "expired or is not yet valid"},
		{"not yet valid", ca.Issue("ann", NotYetValid), "", x509.ExtKeyUsageClientAuth, ca.Pool(), "expired or is not yet valid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.cert.Leaf.Verify(x509.VerifyOptions{
				DNSName: tc.host, Roots: tc.pool, KeyUsages: []x509.ExtKeyUsage{tc.usage},
			})
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("want an error with %q, got %v", tc.err, err)
			}
		})
	}
}

// TestFiles: what is written can be read, and is replaced by what is written next.
func TestFiles(t *testing.T) {
	ca := NewCA(t)
	certFile, keyFile := ca.Files(ca.Client("ann"))
	for _, name := range []string{"ann", "bob"} {
		if name == "bob" {
			WriteFiles(t, ca.Client(name), certFile, keyFile)
		}
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		if got := pair.Leaf.Subject.CommonName; got != name {
			t.Errorf("want the certificate of %s, got that of %s", name, got)
		}
	}
	text, err := os.ReadFile(ca.File())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) || !pool.Equal(ca.Pool()) {
		t.Errorf("the file has another authority than the pool: %s", text)
	}
}

// TestClientWays: the client speaks over every kind of connection, ends its input and sees the end.
func TestClientWays(t *testing.T) {
	ca := NewCA(t)
	tcp := func() net.Listener { return listen(t, "tcp", "localhost:0") }
	path := filepath.Join(t.TempDir(), "lock.sock")
	for _, tc := range []struct {
		name     string
		listener net.Listener
		dial     func(address string) *Client
	}{
		{"tcp", tcp(), func(address string) *Client { return Dial(t, address) }},
		{"tls", tls.NewListener(tcp(), &tls.Config{Certificates: []tls.Certificate{ca.Server()}}), func(address string) *Client {
			return DialTLS(t, address, &tls.Config{RootCAs: ca.Pool()})
		}},
		{"unix", listen(t, "unix", path), func(string) *Client { return DialUnix(t, path) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			go echo(tc.listener)
			c := tc.dial(tc.listener.Addr().String())
			c.Do("hello", "hello")
			c.CloseWrite()
			c.ExpectEnd()
			c = tc.dial(tc.listener.Addr().String())
			c.Do("hello", "hello")
			c.Reset()
		})
	}
}

func listen(t *testing.T, network, address string) net.Listener {
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// echo sends back what comes, until the listener is closed.
func echo(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			p := make([]byte, 64)
			for {
				n, err := conn.Read(p)
				if err != nil {
					return
				}
				conn.Write(p[:n])
			}
		}()
	}
}
