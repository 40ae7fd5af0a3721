package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// The flags that errors name.
const (
	flagCert     = "--tls-cert"
	flagKey      = "--tls-key"
	flagClientCA = "--tls-client-ca"
)

// ErrOption is wrapped by errors about the files that the options name.
var ErrOption = errors.New("bad option")

// Files are the paths of PEM files.
type Files struct {
	// Cert has the certificate of the daemon, and after it those of the authorities between it and the root.
	Cert string
	// Key is its private key.
	Key string
	// ClientCA has the certificates of the authorities whose clients may connect; without it every client may.
	ClientCA string
}

// Store is what was read last. All methods are safe from any goroutine.
type Store struct {
	files   Files
	log     zerolog.Logger
	config  *tls.Config // asks for current
	current atomic.Pointer[loaded]

	mu     sync.Mutex // of who reads
	stamps [3]stamp   // of the files, when they were read last
	failed bool       // they could not be used then
	warned time.Time  // when their expiry was warned of
}

// loaded is what the files had in them.
type loaded struct {
	config  *tls.Config
	expires time.Time
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// Load reads the files. The error wraps [ErrOption] and names the flag of what cannot be used.
func Load(files Files, log zerolog.Logger) (*Store, error) {
	s := &Store{files: files, log: log}
	s.config = &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: files.ClientCA != "",
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load().config, nil
		},
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Config returns how a server does its handshakes. It stays valid: each handshake sees what was read last.
func (s *Store) Config() *tls.Config { return s.config }

// Expires returns when the certificate, or the first of those after it, expires.
func (s *Store) Expires() time.Time { return s.current.Load().expires }

// Reload reads the files again. After an error, which names the flag, the store keeps what it has.
func (s *Store) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read()
}

// read is Reload for who has the mutex.
func (s *Store) read() error {
	s.stamps = s.stat() // first, so that a change meanwhile is seen
	next, err := s.files.load()
	s.failed = err != nil
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOption, err)
	}
	s.current.Store(next)
	s.warned = time.Time{}
	return nil
}

// stat returns the stamps of the files, zero for those that are not there.
func (s *Store) stat() (stamps [3]stamp) {
	for i, path := range []string{s.files.Cert, s.files.Key, s.files.ClientCA} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		stamps[i] = stamp{modified: info.ModTime(), size: info.Size()}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			stamps[i].inode = sys.Ino
		}
	}
	return stamps
}

// load reads the files.
func (f *Files) load() (*loaded, error) {
	cert, err := f.pair()
	if err != nil {
		return nil, err
	}
	l := &loaded{config: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}}
	if l.expires, err = firstExpiry(&cert); err != nil {
		return nil, fmt.Errorf("%s %s: %w", flagCert, f.Cert, err)
	}
	if f.ClientCA == "" {
		return l, nil
	}
	if l.config.ClientCAs, err = f.clientCAs(); err != nil {
		return nil, err
	}
	l.config.ClientAuth = tls.RequireAndVerifyClientCert
	l.config.SessionTicketsDisabled = true
	return l, nil
}

// pair reads the certificate and its key.
func (f *Files) pair() (cert tls.Certificate, err error) {
	switch {
	case f.Cert == "":
		return cert, fmt.Errorf("%s is missing: give the file with the certificate, or no %s", flagCert, f.given())
	case f.Key == "":
		return cert, fmt.Errorf("%s is missing: give the file with the private key of %s", flagKey, f.Cert)
	}
	certPEM, err := os.ReadFile(f.Cert)
	if err != nil {
		return cert, fmt.Errorf("%s: %w", flagCert, err)
	}
	keyPEM, err := os.ReadFile(f.Key)
	if err != nil {
		return cert, fmt.Errorf("%s: %w", flagKey, err)
	}
	if cert, err = tls.X509KeyPair(certPEM, keyPEM); err == nil {
		err = complete(certPEM)
	}
	if err != nil {
		return cert, fmt.Errorf("%s %s, %s %s: %w: want a certificate and its private key, both PEM", flagCert, f.Cert, flagKey, f.Key, err)
	}
	return cert, nil
}

// given names the flag that makes no sense without a certificate.
func (f *Files) given() string {
	if f.Key != "" {
		return flagKey
	}
	return flagClientCA
}

// firstExpiry returns when the first certificate of a chain expires.
func firstExpiry(cert *tls.Certificate) (first time.Time, err error) {
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return first, err
		}
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first, nil
}

// clientCAs reads the authorities of clients.
func (f *Files) clientCAs() (*x509.CertPool, error) {
	text, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flagClientCA, err)
	}
	pool, err := readPool(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: want the certificates of the authorities of your clients, PEM", flagClientCA, f.ClientCA, err)
	}
	return pool, nil
}

// readPool returns the certificates in a file. None is left out, since its clients would be turned away.
func readPool(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("there is no certificate in it")
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
	}
	return pool, complete(text)
}

// complete returns an error unless all blocks that begin in a file also end there: it may be half-written, and a block that
// is not whole would be left out.
func complete(text []byte) error {
	whole := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		whole++
	}
	if begun := bytes.Count(text, []byte("-----BEGIN ")); begun != whole {
		return fmt.Errorf("%d of %d blocks in it are whole", whole, begun)
	}
	return nil
}
