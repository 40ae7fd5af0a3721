package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/certs"
)

const testToken = "0123456789abcdef0123456789abcdef"

// shortDir returns a directory with a path that is short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// requester sends requests to one of our URLs, which may be that of a Unix socket.
type requester struct {
	t      *testing.T
	base   string
	client *http.Client
}

func newRequester(t *testing.T, base string, config *tls.Config) *requester {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	r := &requester{t, base, &http.Client{Transport: transport, Timeout: patience}}
	if path, ok := strings.CutPrefix(base, "unix://"); ok {
		r.base = "http://whatever.example"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	return r
}

// get returns the status of an answer.
func (r *requester) get(path string, header http.Header) (int, error) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, r.base+path, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	for name := range header {
		request.Header.Set(name, header.Get(name))
	}
	response, err := r.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// answers expects a status.
func (r *requester) answers(path string, status int) {
	r.t.Helper()
	if got, err := r.get(path, nil); got != status || err != nil {
		r.t.Errorf("%s%s: %d, %v, want %d", r.base, path, got, err, status)
	}
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	more *sync.Cond
	text bytes.Buffer
}

func newSyncBuffer() *syncBuffer {
	b := &syncBuffer{}
	b.more = sync.NewCond(&b.mu)
	return b
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.more.Broadcast()
	return b.text.Write(p)
}

// await returns the line with a message, as it is in JSON.
func (b *syncBuffer) await(t *testing.T, message string) (line map[string]any) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		late = true
		b.more.Broadcast()
	})
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for text := range bytes.Lines(b.text.Bytes()) {
			line = nil
			if json.Unmarshal(text, &line) == nil && strings.HasPrefix(fmt.Sprint(line["message"]), message) {
				return line
			}
		}
		if late {
			t.Fatalf("no line with %q in %s", message, b.text.String())
		}
		b.more.Wait()
	}
}

// All addresses serve the same. Who comes by TCP needs the token, who may open the file does not.
func TestAddresses(t *testing.T) {
	ca := prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server("localhost", "127.0.0.1"))
	store, err := certs.Load(certs.Files{Cert: certFile, Key: keyFile}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shortDir(t), "a b.sock")
	log := newSyncBuffer()
	server, err := Listen(t.Context(), Config{
		Listen:       []string{"127.0.0.1:0", "https://127.0.0.1:0/", "unix://" + strings.ReplaceAll(path, " ", "%20") + "?mode=0640"},
		TokenFile:    secretFile(t, testToken, 0o600),
		Certificates: store,
		Source:       newFake(),
		Log:          zerolog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, server)
	line := log.await(t, "admin is ready")
	urls := server.Addresses()
	if fmt.Sprint(line["addresses"]) != fmt.Sprint(urls) || line["token"] != true {
		t.Errorf("%v, want %q", line, urls)
	}
	for i, scheme := range []string{"http", "https", "unix"} {
		if u, err := url.Parse(urls[i]); err != nil || u.Scheme != scheme {
			t.Fatalf("%q, %v, want %s", urls, err, scheme)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o640 {
		t.Errorf("%v, %v", info, err)
	}
	shown := http.Header{"Authorization": {"Bearer " + testToken}}
	for _, where := range urls[:2] {
		r := newRequester(t, where, &tls.Config{RootCAs: ca.Pool()})
		r.answers("/api/v1/status", http.StatusUnauthorized)
		r.answers("/healthz", http.StatusOK)
		if got, err := r.get("/api/v1/status", shown); got != http.StatusOK || err != nil {
			t.Errorf("%s with the token: %d, %v", where, got, err)
		}
	}
	r := newRequester(t, "unix://"+path, nil)
	r.answers("/api/v1/status", http.StatusOK)
	if got, err := r.get("/api/v1/status", http.Header{"Sec-Fetch-Site": {"cross-site"}}); got != http.StatusForbidden || err != nil {
		t.Errorf("a page of another site, by a proxy: %d, %v", got, err)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// With a client CA, a client without a certificate gets nothing.
func TestClientCertificates(t *testing.T) {
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server("127.0.0.1"))
	store, err := certs.Load(certs.Files{Cert: certFile, Key: keyFile, ClientCA: ca.File()}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	where := serve(t, Config{Listen: []string{"https://127.0.0.1:0"}, Certificates: store, Source: newFake()})
	newRequester(t, where, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("ann")}}).answers("/api/v1/status", http.StatusOK)
	for name, config := range map[string]*tls.Config{
		"none":    {RootCAs: ca.Pool()},
		"foreign": {RootCAs: ca.Pool(), Certificates: []tls.Certificate{other.Client("eve")}},
	} {
		if status, err := newRequester(t, where, config).get("/healthz", nil); err == nil {
			t.Errorf("certificate %s: %d", name, status)
		}
	}
}

// If one address cannot be taken, the others are given up again.
func TestOneOfMany(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := shortDir(t)
	cfg := Config{Listen: []string{"unix://" + dir + "/s", taken.Addr().String()}, Source: newFake(), Log: zerolog.Nop()}
	if _, err := Listen(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	cfg.Listen = slices.Repeat([]string{"127.0.0.1:0"}, MaxAddresses+1)
	if _, err := Listen(t.Context(), cfg); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "--admin: 5 addresses, at most 4") {
		t.Errorf("%v", err)
	}
}

// A live socket is refused, with what to do about it.
func TestSocketInUse(t *testing.T) {
	where := serve(t, Config{Listen: []string{"unix://" + shortDir(t) + "/s"}, Source: newFake()})
	_, err := Listen(t.Context(), Config{Listen: []string{where}, Source: newFake(), Log: zerolog.Nop()})
	if !errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, ErrOption) || !strings.Contains(err.Error(), "--admin "+where) ||
		!strings.Contains(err.Error(), "choose another path") {
		t.Errorf("%v", err)
	}
}

// The default socket is opened when the daemon is ready, beside the addresses, and needs no token.
func TestDefaultSocket(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("RUNTIME_DIRECTORY", dir)
	ready := make(chan int, 1)
	log := newSyncBuffer()
	server, err := Listen(t.Context(), Config{
		Listen: []string{"127.0.0.1:0"}, Ready: ready, TokenFile: secretFile(t, testToken, 0o600), Source: newFake(), Log: zerolog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, server)
	newRequester(t, server.Addresses()[0], nil).answers("/healthz", http.StatusOK) // it serves before
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("before the daemon is ready there is %v, %v", left, err)
	}
	ready <- 6001
	line := log.await(t, "admin is ready")
	where := "unix://" + dir + "/admin-6001.sock"
	if fmt.Sprint(line["addresses"]) != fmt.Sprint([]string{server.Addresses()[0], where}) {
		t.Errorf("%v", line)
	}
	newRequester(t, where, nil).answers("/api/v1/status", http.StatusOK)
	stop()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("after the stop there is %v, %v", left, err)
	}
}

