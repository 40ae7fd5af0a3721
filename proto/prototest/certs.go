package prototest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certLife is how long before and after now the certificates of a CA are valid, unless they are issued otherwise.
const certLife = time.Hour

// CA is a certificate authority for one test. Everything it signs is valid from an hour ago to an hour from now.
type CA struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority. No two have the same name or key.
func NewCA(tb testing.TB) *CA {
	tb.Helper()
	ca := &CA{tb: tb, key: newKey(tb)}
	template := ca.template("test CA")
	template.Subject.SerialNumber = template.SerialNumber.String()
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	ca.cert = ca.sign(template, template, ca.key)
	return ca
}

// Server issues a certificate for a server that is reached by these host names and IP addresses; without any, by those of
// this host: localhost, 127.0.0.1 and ::1.
func (ca *CA) Server(names ...string) tls.Certificate {
	ca.tb.Helper()
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	return ca.Issue(names[0], func(cert *x509.Certificate) {
		addNames(cert, names[1:]...)
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// Client issues a certificate for the client of that name.
func (ca *CA) Client(name string) tls.Certificate {
	ca.tb.Helper()
	return ca.Issue(name, func(cert *x509.Certificate) {
		cert.DNSNames, cert.IPAddresses = nil, nil
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
}

// Issue issues a certificate for a server and a client of that name, a host name or an IP address, after change, if there
// is one, has made it otherwise: expired, not yet valid, for another usage.
func (ca *CA) Issue(name string, change func(cert *x509.Certificate)) tls.Certificate {
	ca.tb.Helper()
	template := ca.template(name)
	addNames(template, name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if change != nil {
		change(template)
	}
	key := newKey(ca.tb)
	cert := ca.sign(template, ca.cert, key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// Expired is a change for Issue: the certificate was valid until a minute ago.
func Expired(cert *x509.Certificate) { cert.NotAfter = time.Now().Add(-time.Minute) }

// NotYetValid is a change for Issue: the certificate is valid from a minute from now.
func NotYetValid(cert *x509.Certificate) { cert.NotBefore = time.Now().Add(time.Minute) }

// Pool returns a pool with the authority's certificate alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// File writes the authority's certificate into a new file and returns its path. The file is removed at the end of the test.
func (ca *CA) File() string {
	ca.tb.Helper()
	path := filepath.Join(ca.tb.TempDir(), "ca.pem")
	writePEM(ca.tb, path, "CERTIFICATE", ca.cert.Raw)
	return path
}

// Files writes a certificate and its key into new files and returns their paths. They are removed at the end of the test.
func (ca *CA) Files(cert tls.Certificate) (certFile, keyFile string) {
	ca.tb.Helper()
	dir := ca.tb.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	WriteFiles(ca.tb, cert, certFile, keyFile)
	return certFile, keyFile
}

// WriteFiles writes a certificate and its key into two files, which are replaced if they exist, one after the other, as
// renewal does it: whoever reads one of them never sees a part of it.
func WriteFiles(tb testing.TB, cert tls.Certificate, certFile, keyFile string) {
	tb.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		tb.Fatalf("key of a certificate: %v", err)
	}
	writePEM(tb, keyFile, "PRIVATE KEY", key)
	writePEM(tb, certFile, "CERTIFICATE", cert.Certificate...)
}

// template returns what all certificates have in common.
func (ca *CA) template(name string) *x509.Certificate {
	ca.tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		ca.tb.Fatalf("serial number of a certificate: %v", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-certLife),
		NotAfter:     now.Add(certLife),
	}
}

// sign returns the certificate for a key, signed by the authority.
func (ca *CA) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	ca.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), ca.key)
	if err != nil {
		ca.tb.Fatalf("sign a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.tb.Fatalf("read a certificate: %v", err)
	}
	return cert
}

// addNames adds host names and IP addresses to those that a certificate is for.
func addNames(cert *x509.Certificate, names ...string) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, name)
		}
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("make a key: %v", err)
	}
	return key
}

// writePEM replaces a file by one with these blocks.
func writePEM(tb testing.TB, path, kind string, blocks ...[]byte) {
	tb.Helper()
	var text []byte
	for _, block := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: block})...)
	}
	next := path + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		tb.Fatal(err)
	}
}
