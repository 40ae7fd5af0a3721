package reactor

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"dreadlock/proto/prototest"
)

// secured is a connection whose two ends are in memory: what the one has to send is given to the other by hand.
type secured struct {
	tb      testing.TB
	server  *TLS
	client  *tls.Conn
	wire    *wire // of the client
	scratch tlsScratch
	got     []byte // what the server has received
}

// configs returns what the two sides need for one version of TLS. There are no session tickets, which would arrive when the
// client's handshake is over.
func configs(tb testing.TB, version uint16) (server, client *tls.Config) {
	tb.Helper()
	ca := prototest.NewCA(tb)
	server = &tls.Config{
		Certificates:           []tls.Certificate{ca.Server()},
		MinVersion:             version,
		MaxVersion:             version,
		SessionTicketsDisabled: true,
		ClientCAs:              ca.Pool(),
	}
	client = &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.Client("worker")}}
	return server, client
}

// secure does the handshake of a version and returns both ends.
func secure(tb testing.TB, version uint16) *secured {
	tb.Helper()
	server, client := configs(tb, version)
	return secureWith(tb, server, client)
}

func secureWith(tb testing.TB, server, client *tls.Config) *secured {
	tb.Helper()
	ours, theirs := net.Pipe()
	return secureOver(tb, ours, theirs, server, client)
}

func secureOver(tb testing.TB, ours, theirs net.Conn, server, client *tls.Config) *secured {
	tb.Helper()
	s := &secured{tb: tb, wire: &wire{Conn: theirs}}
	s.client = tls.Client(s.wire, client)
	ended := make(chan error, 1)
	go func() { ended <- s.client.Handshake() }()
	var err error
	if s.server, err = Handshake(context.Background(), ours, server); err != nil {
		tb.Fatal(err)
	}
	if err := receive(tb, ended, "the client's handshake does not end"); err != nil {
		tb.Fatalf("the client's handshake: %v", err)
	}
	s.wire.Conn = nil
	return s
}

// eachVersion runs a test for each version of TLS.
func eachVersion(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { test(t, version) })
	}
}

// records returns what the client sends to say text.
func (s *secured) records(text string) []byte {
	s.tb.Helper()
	if _, err := s.client.Write([]byte(text)); err != nil {
		s.tb.Fatalf("the client cannot write: %v", err)
	}
	return s.wire.takeOutput()
}

// open gives ciphertext to the server.
func (s *secured) open(ciphertext []byte) error {
	return s.server.open(ciphertext, &s.scratch, func(plain []byte) bool {
		s.got = append(s.got, plain...)
		return true
	})
}

// expectOpen fails the test unless the ciphertext carries this.
func (s *secured) expectOpen(ciphertext []byte, want string) {
	s.tb.Helper()
	s.got = s.got[:0]
	if err := s.open(ciphertext); err != nil || string(s.got) != want {
		s.tb.Fatalf("the server received %.60q (%v), want %.60q", s.got, err, want)
	}
}

// expectRead fails the test unless the client reads this from records of the server.
func (s *secured) expectRead(records []byte, want string) {
	s.tb.Helper()
	s.wire.input = append(s.wire.input, records...)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(s.client, got); err != nil || string(got) != want {
		s.tb.Fatalf("the client read %.60q (%v), want %.60q", got[:n], err, want)
	}
}

// readError returns how the connection ends for the client that gets these records.
func (s *secured) readError(records []byte) error {
	s.tb.Helper()
	s.wire.input = append(s.wire.input, records...)
	n, err := s.client.Read(make([]byte, 100))
	if n > 0 {
		s.tb.Fatalf("the client read %d bytes, want the end", n)
	}
	return err
}