// A daemon whose socket is taken goes on without one and says why; a stop before it was ready needs none.
func TestNoDefaultSocket(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("RUNTIME_DIRECTORY", dir)
	other, err := net.Listen("unix", dir+"/admin-6001.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, port := range []int{6001, 0} {
		ready := make(chan int, 1)
		log := newSyncBuffer()
		server, err := Listen(t.Context(), Config{Ready: ready, Source: newFake(), Log: zerolog.New(log)})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, server)
		if port != 0 {
			ready <- port
			if reason := log.await(t, "no admin socket")["reason"]; !strings.Contains(fmt.Sprint(reason), "admin-6001.sock: address already in use: stop the process") {
				t.Errorf("reason %v", reason)
			}
		}
		stop()
		log.mu.Lock()
		if text := log.text.String(); strings.Contains(text, "is ready") {
			t.Error(text)
		}
		log.mu.Unlock()
	}
}

// An address that fails does not end the others.
func TestOneFails(t *testing.T) {
	log := newSyncBuffer()
	server, err := Listen(t.Context(), Config{Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}, Source: newFake(), Log: zerolog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, server)
	urls := server.Addresses()
	newRequester(t, urls[0], nil).answers("/healthz", http.StatusOK)
	server.listeners[0].Close()
	if line := log.await(t, "the admin interface has failed at an address"); line["address"] != urls[0] || line["level"] != "error" {
		t.Errorf("%v", line)
	}
	newRequester(t, urls[1], nil).answers("/healthz", http.StatusOK)
}

// A crowd at one address does not keep others out at another one.
func TestCrowd(t *testing.T) {
	server, err := Listen(t.Context(), Config{Listen: []string{"127.0.0.1:0", "unix://" + shortDir(t) + "/s"}, Source: newFake(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	urls := server.Addresses()
	run(t, server)
	for range 3 * MaxConnections {
		conn, err := net.Dial("tcp", strings.TrimPrefix(urls[0], "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	newRequester(t, urls[1], nil).answers("/healthz", http.StatusOK)
}
