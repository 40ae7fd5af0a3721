package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dreadlock/proto/prototest"
)

// front leads to a daemon by another way: it passes the connections of a listener on.
func front(t *testing.T, l net.Listener, d *daemon) (address string) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := net.Dial("tcp", d.address)
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					io.Copy(near, far)
					near.Close()
				}()
				io.Copy(far, near)
			}()
		}
	}()
	return l.Addr().String()
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// overTLS leads to a daemon by TLS.
func overTLS(t *testing.T, d *daemon, cert tls.Certificate, clients *x509.CertPool) (address string) {
	t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	if clients != nil {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	return "tls://" + front(t, tls.NewListener(listenOn(t, "tcp", "127.0.0.1:0"), cfg), d)
}

// Whatever way leads to the daemon, the key is held, a second one is refused, what the command runs finds the way too, and
// the end of the daemon is noticed.
func TestWays(t *testing.T) {
	d := startDaemon(t)
	ca := prototest.NewCA(t)
	caFile := ca.File()
	certFile, keyFile := ca.Files(ca.Client("ann"))
	var holding []*job
	for i, c := range []struct {
		address string
		options []string
	}{
		{"tcp://" + d.address, nil},
		{overTLS(t, d, ca.Server(), nil), []string{"--tls-ca", relative(t, caFile)}},
		{overTLS(t, d, ca.Server(), ca.Pool()), []string{"--tls-ca", caFile, "--tls-cert", certFile, "--tls-key", relative(t, keyFile)}},
		{"unix://" + front(t, listenOn(t, "unix", filepath.Join(t.TempDir(), "lock.sock")), d), nil},
	} {
		key := fmt.Sprintf("k%d", i)
		options := append([]string{"lock", "--server", c.address}, c.options...)
		j := begin(t, nil, append(append(options, key), obedient...)...)
		j.stdout.await(t, "runs with "+key+" of "+c.address+"\n")
		holding = append(holding, j)
		if got := runs(t, append(options, "--try", key, "--", "true")...); got.status != exitConflict {
			t.Errorf("%s: %+v, want 75", c.address, got)
		}
		d.dial(t).Do("lock "+key+" 0", "t timeout")

		got := runs(t, append(options, "outer", "--", "sh", "-c", `cd / && exec "$0" lock inner -- sh -c 'echo "$DREADLOCK_KEY"'`, program)...)
		if got.status != 0 || got.stdout != "inner\n" {
			t.Errorf("%s: %+v", c.address, got)
		}
	}
	d.kill()
	for _, j := range holding {
		if got := j.wait(); got.status != exitLost || !oneLine(got.stderr, "lost the connection to ") {
			t.Errorf("%+v", got)
		}
	}
}

// relative returns a path relative to the directory of the tests.
func relative(t *testing.T, path string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.Rel(here, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// The files can be given in the environment, and an empty option takes one out.
func TestTLSEnvironment(t *testing.T) {
	d := startDaemon(t)
	ca := prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Client("ann"))
	env := []string{
		"DREADLOCK_SERVER=" + overTLS(t, d, ca.Server(), ca.Pool()),
		"DREADLOCK_TLS_CA=" + ca.File(), "DREADLOCK_TLS_CERT=" + certFile, "DREADLOCK_TLS_KEY=" + keyFile,
	}
	if got := runWith(t, env, "lock", "k", "--", "true"); got.status != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := runWith(t, env, "lock", "k", "--server", d.address, "--", "true"); got.status != exitUsage {
		t.Errorf("%+v, want 2", got)
	}
	got := runWith(t, env, "lock", "k", "--server", d.address, "--tls-ca=", "--tls-cert=", "--tls-key=",
		"--", "sh", "-c", `echo "${DREADLOCK_TLS_CA-none}"`)
	if got.status != 0 || got.stdout != "none\n" {
		t.Errorf("%+v", got)
	}
}

// A handshake that fails is explained, with status 69, and is not tried again.
func TestHandshakeRefused(t *testing.T) {
	d := startDaemon(t)
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	trust := []string{"--tls-ca", ca.File()}
	with := func(cert tls.Certificate) []string {
		certFile, keyFile := ca.Files(cert)
		return append([]string{"--tls-cert", certFile, "--tls-key", keyFile}, trust...)
	}
	plain := serve(t, func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for _, c := range []struct {
		address string
		options []string
		says    string
	}{
		{overTLS(t, d, ca.Server(), nil), nil, "give the authority's certificate with --tls-ca FILE or DREADLOCK_TLS_CA"},
		{overTLS(t, d, other.Server(), nil), trust, "is --tls-ca right?"},
		{overTLS(t, d, ca.Server("locks.example"), nil), trust, "give a name that it is for with --server"},
		{overTLS(t, d, ca.Issue("127.0.0.1", prototest.Expired), nil), trust, "cannot be used: renew it"},
		{overTLS(t, d, ca.Server(), ca.Pool()), trust, "give one with --tls-cert FILE and --tls-key FILE"},
		{overTLS(t, d, ca.Server(), ca.Pool()), with(other.Client("ann")), "from the authority that the daemon trusts"},
		{overTLS(t, d, ca.Server(), ca.Pool()), with(ca.Issue("ann", prototest.Expired)), "expired certificate"},
		{"tls://" + plain, nil, "does not speak TLS: is --server right?"},
	} {
		got := runs(t, append(append([]string{"lock", "k", "--server", c.address}, c.options...), "--", "echo", "runs")...)
		if got.status != exitUnreachable || got.stdout != "" || !oneLine(got.stderr, c.says, c.address) {
			t.Errorf("%s: %+v, want 69 and one line with %q", c.address, got, c.says)
		}
	}
}

// A key that is not that of the certificate is an invalid option.
func TestKeyOfAnother(t *testing.T) {
	ca := prototest.NewCA(t)
	certFile, _ := ca.Files(ca.Client("ann"))
	_, keyFile := ca.Files(ca.Client("bob"))
	got := runs(t, "lock", "k", "--server", "tls://localhost:6002", "--tls-cert", certFile, "--tls-key", keyFile, "--", "true")
	if got.status != exitUsage || !oneLine(got.stderr, "--tls-cert "+certFile+" and --tls-key "+keyFile, "does not match") {
		t.Errorf("%+v", got)
	}
}

// What is wrong with a way is explained, with status 69.
func TestUnreachableWays(t *testing.T) {
	d := startDaemon(t)
	missing := "unix://" + filepath.Join(t.TempDir(), "lock.sock")
	for _, c := range []struct{ address, says string }{
		{missing, "there is no socket at " + missing + ": start dreadlock with --listen " + missing},
		{"tls://" + deaf(t), "nothing listens at tls://"},
		{"tls://" + d.address, "does it speak TLS at this port"},
		{strings.TrimPrefix(overTLS(t, d, prototest.NewCA(t).Server(), nil), "tls://"), "if it speaks TLS at this port, give tls://127.0.0.1:"},
	} {
		got := runs(t, "lock", "k", "--try", "--server", c.address, "--", "echo", "runs")
		if got.status != exitUnreachable || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v, want 69 and one line with %q", c.address, got, c.says)
		}
	}
}
