package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// secured is TLS on a connection of the generator. The goroutine that dials does the handshake, on the socket. Then the
// connection belongs to a loop, and TLS works in memory: bytes that arrive are put in, and what they say is taken out.
// So a connection with TLS is driven by the same events as one without, and needs no goroutine.
type secured struct {
	*tls.Conn
	carrier *carrier
}

// plainSize is the size of the largest piece of plain text, in bytes: that of a record.
const plainSize = 16 << 10

// carrier is the connection below TLS.
type carrier struct {
	net.Conn           // the socket, for the handshake
	enrolled gnet.Conn // what to write to once the loop has the connection
	input    []byte    // has arrived and was not read yet
}

// handshake does the handshake on a socket. If it fails the socket is closed.
func handshake(ctx context.Context, sock net.Conn, cfg *tls.Config) (*secured, error) {
	below := &carrier{Conn: sock}
	s := &secured{tls.Client(below, cfg), below}
	if err := s.HandshakeContext(ctx); err != nil {
		_ = sock.Close()
		return nil, err
	}
	return s, nil
}

// Read returns what has arrived, and an error that TLS does not keep if that is nothing.
func (c *carrier) Read(p []byte) (int, error) {
	if c.enrolled == nil {
		return c.Conn.Read(p)
	}
	if len(c.input) == 0 {
		return 0, errEmpty
	}
	n := copy(p, c.input)
	c.input = c.input[n:]
	return n, nil
}

// Write writes to the socket.
func (c *carrier) Write(p []byte) (int, error) {
	if c.enrolled == nil {
		return c.Conn.Write(p)
	}
	return c.enrolled.Write(p)
}

// open passes on the plain text of bytes that have arrived. The buffer has room for it.
func (s *secured) open(arrived, buffer []byte, take func(plain []byte)) error {
	s.carrier.input = arrived
	for {
		n, err := s.Read(buffer)
		if n > 0 {
			take(buffer[:n])
		}
		switch {
		case errors.Is(err, errEmpty), errors.Is(err, io.EOF): // the end of the connection is an event of its own
			return nil
		case err != nil:
			return err
		}
	}
}

// errEmpty says that no more has arrived. It is what a socket says when its time to read is over, so crypto/tls does not keep
// it, and reads again when there is more.
var errEmpty = os.ErrDeadlineExceeded

// certificate is what a daemon that is started here proves itself with.
type certificate struct {
	certFile, keyFile string
	trusted           *x509.CertPool
}

// newCertificate makes a certificate for 127.0.0.1 and writes it and its key into a directory.
func newCertificate(dir string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	own, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()}
	c.trusted.AddCert(own)
	for path, block := range map[string]*pem.Block{
		c.certFile: {Type: "CERTIFICATE", Bytes: der},
		c.keyFile:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, fmt.Errorf("a certificate for the daemon: %w", err)
		}
	}
	return c, nil
}
