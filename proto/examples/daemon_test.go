package examples

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dreadlock/bench"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// daemon is a process of the real daemon, with its API.
type daemon struct {
	pid        int
	address    string
	host, port string
	api        *http.Client
}

// start starts a daemon, which ends with the test.
func start(tb testing.TB, options ...string) *daemon {
	tb.Helper()
	admin := filepath.Join(tb.TempDir(), "admin.sock")
	variant := &bench.Variant{Name: "daemon", Options: append(options, "--admin", "unix://"+admin)}
	s, err := peers.Start(tb.Context(), bench.Peer{Kind: bench.Daemon, Loops: 2, Variant: variant})
	if err != nil {
		tb.Fatal(err)
	}
	d := &daemon{pid: s.PID, address: s.Address, api: &http.Client{
		Timeout: prototest.Patience,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", admin)
		}},
	}}
	d.host, d.port, _ = net.SplitHostPort(s.Address)
	tb.Cleanup(func() {
		d.signal(syscall.SIGCONT)
		s.Stop()
		d.api.CloseIdleConnections()
	})
	return d
}

// signal sends the daemon a signal, if it has not ended.
func (d *daemon) signal(s syscall.Signal) { _ = syscall.Kill(d.pid, s) }

// ask fills in the answer of the API.
func (d *daemon) ask(tb testing.TB, method, path string, answer any) {
	tb.Helper()
	request, err := http.NewRequestWithContext(tb.Context(), method, "http://daemon/api/v1/"+path, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := d.api.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		tb.Fatalf("%s %s: %s", method, path, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		tb.Fatal(err)
	}
}

// awaitWaiter waits until somebody waits for a key that is held.
func (d *daemon) awaitWaiter(tb testing.TB, key string) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(prototest.Patience); ; <-tick.C {
		var shown api.Key
		if d.ask(tb, http.MethodGet, "keys/"+key, &shown); shown.Waiters > 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("nobody waits for %s", key)
		}
	}
}

// history returns what has happened to a key, oldest first, and the token of each event.
func (d *daemon) history(tb testing.TB, key string) (kinds []string, tokens []uint64) {
	tb.Helper()
	var page api.EventPage
	d.ask(tb, http.MethodGet, "events?key="+key, &page)
	for _, e := range page.Events {
		kinds, tokens = append(kinds, e.Kind), append(tokens, e.Token)
	}
	return kinds, tokens
}
