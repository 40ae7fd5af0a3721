package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/certs"
	"dreadlock/server/noise"
)

// With an authority for clients, one without a good certificate does not come in: it learns why, and so does the log.
func TestClientCertificates(t *testing.T) {
	ca, clients, strangers := prototest.NewCA(t), prototest.NewCA(t), prototest.NewCA(t)
	d := startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"tls://127.0.0.1:0"}
		cfg.Certificates = loadCertificates(t, ca, clients)
	})
	own := clients.Client("ann")
	refused := uint64(0)
	for _, c := range []struct {
		name     string
		own      *tls.Certificate
		reason   string
		alert    string
		versions []uint16
	}{
		{"none", nil, "has shown no certificate", "certificate required", []uint16{tls.VersionTLS13}},
		{"none", nil, "has shown no certificate", "handshake failure", []uint16{tls.VersionTLS12}},
		{"of a stranger", issued(strangers.Client("ann")), "is not of an authority in --tls-client-ca", "unknown certificate authority", bothVersions},
		{"expired", issued(clients.Issue("ann", prototest.Expired)), "has expired, or is not valid yet", "expired certificate", bothVersions},
		{"of a server", issued(clients.Server("ann")), "is not for clients", "bad certificate", bothVersions},
	} {
		for _, version := range c.versions {
			before := len(d.log.containing(c.reason))
			err := d.try(t, &tls.Config{
				RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if c.own == nil {
						return new(tls.Certificate), nil
					}
					return c.own, nil // also if the daemon says that it does not want it
				},
			})
			if err == nil || !strings.Contains(err.Error(), c.alert) {
				t.Errorf("%s, %s: the client hears %v, want %q", c.name, tls.VersionName(version), err, c.alert)
			}
			refused++
			d.wantRefused(map[string]uint64{api.RefusedTLSHandshake: refused})
			if len(d.log.containing("the TLS handshake has failed", c.reason, `"client":"127.0.0.1:`)) != before+1 {
				t.Errorf("%s, %s: the log has no %q", c.name, tls.VersionName(version), c.reason)
			}
		}
	}
	good := prototest.DialTLS(t, d.address, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{own}})
	good.Do("lock a 0", "l locked")
	if got := d.key("a").Holder.Identity; got != "ann" {
		t.Errorf("the holder is %q, want ann", got)
	}
	d.wantConnections(1)
}

var bothVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func issued(cert tls.Certificate) *tls.Certificate { return &cert }

// try connects over TLS and executes a command, and returns what went wrong.
func (d *daemon) try(t *testing.T, cfg *tls.Config) error {
	t.Helper()
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: prototest.Patience}, Config: cfg}
	conn, err := dialer.Dial("tcp", d.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(prototest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("unlock a\r\n")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 100))
	return err
}

// Who does not speak TLS, or does not accept the daemon's certificate, is told apart in the log.
func TestNoHandshake(t *testing.T) {
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	d := startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"tls://127.0.0.1:0"}
		cfg.Certificates = loadCertificates(t, ca, nil)
	})
	plain := d.dial()
	plain.Send("lock a 600000")
	if _, err := plain.ReadReply(); err == nil {
		t.Error("a client without TLS gets an answer")
	}
	if err := d.try(t, &tls.Config{RootCAs: other.Pool(), ServerName: "localhost"}); err == nil {
		t.Error("a client of another authority accepts the certificate")
	}
	if err := d.try(t, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	d.wantRefused(map[string]uint64{api.RefusedTLSHandshake: 3})
	for _, reason := range []string{"the client does not speak TLS", "the client does not go on, it says: bad certificate", "unsupported versions"} {
		if len(d.log.containing("the TLS handshake has failed", reason)) != 1 {
			t.Errorf("the log has no %q", reason)
		}
	}
	silent := d.dial()
	silent.Close()
	d.wantRefused(map[string]uint64{api.RefusedTLSHandshake: 4})
	if n := len(d.log.containing("the TLS handshake has failed", `"level":"warn"`)); n != 3 {
		t.Errorf("%d warnings, want 3: who ends before it has sent anything may be a health check", n)
	}
	d.wantConnections(0)
}

