package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// listen returns where the daemon listens, as it says itself.
func (d *daemon) listen() (urls []string) {
	d.tb.Helper()
	all, ok := d.ready["listen"].([]any)
	if !ok {
		d.tb.Fatalf("it does not say where it listens: %v", d.ready)
	}
	for _, url := range all {
		urls = append(urls, fmt.Sprint(url))
	}
	return urls
}

// socketPath returns a path in an empty directory. The directories of testing have names that are too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "way")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// Several ways in lead to one lock space; the command line replaces those of the environment.
func TestSeveralWays(t *testing.T) {
	path := socketPath(t)
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server())
	files := []string{"DREADLOCK_LISTEN_TLS_CERT=" + cert, "DREADLOCK_LISTEN_TLS_KEY=" + key}
	ways := []string{"127.0.0.1:0", "tls://127.0.0.1:0?allow=127.0.0.0/8", "unix://" + path + "?mode=0600"}
	fromEnvironment := startWith(t, launch{env: append(files, "DREADLOCK_LISTEN= "+strings.Join(ways, "  "))})
	if got := fromEnvironment.listen(); len(got) != 3 {
		t.Errorf("it listens at %v", got)
	}
	fromEnvironment.stop()

	d := startWith(t, launch{env: append(files, "DREADLOCK_LISTEN=:0")}, "--listen", ways[0], "--listen", ways[1], "--listen", ways[2])
	got := d.listen()
	if len(got) != 3 || got[0] != "tcp://"+d.address || !strings.HasPrefix(got[1], "tls://127.0.0.1:") || got[2] != "unix://"+path {
		t.Fatalf("it listens at %v", got)
	}
	d.dial().Do("lock a 0", "l locked")
	prototest.DialTLS(t, strings.TrimPrefix(got[1], "tls://"), &tls.Config{RootCAs: ca.Pool()}).Do("unlock a", "e not owner")
	prototest.DialUnix(t, path).Do("unlock a", "e not owner")
	d.stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// A hang-up reads certificates again and says so, as does a change of the files. What cannot be used changes nothing.
func TestReloadCertificates(t *testing.T) {
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server())
	v := startAdmin(t, "--listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	at := strings.TrimPrefix(v.d.listen()[0], "tls://")
	shown := func() []byte {
		t.Helper()
		conn, err := tls.Dial("tcp", at, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	first := shown()
	if err := os.WriteFile(cert, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.d.signal(syscall.SIGHUP)
	line, ok := v.d.log.await("cannot reload: what was read before stays in use")
	if !ok || !strings.Contains(line.text("error"), "--tls-cert "+cert) {
		t.Errorf("the log says %v", line)
	}
	if !bytes.Equal(shown(), first) {
		t.Error("it shows another certificate than before")
	}
	renewed := ca.Server()
	prototest.WriteFiles(t, renewed, cert, key)
	v.d.signal(syscall.SIGHUP)
	eventually(t, "it does not show the renewed certificate", func() bool { return bytes.Equal(shown(), renewed.Certificate[0]) })
	if _, ok := v.d.log.await("reloaded"); !ok {
		t.Error("the log does not tell of the reload")
	}
	again := ca.Server()
	prototest.WriteFiles(t, again, cert, key)
	eventually(t, "it does not notice that the files have changed", func() bool { return bytes.Equal(shown(), again.Certificate[0]) })
	var status api.Status
	v.get("/api/v1/status", &status)
	if !status.CertificateExpires.Equal(again.Leaf.NotAfter) {
		t.Errorf("it says that the certificate expires at %s, want %s", status.CertificateExpires, again.Leaf.NotAfter)
	}
	_, metrics := v.request("GET", "/metrics")
	if want := fmt.Sprintf("dreadlock_tls_certificate_expiry_timestamp_seconds %v", float64(again.Leaf.NotAfter.Unix())); !strings.Contains(metrics, want) {
		t.Errorf("the metrics do not have %s", want)
	}
}

// passable returns a listening socket as systemd opens it, and the file to pass it by.
func passable(t *testing.T) (net.Listener, *os.File) {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return l, file
}

// A socket that was passed is served if nothing else is asked for. Clients that came before the daemon are served too.
func TestPassedSocketIsServed(t *testing.T) {
	l, file := passable(t)
	early := prototest.Dial(t, l.Addr().String())
	early.Send("lock a 0")
	d := startWith(t, launch{passed: file}, "--loops", "2")
	if got := d.listen(); !slices.Equal(got, []string{"tcp://" + l.Addr().String()}) {
		t.Errorf("it listens at %v, want what was passed", got)
	}
	early.Expect("l locked")
	d.dial().Do("lock a 0", "t timeout")
	d.stop()

	other := startWith(t, launch{passed: file}, "--listen", "127.0.0.1:0")
	if got := other.listen(); len(got) != 1 || got[0] == "tcp://"+l.Addr().String() {
		t.Errorf("it listens at %v, and was told where", got)
	}
	other.log.awaitText(t, "a socket that systemd has passed is not served")
}

// A way that cannot be opened is named, with what to do.
func TestWaysRefused(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for listen, says := range map[string]string{
		"unix://" + path:        "address already in use: stop the process that listens there",
		"unix:///nonexistent/s": "there is no directory /nonexistent: create it",
		"fd://":                 "no sockets were passed",
	} {
		got := run(t, launch{}, "--listen", "127.0.0.1:0", "--listen", listen)
		if got.status != 1 || !oneLine(got.stderr, says) || !strings.Contains(got.stderr, "--listen "+listen) {
			t.Errorf("%s: %+v, want 1 and %q", listen, got, says)
		}
	}
}
