package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dreadlock/proto/prototest"
)

// way returns the address of a daemon by a scheme.
func (d *daemon) way(tb testing.TB, scheme string) string {
	tb.Helper()
	line := d.log.awaitLine(tb, "dreadlock is ready")
	way := regexp.MustCompile(scheme + `://[^" \]]+`).FindString(line)
	if way == "" {
		tb.Fatalf("no %s:// in %q", scheme, line)
	}
	return way
}

// startTLS starts a daemon with a certificate.
func startTLS(t *testing.T, ca *prototest.CA, cert tls.Certificate, args ...string) *daemon {
	t.Helper()
	certFile, keyFile := ca.Files(cert)
	return startDaemon(t, append([]string{"--listen", "tls://127.0.0.1:0", "--tls-cert", certFile, "--tls-key", keyFile}, args...)...)
}

// startMutual starts a daemon that wants client certificates of the authority.
func startMutual(t *testing.T, ca *prototest.CA) *daemon {
	t.Helper()
	return startTLS(t, ca, ca.Server(), "--tls-client-ca", ca.File())
}

// Whatever way leads to the daemon, the key is held, a second one is refused, what the command runs finds the way too, and
// the end of the daemon is noticed.
func TestWays(t *testing.T) {
	ca := prototest.NewCA(t)
	caFile := ca.File()
	clientCert, clientKey := ca.Files(ca.Client("ann"))
	open := startTLS(t, ca, ca.Server(), "--listen", "unix://"+filepath.Join(t.TempDir(), "lock.sock"))
	mutual := startMutual(t, ca)
	var holding []*job
	for i, c := range []struct {
		d       *daemon
		scheme  string
		options []string
	}{
		{open, "tcp", nil},
		{open, "tls", []string{"--tls-ca", relative(t, caFile)}},
		{mutual, "tls", []string{"--tls-ca", caFile, "--tls-cert", clientCert, "--tls-key", relative(t, clientKey)}},
		{open, "unix", nil},
	} {
		key, address := fmt.Sprintf("k%d", i), c.d.way(t, c.scheme)
		options := append([]string{"lock", "--server", address}, c.options...)
		j := begin(t, nil, append(append(options, key), obedient...)...)
		j.stdout.await(t, "runs with "+key+" of "+address+"\n")
		holding = append(holding, j)
		if got := runs(t, append(options, "--try", key, "--", "true")...); got.status != exitConflict {
			t.Errorf("%s: %+v, want 75", address, got)
		}
		c.d.dial(t).Do("lock "+key+" 0", "t timeout")

		got := runs(t, append(options, "outer", "--", "sh", "-c", `cd / && exec "$0" lock inner -- sh -c 'echo "$DREADLOCK_KEY"'`, program)...)
		if got.status != 0 || got.stdout != "outer inner\n" {
			t.Errorf("%s: %+v", address, got)
		}
	}
	open.kill()
	mutual.kill()
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
	ca := prototest.NewCA(t)
	d := startMutual(t, ca)
	certFile, keyFile := ca.Files(ca.Client("ann"))
	env := []string{
		"DREADLOCK_SERVER=" + d.way(t, "tls"),
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
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	trust := []string{"--tls-ca", ca.File()}
	with := func(cert tls.Certificate) []string {
		certFile, keyFile := ca.Files(cert)
		return append([]string{"--tls-cert", certFile, "--tls-key", keyFile}, trust...)
	}
	serving := func(cert tls.Certificate) string { return startTLS(t, ca, cert).way(t, "tls") }
	mutual := startMutual(t, ca).way(t, "tls")
	plain := serve(t, func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	for _, c := range []struct {
		address string
		options []string
		says    string
	}{
		{serving(ca.Server()), nil, "give the authority's certificate with --tls-ca FILE or DREADLOCK_TLS_CA"},
		{serving(other.Server()), trust, "is --tls-ca right?"},
		{serving(ca.Server("locks.example")), trust, "give a name that it is for with --server"},
		{serving(ca.Issue("127.0.0.1", prototest.Expired)), trust, "cannot be used: renew it"},
		{mutual, trust, "give one with --tls-cert FILE and --tls-key FILE"},
		{mutual, with(other.Client("ann")), "from the authority that the daemon trusts"},
		{mutual, with(ca.Issue("ann", prototest.Expired)), "expired certificate"},
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
	ca := prototest.NewCA(t)
	d := startTLS(t, ca, ca.Server())
	missing := "unix://" + filepath.Join(t.TempDir(), "lock.sock")
	for _, c := range []struct{ address, says string }{
		{missing, "there is no socket at " + missing + ": start dreadlock with --listen " + missing},
		{"tls://" + deaf(t), "nothing listens at tls://"},
		{"tls://" + d.address, "does it speak TLS at this port"},
		{strings.TrimPrefix(d.way(t, "tls"), "tls://"), "if it speaks TLS at this port, give tls://127.0.0.1:"},
	} {
		got := runs(t, "lock", "k", "--try", "--server", c.address, "--", "echo", "runs")
		if got.status != exitUnreachable || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v, want 69 and one line with %q", c.address, got, c.says)
		}
	}
}

// The commands in the README make files with which a daemon and a client trust each other.
func TestCertificatesOfReadme(t *testing.T) {
	readme, err := os.ReadFile("../../server/certs/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"openssl req", "step certificate"} {
		t.Run(tool, func(t *testing.T) {
			program, _, _ := strings.Cut(tool, " ")
			if _, err := exec.LookPath(program); err != nil {
				t.Skip(err)
			}
			_, block, _ := strings.Cut(string(readme), "```sh run\n"+tool)
			block, _, found := strings.Cut(block, "```")
			if !found {
				t.Fatal("there are no such commands")
			}
			dir := t.TempDir()
			cmd := exec.Command("sh", "-ec", tool+block)
			cmd.Dir = dir
			if output, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
			file := func(name string) string { return filepath.Join(dir, name) }
			d := startDaemon(t, "--listen", "tls://127.0.0.1:0", "--tls-cert", file("server.pem"), "--tls-key", file("server.key"),
				"--tls-client-ca", file("ca.pem"))
			_, port, _ := net.SplitHostPort(strings.TrimPrefix(d.way(t, "tls"), "tls://"))
			for _, host := range []string{"localhost", "127.0.0.1"} {
				got := runs(t, "lock", "k", "--server", "tls://"+net.JoinHostPort(host, port), "--tls-ca", file("ca.pem"),
					"--tls-cert", file("client.pem"), "--tls-key", file("client.key"), "--", "true")
				if got.status != 0 {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}