// When the authority for clients is replaced and reread, those of the old one do not come in any more, not with a session of
// before either. Those that are in stay.
func TestRevokedAuthority(t *testing.T) {
	for _, version := range bothVersions {
		ca, before, after := prototest.NewCA(t), prototest.NewCA(t), prototest.NewCA(t)
		var files certs.Files
		files.Cert, files.Key = ca.Files(ca.Server())
		files.ClientCA = before.File()
		store, err := certs.Load(files, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		d := startDaemon(t, func(cfg *Config) {
			cfg.Listen, cfg.Certificates = []string{"tls://127.0.0.1:0"}, store
		})
		client := &tls.Config{
			RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{before.Client("ann")},
			ClientSessionCache: tls.NewLRUClientSessionCache(8), MinVersion: version, MaxVersion: version,
		}
		old := prototest.DialTLS(t, d.address, client)
		old.Do("lock a 0", "l locked")
		if err := d.try(t, client); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(after.File(), files.ClientCA); err != nil {
			t.Fatal(err)
		}
		if err := store.Reload(); err != nil {
			t.Fatal(err)
		}
		if err := d.try(t, client); err == nil {
			t.Errorf("%s: a client of the old authority comes in", tls.VersionName(version))
		}
		d.wantRefused(map[string]uint64{api.RefusedTLSHandshake: 1})
		client.Certificates = []tls.Certificate{after.Client("bob")}
		if err := d.try(t, client); err != nil {
			t.Errorf("%s: a client of the new authority: %v", tls.VersionName(version), err)
		}
		old.Do("unlock a", "u unlocked")
	}
}

// Where clients do not have to show a certificate, there is no identity. Renewed certificates are used without a restart.
func TestServerCertificate(t *testing.T) {
	ca := prototest.NewCA(t)
	var files certs.Files
	files.Cert, files.Key = ca.Files(ca.Server())
	store, err := certs.Load(files, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, func(cfg *Config) { cfg.Listen, cfg.Certificates = []string{"tls://127.0.0.1:0"}, store })
	c := prototest.DialTLS(t, d.address, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("ann")}})
	c.Do("lock a 0", "l locked")
	if got := d.key("a").Holder.Identity; got != "" {
		t.Errorf("the holder is %q, and nobody asked", got)
	}
	renewed := prototest.NewCA(t)
	prototest.WriteFiles(t, renewed.Server(), files.Cert, files.Key)
	if err := store.Reload(); err != nil {
		t.Fatal(err)
	}
	prototest.DialTLS(t, d.address, &tls.Config{RootCAs: renewed.Pool()}).Do("unlock a", "e not owner")
}

func TestCertificateName(t *testing.T) {
	uri, err := url.Parse("spiffe://example.org/web")
	if err != nil {
		t.Fatal(err)
	}
	ca := prototest.NewCA(t)
	for want, change := range map[string]func(cert *x509.Certificate){
		"a.example": func(cert *x509.Certificate) {
			cert.DNSNames, cert.URIs = []string{"a.example", "b.example"}, []*url.URL{uri}
		},
		"spiffe://example.org/web": func(cert *x509.Certificate) { cert.DNSNames, cert.URIs = nil, []*url.URL{uri} },
		"ann":                      func(cert *x509.Certificate) { cert.DNSNames = nil },
		"SERIALNUMBER=7,O=Locks": func(cert *x509.Certificate) {
			cert.DNSNames, cert.Subject.CommonName = nil, ""
			cert.Subject.Organization, cert.Subject.SerialNumber = []string{"Locks"}, "7"
		},
		"":             func(cert *x509.Certificate) { cert.DNSNames, cert.Subject.CommonName = nil, "" },
		"\ufffd[2Jann": func(cert *x509.Certificate) { cert.DNSNames, cert.Subject.CommonName = nil, "\x1b[2Jann" },
		strings.Repeat("é", 128): func(cert *x509.Certificate) {
			cert.DNSNames, cert.Subject.CommonName = nil, strings.Repeat("é", 200)
		},
	} {
		if got := certs.Name(ca.Issue("ann", change).Leaf); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Who takes too long for the header or the handshake is given up after ten seconds.
func TestSlowClients(t *testing.T) {
	ca := prototest.NewCA(t)
	store := loadCertificates(t, ca, nil)
	for _, c := range []struct {
		name, sends string
		way         way
		want        barrier
	}{
		{"nothing for TLS", "", way{tls: true}, noHandshake},
		{"a part of a handshake", "\x16\x03\x01\x02\x00\x01", way{tls: true}, noHandshake},
		{"nothing for a header", "", way{proxies: make(prefixes, 1)}, noHeader},
		{"a part of a header", "PROXY TCP4 10.", way{proxies: make(prefixes, 1)}, noHeader},
		{"a part of a binary header", from(t, 2, "10.1.2.3:1")[:20], way{proxies: make(prefixes, 1)}, noHeader},
		{"nothing after a header", from(t, 2, "10.1.2.3:1"), way{tls: true, proxies: make(prefixes, 1)}, noHandshake},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := &Server{cfg: DefaultConfig(), tally: newTally(1), budget: newBudget(1<<30, 1), warnings: noise.New(zerolog.Nop())}
				srv.cfg.Certificates = store
				srv.connections.Add(1)
				a := &arrival{identity: identity{address: address{entrance: &entrance{server: srv, way: &c.way}}}, counted: asConnection}
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				go near.Write([]byte(c.sends))
				began := time.Now()
				_, err := srv.preparation(a.address.entrance)(t.Context(), far, a)
				barred, ok := errors.AsType[*barredError](err)
				if !ok || barred.barrier != c.want || plainReason(barred.err) != "the client took more than 10s" {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != prepareTime {
					t.Errorf("after %s, want %s", took, prepareTime)
				}
				far.Close()
				synctest.Wait()
			})
		})
	}
}
