package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/admin"
	"dreadlock/server/api"
)

// view is a daemon with its admin interface.
type view struct {
	d     *daemon
	url   string
	token string // empty for none
}

// startAdmin runs the daemon with its admin interface on a free port.
func startAdmin(t *testing.T, args ...string) *view {
	t.Helper()
	d := start(t, append([]string{"--admin", "127.0.0.1:0"}, args...)...)
	return &view{d: d, url: d.adminAddresses()[0]}
}

// adminAddresses waits for the admin interface and returns the URLs of its addresses.
func (d *daemon) adminAddresses() (urls []string) {
	d.tb.Helper()
	line, ok := d.log.await("admin is ready")
	if !ok {
		d.tb.Fatalf("there is no admin interface; log:\n%s", d.log)
	}
	for _, url := range line["addresses"].([]any) {
		urls = append(urls, url.(string))
	}
	return urls
}

// request returns the status and the body of an answer. It asks again where the daemon cannot answer: its loops may get
// no processor for a while.
func (v *view) request(method, path string) (status int, body string) {
	v.d.tb.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		status, body = v.requestOnce(method, path)
		if status/100 != 5 || time.Now().After(deadline) {
			return status, body
		}
	}
}

func (v *view) requestOnce(method, path string) (status int, body string) {
	v.d.tb.Helper()
	req, err := http.NewRequest(method, v.url+path, http.NoBody)
	if err != nil {
		v.d.tb.Fatal(err)
	}
	if v.token != "" {
		req.Header.Set("Authorization", "Bearer "+v.token)
	}
	client := http.Client{Timeout: prototest.Patience}
	resp, err := client.Do(req)
	if err != nil {
		v.d.tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.d.tb.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// get fills in an answer of the API.
func (v *view) get(path string, answer any) {
	v.d.tb.Helper()
	status, body := v.request(http.MethodGet, path)
	if status != http.StatusOK {
		v.d.tb.Fatalf("%s: %d, %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), answer); err != nil {
		v.d.tb.Fatalf("%s: %v in %s", path, err, body)
	}
}

// eventually polls for what nobody reports.
func eventually(t *testing.T, failure string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(prototest.Patience); !reached(); {
		if time.Now().After(deadline) {
			t.Fatal(failure)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // there is no event to wait for
	}
}

// Two clients that wait for each other are one cycle in the API, the metrics and the log. A kick ends it.
func TestDeadlockSeen(t *testing.T) {
	v := startAdmin(t)
	a, b := v.d.dial(), v.d.dial()
	a.Do("lock left 0", "l locked")
	b.Do("lock right 0", "l locked")
	a.Send("lock right 600000")
	b.Send("lock left 600000")
	began := time.Now()
	var seen api.Deadlocks
	eventually(t, "the deadlock is not seen", func() bool {
		v.get("/api/v1/deadlocks", &seen)
		return len(seen.Cycles) > 0
	})
	t.Logf("seen after %s", time.Since(began))
	if len(seen.Cycles) != 1 || len(seen.Cycles[0].Waits) != 2 || seen.Found != 1 || seen.Breaking {
		t.Fatalf("it is seen as %+v", seen)
	}
	waits := seen.Cycles[0].Waits
	for i, w := range waits {
		if w.HeldBy != waits[1-i].Connection || w.WaitsFor != "left" && w.WaitsFor != "right" {
			t.Errorf("a wait is seen as %+v", w)
		}
	}
	if _, metrics := v.request(http.MethodGet, "/metrics"); !strings.Contains(metrics, "\ndreadlock_deadlocks 1\n") {
		t.Error("the metrics do not have it")
	}
	line, _ := v.d.log.await("deadlock: connections wait for one another")
	for _, w := range waits {
		if text := line.text("cycle"); !strings.Contains(text, w.Address) || !strings.Contains(text, "waits for "+w.WaitsFor) {
			t.Errorf("the log says %q, without %+v", text, w)
		}
	}
	if status, body := v.request(http.MethodPost, fmt.Sprintf("/api/v1/connections/%d/kick", waits[0].Connection)); status != http.StatusOK {
		t.Fatalf("kick: %d, %s", status, body)
	}
	kicked, freed := a, b
	if waits[0].Address == b.Conn().LocalAddr().String() {
		kicked, freed = b, a
	}
	kicked.Expect("e kicked")
	kicked.ExpectEnd()
	freed.Expect("l locked")
	eventually(t, "a broken deadlock is still shown", func() bool {
		v.get("/api/v1/deadlocks", &seen)
		return len(seen.Cycles) == 0
	})
	if n := strings.Count(v.d.log.String(), "deadlock: "); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// With --break-deadlocks the youngest wait ends by itself.
func TestBreakDeadlocks(t *testing.T) {
	d := start(t, "--break-deadlocks")
	a, b := d.dial(), d.dial()
	a.Do("lock left 0", "l locked")
	b.Do("lock right 0", "l locked")
	newQueuer(d, 2, a).queue(a, "right", 600_000)
	b.Do("lock left 600000", "e deadlock")
	b.Do("unlock right", "u unlocked")
	a.Expect("l locked")
}

// The metrics are in the format of Prometheus, and count what clients do.
func TestMetrics(t *testing.T) {
	v := startAdmin(t)
	c := v.d.dial()
	for range 3 {
		c.Do("lock a 0", "l locked")
		c.Do("unlock a", "u unlocked")
	}
	c.Do("lock b 0", "l locked")
	_, text := v.request(http.MethodGet, "/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if got := families["dreadlock_held_keys"].GetMetric()[0].GetGauge().GetValue(); got != 1 {
		t.Errorf("%v keys are held, want 1", got)
	}
	sum := 0.0
	for _, m := range families["dreadlock_commands_total"].GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	if sum != 7 {
		t.Errorf("%v commands, want 7", sum)
	}
}

// Health checks, profiles and the page are served, and do not keep the daemon from stopping.
func TestAdminPages(t *testing.T) {
	v := startAdmin(t, "--pprof")
	for _, path := range []string{"/healthz", "/readyz", "/debug/pprof/", "/"} {
		if status, _ := v.request(http.MethodGet, path); status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
	}
	v.d.stop()
}

// Requests without the token are refused.
func TestAdminToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := startAdmin(t, "--admin-token-file", file)
	if status, _ := v.request(http.MethodGet, "/api/v1/status"); status != http.StatusUnauthorized {
		t.Errorf("without the token: %d, want %d", status, http.StatusUnauthorized)
	}
	v.token = "0123456789abcdef0123"
	if status, _ := v.request(http.MethodGet, "/api/v1/status"); status != http.StatusOK {
		t.Errorf("with the token: %d", status)
	}
}

// If the admin interface cannot be served, the daemon does not start. It says why in one line, with advice.
func TestAdminRefused(t *testing.T) {
	v := startAdmin(t)
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--admin", "0.0.0.0:0"}, 2, "needs --admin-token-file"},
		{[]string{"--admin", ":0"}, 2, "needs --admin-token-file"},
		{[]string{"--admin", "localhost"}, 2, "--admin localhost: want host:port"},
		{[]string{"--admin", "127.0.0.1:0", "--admin", "unix://x"}, 2, "--admin unix://x: want unix:///PATH"},
		{[]string{"--admin", "127.0.0.1:0", "--admin-token-file", "/nonexistent"}, 2, "--admin-token-file"},
		{[]string{"--admin", "https://127.0.0.1:0"}, 2, "--admin https://127.0.0.1:0: it needs --tls-cert and --tls-key"},
		{[]string{"--pprof", "--admin", "off"}, 2, "--pprof has no effect with --admin off"},
		{[]string{"--admin", strings.TrimPrefix(v.url, "http://")}, 1, "address already in use: stop what listens there"},
		{[]string{"--admin", "unix:///proc/s"}, 1, "--admin unix:///proc/s: unix socket /proc/s: "},
	} {
		got := run(t, launch{}, append([]string{"--listen", "127.0.0.1:0"}, c.args...)...)
		if got.status != c.status || !oneLine(got.stderr, c.says) {
			t.Errorf("%q: %+v, want %d and %q", c.args, got, c.status, c.says)
		}
	}
}

// The files for TLS are those of the daemon; with a client CA, the admin interface wants a certificate too.
func TestAdminTLS(t *testing.T) {
	ca := prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server("127.0.0.1"))
	for _, mutual := range []bool{false, true} {
		args := []string{"--tls-cert", certFile, "--tls-key", keyFile, "--admin", "https://127.0.0.1:0"}
		if mutual {
			args = append(args, "--tls-client-ca", ca.File())
		}
		url := start(t, args...).adminAddresses()[0]
		get := func(own ...tls.Certificate) (int, error) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: own}}
			defer transport.CloseIdleConnections()
			client := http.Client{Transport: transport, Timeout: prototest.Patience}
			resp, err := client.Get(url + "/healthz")
			if err != nil {
				return 0, err
			}
			return resp.StatusCode, resp.Body.Close()
		}
		if status, err := get(ca.Client("ann")); status != http.StatusOK || err != nil {
			t.Errorf("with a certificate: %d, %v", status, err)
		}
		if status, err := get(); mutual != (err != nil) {
			t.Errorf("without a certificate, wanted %v: %d, %v", mutual, status, err)
		}
	}
}

// The reserve of descriptors covers all connections that the admin interface accepts.
func TestAdminReserve(t *testing.T) {
	if admin.MaxConnections > server.AdminConnections {
		t.Errorf("the admin interface accepts %d connections, and the reserve has room for %d", admin.MaxConnections, server.AdminConnections)
	}
}

// A stop does not wait for a slow reader of the admin interface.
func TestAdminStopsAtOnce(t *testing.T) {
	v := startAdmin(t, "--pprof")
	resp, err := http.Get(v.url + "/debug/pprof/trace?seconds=600") // the header comes with the first data
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	began := time.Now()
	v.d.signal(syscall.SIGTERM)
	if state := v.d.wait(); state.ExitCode() != 0 {
		t.Errorf("ended with %v, want 0", state)
	}
	t.Logf("ended after %s", time.Since(began))
}
