package admin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// secretFile writes a file with the given mode and returns its path.
func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func TestBadOptions(t *testing.T) {
	const good = "0123456789abcdef"
	for _, c := range []struct {
		listen, file string
		text         string // in the error
	}{
		{"", "", "--admin : want host:port, https://host:port or unix:///path"},
		{"6002", "", "--admin 6002: want host:port"},
		{"ftp://127.0.0.1:0", "", "--admin ftp://127.0.0.1:0: want host:port"},
		{"http://127.0.0.1", "", "--admin http://127.0.0.1: want host:port"},
		{"http://127.0.0.1:0/metrics", "", "the port must be a number"},
		{"https://127.0.0.1:0", "", "--admin https://127.0.0.1:0: it needs --tls-cert and --tls-key"},
		{"unix://a.sock", "", "--admin unix://a.sock: want unix:///PATH, with three slashes"},
		{"unix:///a.sock?mode=rw", "", "--admin unix:///a.sock?mode=rw: mode=rw: want an octal number"},
		{"unix:///a.sock?user=me", "", "there is no parameter user: want mode or group"},
		{"unix:///a%zz", "", "invalid URL escape"},
		{"127.0.0.1:http", "", "the port must be a number"},
		{"127.0.0.1:65536", "", "the port must be a number"},
		{"no name:6002", "", "--admin no name:6002: "},
		{":0", "", "--admin :0: other machines can reach this address: it needs --admin-token-file"},
		{"0.0.0.0:0", "", "it needs --admin-token-file"},
		{"[::]:0", "", "it needs --admin-token-file"},
		{"192.0.2.1:0", "", "it needs --admin-token-file"},
		{":0", "/nowhere/token", "--admin-token-file: open /nowhere/token: no such file"},
		{":0", t.TempDir(), "is a directory"},
		{":0", secretFile(t, "", 0o600), "has 0 characters, want at least 16"},
		{":0", secretFile(t, "  short \n", 0o600), "has 5 characters, want at least 16: openssl rand"},
		{":0", secretFile(t, "two\nlines of text", 0o600), "want one line"},
		{":0", secretFile(t, strings.Repeat("x", maxToken+1), 0o600), "has more than 4096 characters"},
		{":0", secretFile(t, good, 0o602), "everybody can write it"},
	} {
		server, err := Listen(t.Context(), Config{Listen: []string{c.listen}, TokenFile: c.file, Source: newFake(), Log: zerolog.Nop()})
		if server != nil {
			server.Close()
		}
		if !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q with %q: %v, want %q", c.listen, c.file, err, c.text)
		}
	}
}

func TestGoodOptions(t *testing.T) {
	for _, c := range []struct {
		listen, file string
		warns        bool
	}{
		{"127.0.0.1:0", "", false},
		{"localhost:0", "", false},
		{"http://localhost:0", "", false},
		{"http://localhost:0/", "", false},
		{":0", secretFile(t, "0123456789abcdef\n", 0o600), false},
		{"127.0.0.1:0", secretFile(t, "0123456789abcdef", 0o640), false},
		{":0", secretFile(t, "0123456789abcdef", 0o644), true},
	} {
		var log bytes.Buffer
		server, err := Listen(t.Context(), Config{Listen: []string{c.listen}, TokenFile: c.file, Source: newFake(), Log: zerolog.New(&log)})
		if err != nil {
			t.Errorf("%q with %q: %v", c.listen, c.file, err)
			continue
		}
		urls := server.Addresses()
		if u, err := url.Parse(urls[0]); len(urls) != 1 || err != nil || u.Scheme != "http" || u.Port() == "" || u.Port() == "0" {
			t.Errorf("%q has addresses %q", c.listen, urls)
		}
		if warned := strings.Contains(log.String(), "everybody on this machine can read the admin token"); warned != c.warns {
			t.Errorf("%q with %q logs %q", c.listen, c.file, log.String())
		}
		server.Close()
	}
}

// An address that is in use is not a bad option, and Listen notices it.
func TestAddressInUse(t *testing.T) {
	url := serve(t, Config{Source: newFake()})
	_, err := Listen(t.Context(), Config{Listen: []string{url}, Source: newFake()})
	if !errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "--admin "+url+": ") {
		t.Errorf("%v", err)
	}
}

// slow is a server that does not answer the question for deadlocks before gone is closed.
type slow struct {
	*fake
	asked, gone chan struct{}
}

func (s slow) Deadlocks(ctx context.Context) (*api.Deadlocks, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	<-s.gone // ctx may also have run out of time
	return nil, ctx.Err()
}

// The stop does not wait for a request that takes long, and leaves nothing behind.
func TestStop(t *testing.T) {
	s := slow{newFake(), make(chan struct{}, 1), make(chan struct{})}
	defer close(s.gone)
	url, stop := serveUntil(t, Config{Source: s})
	ended := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	go func() {
		r, err := client.Get(url + "/api/v1/deadlocks")
		if err == nil {
			r.Body.Close()
		}
		ended <- err
	}()
	<-s.asked
	began, stopped := time.Now(), make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	select {
	case <-stopped:
		t.Logf("stopped after %v", time.Since(began))
	case <-time.After(patience):
		t.Error("it waits for the request")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a request under way was answered")
		}
	case <-time.After(patience):
		t.Error("the client is kept waiting")
	}
}

func TestSourceIn(t *testing.T) {
	for text, want := range map[string]string{
		"http: TLS handshake error from 10.1.2.3:4711: EOF":                     "10.1.2.3",
		"http: TLS handshake error from [2001:db8::1]:4711: remote error: tls":  "2001:db8::/64",
		"http: panic serving 127.0.0.1:80: runtime error: index out of range":   "127.0.0.1",
		"error gathering metrics: 1 error(s) occurred: the loops are too busy":  "",
		"http: Accept error: accept tcp: too many open files; retrying in 5ms:": "",
	} {
		if got := sourceIn(text).String(); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
