package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
)

// newFiles writes a certificate of the authority; with clients, only those of that authority may connect.
func newFiles(t *testing.T, ca, clients *prototest.CA) Files {
	t.Helper()
	var files Files
	files.Cert, files.Key = ca.Files(ca.Server())
	if clients != nil {
		files.ClientCA = clients.File()
	}
	return files
}

func load(t *testing.T, files Files, log io.Writer) *Store {
	t.Helper()
	s, err := Load(files, zerolog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake connects a client and has it read one byte, which comes after the tickets of TLS 1.3. It returns what the
// server says of the handshake, and the client's state if that was good.
func handshake(t *testing.T, s *Store, client *tls.Config) (state tls.ConnectionState, err error) {
	t.Helper()
	near, far := socketPair(t)
	defer near.Close()
	defer far.Close()
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(far, s.Config())
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		far.Close()
		served <- err
	}()
	conn := tls.Client(near, client)
	_, clientErr := conn.Read(make([]byte, 1))
	if err := <-served; err != nil {
		return state, err
	}
	if clientErr != nil {
		t.Fatalf("the server accepts the client, which says %v", clientErr)
	}
	return conn.ConnectionState(), nil
}

// socketPair returns a connection that has buffers, so that no side waits for the other to read an alert.
func socketPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{near, far} {
		if err := conn.SetDeadline(time.Now().Add(prototest.Patience)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// trusting returns a client that knows the daemon's authority.
func trusting(ca *prototest.CA, own ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: own}
}

func TestCannotLoad(t *testing.T) {
	ca := prototest.NewCA(t)
	good := newFiles(t, ca, ca)
	_, otherKey := ca.Files(ca.Server())
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, err := os.ReadFile(good.Cert)
	if err != nil {
		t.Fatal(err)
	}
	empty := write("empty", nil)
	truncated := write("truncated", append(text, text[:len(text)/2]...))
	nonsense := write("nonsense", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	for _, c := range []struct {
		files Files
		says  []string
	}{
		{Files{Key: good.Key}, []string{"--tls-cert is missing", "no --tls-key"}},
		{Files{ClientCA: good.ClientCA}, []string{"--tls-cert is missing", "no --tls-client-ca"}},
		{Files{Cert: good.Cert}, []string{"--tls-key is missing", good.Cert}},
		{Files{Cert: dir + "/none", Key: good.Key}, []string{"--tls-cert: ", dir + "/none: no such file"}},
		{Files{Cert: good.Cert, Key: dir + "/none"}, []string{"--tls-key: ", dir + "/none: no such file"}},
		{Files{Cert: good.Cert, Key: otherKey}, []string{"--tls-cert " + good.Cert, "--tls-key " + otherKey, "does not match"}},
		{Files{Cert: empty, Key: good.Key}, []string{"--tls-cert " + empty}},
		{Files{Cert: truncated, Key: good.Key}, []string{"--tls-cert " + truncated, "1 of 2 blocks in it are whole"}},
		{Files{good.Cert, good.Key, dir + "/none"}, []string{"--tls-client-ca: ", dir + "/none: no such file"}},
		{Files{good.Cert, good.Key, empty}, []string{"--tls-client-ca " + empty, "there is no certificate in it"}},
		{Files{good.Cert, good.Key, truncated}, []string{"--tls-client-ca " + truncated, "1 of 2 blocks in it are whole"}},
		{Files{good.Cert, good.Key, nonsense}, []string{"--tls-client-ca " + nonsense}},
	} {
		s, err := Load(c.files, zerolog.Nop())
		if s != nil || !errors.Is(err, ErrOption) {
			t.Errorf("%+v: %v, want an error about options", c.files, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: want %q", err, part)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	ca := prototest.NewCA(t)
	s := load(t, newFiles(t, ca, nil), io.Discard)
	for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		client := trusting(ca)
		client.MinVersion, client.MaxVersion = version, version
		state, err := handshake(t, s, client)
		if (err == nil) != good || good && state.Version != version {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

// With an authority for clients, only its own come in.
func TestClients(t *testing.T) {
	ca, clients, strangers := prototest.NewCA(t), prototest.NewCA(t), prototest.NewCA(t)
	s := load(t, newFiles(t, ca, clients), io.Discard)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			name string
			own  []tls.Certificate
			says string // empty: it comes in
		}{
			{"its own", []tls.Certificate{clients.Client("ann")}, ""},
			{"none", nil, "didn't provide a certificate"},
			{"of a stranger", []tls.Certificate{strangers.Client("ann")}, "unknown authority"},
			{"expired", []tls.Certificate{clients.Issue("ann", prototest.Expired)}, "expired"},
			{"of a server", []tls.Certificate{clients.Server("ann")}, "incompatible key usage"},
		} {
			client := trusting(ca)
			client.MinVersion, client.MaxVersion = version, version
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if c.own == nil {
					return new(tls.Certificate), nil
				}
				return &c.own[0], nil // also one of which the server says that it does not want it
			}
			_, err := handshake(t, s, client)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v, want %q", tls.VersionName(version), c.name, err, c.says)
			}
		}
	}
}

// After a reload the same Config gives the new certificate. What cannot be used changes nothing.
func TestReload(t *testing.T) {
	ca := prototest.NewCA(t)
	files := newFiles(t, ca, nil)
	s := load(t, files, io.Discard)
	shown := func() *x509.Certificate {
		t.Helper()
		state, err := handshake(t, s, trusting(ca))
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0]
	}
	if first := shown(); !s.Expires().Equal(first.NotAfter) {
		t.Errorf("it expires at %s, and is said to at %s", first.NotAfter, s.Expires())
	}
	renewed := ca.Server()
	prototest.WriteFiles(t, renewed, files.Cert, files.Key)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if !shown().Equal(renewed.Leaf) || !s.Expires().Equal(renewed.Leaf.NotAfter) {
		t.Error("after a reload it shows the old certificate")
	}
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); !errors.Is(err, ErrOption) || !strings.Contains(fmt.Sprint(err), "--tls-key") {
		t.Errorf("without a key: %v", err)
	}
	if !shown().Equal(renewed.Leaf) {
		t.Error("after a failed reload it does not show the certificate that it had")
	}
}

// The first of a chain to expire counts.
func TestExpiryOfChain(t *testing.T) {
	ca := prototest.NewCA(t)
	first := time.Now().Add(time.Minute).Truncate(time.Second)
	chain := ca.Server()
	early := ca.Issue("early", func(cert *x509.Certificate) { cert.NotAfter = first })
	chain.Certificate = append(chain.Certificate, early.Certificate[0])
	var files Files
	files.Cert, files.Key = ca.Files(chain)
	if got := load(t, files, io.Discard).Expires(); !got.Equal(first) {
		t.Errorf("%s, want %s", got, first)
	}
}

// A session of a client whose authority is not accepted any more is of no use to it. Without an authority, sessions are
// resumed, also after a reload.
func TestSessions(t *testing.T) {
	ca, clients := prototest.NewCA(t), prototest.NewCA(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := func() *tls.Config {
			cfg := trusting(ca, clients.Client("ann"))
			cfg.MinVersion, cfg.MaxVersion = version, version
			cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			return cfg
		}
		open := load(t, newFiles(t, ca, nil), io.Discard)
		cfg := client()
		for _, resumed := range []bool{false, true, true} {
			state, err := handshake(t, open, cfg)
			if err != nil || state.DidResume != resumed {
				t.Errorf("%s, open to all: resumed %t, %v; want %t", tls.VersionName(version), state.DidResume, err, resumed)
			}
			if err := open.Reload(); err != nil {
				t.Fatal(err)
			}
		}
		files := newFiles(t, ca, clients)
		mutual := load(t, files, io.Discard)
		cfg = client()
		for range 2 {
			state, err := handshake(t, mutual, cfg)
			if err != nil || state.DidResume {
				t.Errorf("%s, mutual: resumed %t, %v", tls.VersionName(version), state.DidResume, err)
			}
		}
		text, err := os.ReadFile(prototest.NewCA(t).File())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.ClientCA, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := mutual.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(t, mutual, cfg); err == nil {
			t.Errorf("%s: a client of a revoked authority comes in", tls.VersionName(version))
		}
	}
}
