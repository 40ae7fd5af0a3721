package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
	"dreadlock/server/noise"
)

// ask returns the answer of a handler to a request that comes from this machine.
func ask(h http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r = r.WithContext(newLimit().remember(r.Context(), &limitedConn{}))
	r.Host = "localhost:6002"
	maps.Copy(r.Header, header)
	if host := header.Get("Host"); host != "" {
		r.Host = host
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func handlerOf(source Source) http.Handler {
	return newHandler(&Config{Source: source, Log: zerolog.Nop()}, nil, newLimit(), noise.New(zerolog.Nop()), nil)
}

// get returns the answer to a request that must succeed.
func get[T any](t *testing.T, h http.Handler, target string) T {
	t.Helper()
	w := ask(h, http.MethodGet, target, nil)
	var value T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&value); err != nil || w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d, %v", target, w.Code, err)
	}
	if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("GET %s: headers %v", target, w.Header())
	}
	return value
}

func TestStatus(t *testing.T) {
	f := newFake()
	got := get[api.Status](t, handlerOf(f), "/api/v1/status")
	if got.Version != "v1.2.3" || got.HeldKeys != 33 || got.Counters.LimitHits[api.LimitOutput] != 2 || len(got.Counters.Waits.Counts) != 4 {
		t.Errorf("status: %+v", got)
	}
}

func TestKeys(t *testing.T) {
	h := handlerOf(newFake())
	page := get[api.KeyPage](t, h, "/api/v1/keys")
	if page.Matching != 33 || len(page.Keys) != 33 || page.Keys[0].Key != "alpha" || page.Next != "" {
		t.Errorf("all keys: %d of %d, next %q", len(page.Keys), page.Matching, page.Next)
	}
	if page = get[api.KeyPage](t, h, "/api/v1/keys?order=waiters&limit=2"); page.Keys[0].Key != "k000" || page.Keys[1].Waiters != 11 {
		t.Errorf("by waiters: %+v", page.Keys)
	}
	if page = get[api.KeyPage](t, h, "/api/v1/keys?order=age&limit=1"); page.Keys[0].Key != "k029" {
		t.Errorf("by age: %+v", page.Keys)
	}

	if page = get[api.KeyPage](t, h, "/api/v1/keys?contains=2&client=10.0.0.1:&order=age&limit=1"); page.Keys[0].Holder.Connection%7 != 1 ||
		!strings.Contains(page.Keys[0].Key, "2") || page.Matching >= 12 || len(page.Ages.Counts) != 7 {
		t.Errorf("a part of the key, and the holder: %+v", page)
	}

	// All pages together have every key once, in order.
	var names []string
	cursor, pages := "", 0
	for {
		page := get[api.KeyPage](t, h, "/api/v1/keys?prefix=k&limit=7&cursor="+url.QueryEscape(cursor))
		for _, key := range page.Keys {
			names = append(names, key.Key)
		}
		pages++
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(names) != 30 || pages != 5 || !slices.IsSorted(names) {
		t.Errorf("%d pages: %q", pages, names)
	}
}

func TestKey(t *testing.T) {
	h := handlerOf(newFake())
	key := get[api.Key](t, h, "/api/v1/keys/k000")
	if key.Waiters != 12 || len(key.Queue) != 12 || key.Queue[0].Connection != 2 || key.Token != firstToken ||
		key.Holder != (api.Peer{Connection: 1, Address: "10.0.0.1:40001", Name: "ann@build7", Owner: "deploy"}) {
		t.Errorf("k000: %+v", key)
	}
	if key = get[api.Key](t, h, "/api/v1/keys/k000?queue=3"); key.Waiters != 12 || len(key.Queue) != 3 {
		t.Errorf("k000, 3 waiters: %+v", key)
	}
	if key = get[api.Key](t, h, "/api/v1/keys/k000?queue=0"); key.Waiters != 12 || len(key.Queue) != 0 {
		t.Errorf("k000, no waiters: %+v", key)
	}
	h = handlerOf(longQueue{newFake()})
	for target, want := range map[string]int{"": api.DefaultLimit, "?queue=": api.DefaultLimit, "?queue=0": 0, "?queue=1000": api.MaxLimit} {
		if key = get[api.Key](t, h, "/api/v1/keys/a"+target); len(key.Queue) != want {
			t.Errorf("a%s: %d waiters, want %d", target, len(key.Queue), want)
		}
	}
}

// longQueue has more waiters for every key than are ever listed.
type longQueue struct{ *fake }

func (longQueue) Key(_ context.Context, key string, queue int) (*api.Key, error) {
	return &api.Key{Key: key, Waiters: 5000, Queue: make([]api.Waiter, queue)}, nil
}

func TestConnections(t *testing.T) {
	h := handlerOf(newFake())
	page := get[api.ConnectionPage](t, h, "/api/v1/connections?holding=true&waiting=true")
	if page.Matching != 3 || page.Connections[0].Holds[0] != "alpha" || page.Connections[0].WaitsFor != "beta" {
		t.Errorf("holding and waiting: %+v", page)
	}
	if page = get[api.ConnectionPage](t, h, "/api/v1/connections?address=10.1."); page.Matching != 3 {
		t.Errorf("by address: %+v", page)
	}
	if page = get[api.ConnectionPage](t, h, "/api/v1/connections?client=build"); page.Matching != 2 {
		t.Errorf("by name: %+v", page)
	}
	if page = get[api.ConnectionPage](t, h, "/api/v1/connections?order=wait&limit=1"); page.Connections[0].WaitedSeconds < 60 {
		t.Errorf("by wait: %+v", page)
	}
	all := get[api.ConnectionPage](t, h, "/api/v1/connections?holding=false&limit=1000")
	if first := get[api.ConnectionPage](t, h, "/api/v1/connections"); first.Next == "" || len(first.Connections) != api.DefaultLimit ||
		len(all.Connections) != all.Matching {
		t.Errorf("%d of %d connections, all are %d, next %q", len(first.Connections), first.Matching, len(all.Connections), first.Next)
	}
	if c := get[api.Connection](t, h, "/api/v1/connections/2"); c.WaitsFor != "k000" || c.State != api.Waiting {
		t.Errorf("connection 2: %+v", c)
	}
}

func TestDeadlocks(t *testing.T) {
	got := get[api.Deadlocks](t, handlerOf(newFake()), "/api/v1/deadlocks")
	if len(got.Cycles) != 1 || got.Found != 4 || got.Cycles[0].Waits[2].HeldBy != got.Cycles[0].Waits[0].Connection {
		t.Errorf("deadlocks: %+v", got)
	}
}

func TestKick(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	if w := ask(h, http.MethodPost, "/api/v1/connections/1/kick", nil); w.Code != http.StatusOK || w.Body.String() != "{\"kicked\":1}\n" {
		t.Fatalf("kick: %d %s", w.Code, w.Body)
	}
	if w := ask(h, http.MethodGet, "/api/v1/keys/k000", nil); w.Code != http.StatusNotFound {
		t.Errorf("its key: %d %s", w.Code, w.Body)
	}
	if w := ask(h, http.MethodPost, "/api/v1/connections/1/kick", nil); w.Code != http.StatusNotFound {
		t.Errorf("kicked again: %d %s", w.Code, w.Body)
	}
	if kicked := f.kicked(); !slices.Equal(kicked, []api.ConnectionID{1}) {
		t.Errorf("kicked: %v", kicked)
	}
}

// A release names its holder, so that a newer one keeps the key.
func TestRelease(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	key := get[api.Key](t, h, "/api/v1/keys/k000")
	first := key.Queue[0].Connection
	for _, c := range []struct {
		query  string
		status int
		text   string
	}{
		{"?token=5", 409, "changed hands"},
		{"?connection=5", 409, "changed hands"},
		{"?connection=0", 400, "connection=0: want a number from 1 on"},
		{"?token=-1", 400, "want a number from 1 on"},
		{"?holder=1", 400, "unknown parameter"},
		{fmt.Sprintf("?connection=%d&token=%d", key.Holder.Connection, key.Token), 200, fmt.Sprintf(`"next":{"connection":%d,`, first)},
		{fmt.Sprintf("?connection=%d", key.Holder.Connection), 409, "changed hands"},
		{"", 200, fmt.Sprintf(`"holder":{"connection":%d,`, first)},
	} {
		w := ask(h, http.MethodPost, "/api/v1/keys/k000/release"+c.query, nil)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %s, want %d with %q", c.query, w.Code, w.Body, c.status, c.text)
		}
	}
	if w := ask(h, http.MethodPost, "/api/v1/keys/nobodys/release", nil); w.Code != http.StatusNotFound {
		t.Errorf("a free key: %d %s", w.Code, w.Body)
	}
	f.change(func(f *fake) {
		if f.by == "" {
			t.Error("nobody has asked for the release")
		}
	})
}

// A request that cannot be answered gets an error status and an error in JSON.
func TestFailures(t *testing.T) {
	h := handlerOf(newFake())
	for _, c := range []struct {
		method, target string
		status         int
		text           string // in the error
	}{
		{"GET", "/api/v1/keys?order=size", 400, "unknown order"},
		{"GET", "/api/v1/keys?limit=0", 400, "limit=0: want a number from 1 to 1000"},
		{"GET", "/api/v1/keys?limit=1001", 400, "want a number"},
		{"GET", "/api/v1/keys?limit=many", 400, "want a number"},
		{"GET", "/api/v1/keys?cursor=nonsense", 400, "no such cursor"},
		{"GET", "/api/v1/keys?perfix=a", 400, `unknown parameter "perfix"`},
		{"GET", "/api/v1/keys?limit=1&limit=2", 400, "given 2 times"},
		{"GET", "/api/v1/keys?limit=%zz", 400, "invalid URL escape"},
		{"GET", "/api/v1/keys/k000?queue=-1", 400, "want a number from 0"},
		{"GET", "/api/v1/keys/k000?queue=1001", 400, "want a number from 0 to 1000"},
		{"GET", "/api/v1/connections?holding=perhaps", 400, "want true or false"},
		{"GET", "/api/v1/connections/first", 400, "want its number"},
		{"GET", "/api/v1/connections/99999", 404, "not found"},
		{"GET", "/api/v1/keys/nobodys", 404, "not found"},
		{"GET", "/api/v1/events?since=-1", 400, "since=-1: want a number"},
		{"GET", "/api/v1/events?connection=first", 400, "connection=first: want a number from 1 on"},
		{"GET", "/api/v1/events?connection=0", 400, "connection=0: want a number from 1 on"},
		{"GET", "/api/v1/events?limit=0", 400, "want a number from 1 to 1000"},
		{"POST", "/api/v1/events", 405, "want GET, HEAD"},
		{"GET", "/api/v1/locks", 404, "nothing here"},
		{"GET", "/api/v2/keys", 404, "nothing here"},
		{"GET", "/debug/pprof/", 404, "nothing here"},
		{"GET", "/api/v1/connections/1/kick", 405, "want POST"},
		{"GET", "/api/v1/keys/k000/release", 405, "want POST"},
		{"POST", "/api/v1/keys", 405, "want GET, HEAD"},
		{"DELETE", "/api/v1/keys/k000", 405, "want GET, HEAD"},
		{"GET", "/api/v1/drain", 405, "want POST"},
		{"POST", "/api/v1/drain?timeout=soon", 400, "timeout=soon: want a number of seconds"},
		{"POST", "/api/v1/drain?timeout=NaN", 400, "want a number of seconds"},
		{"POST", "/api/v1/drain?timeout=1e300", 400, "want a number of seconds"},
		{"POST", "/api/v1/drain?timeout=-1", 400, "a drain of -1s"},
		{"POST", "/api/v1/drain?wait=perhaps", 400, "want true or false"},
		{"POST", "/api/v1/drain?within=5", 400, "unknown parameter"},
		{"POST", "/", 405, "want GET, HEAD"},
		{"POST", "/metrics", 405, "want GET, HEAD"},
	} {
		w := ask(h, c.method, c.target, nil)
		var got failure
		err := json.Unmarshal(w.Body.Bytes(), &got)
		if err != nil || w.Code != c.status || !strings.Contains(got.Error, c.text) {
			t.Errorf("%s %s: %d %s, want %d with %q", c.method, c.target, w.Code, w.Body, c.status, c.text)
		}
		if allow := w.Header().Get("Allow"); (allow != "") != (w.Code == http.StatusMethodNotAllowed) {
			t.Errorf("%s %s: %d allows %q", c.method, c.target, w.Code, allow)
		}
	}
}

// A server that does not answer may answer soon: the status is 503. Any other error is reported as it is, with 500.
func TestUnavailable(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	everything := []string{
		"/api/v1/status", "/api/v1/keys", "/api/v1/keys/k000", "/api/v1/connections", "/api/v1/connections/1", "/api/v1/deadlocks",
	}
	for _, err := range []error{fmt.Errorf("loop 1: %w", api.ErrUnavailable), context.DeadlineExceeded} {
		f.change(func(f *fake) { f.err = err })
		if w := ask(h, http.MethodPost, "/api/v1/drain?wait=true", nil); w.Code != http.StatusServiceUnavailable {
			t.Errorf("drain with %v: %d", err, w.Code)
		}
		for _, target := range everything {
			if w := ask(h, http.MethodGet, target, nil); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s with %v: %d %v", target, err, w.Code, w.Header())
			}
		}
	}
	f.change(func(f *fake) { f.err = errors.New("a fault") })
	for _, target := range everything {
		if w := ask(h, http.MethodGet, target, nil); w.Code != http.StatusInternalServerError {
			t.Errorf("%s with an unknown error: %d", target, w.Code)
		}
	}
}

func TestProbes(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	check := func(what string, health, ready int) {
		t.Helper()
		if w := ask(h, http.MethodGet, "/healthz", nil); w.Code != health {
			t.Errorf("%s: /healthz %d %s", what, w.Code, w.Body)
		}
		if w := ask(h, http.MethodGet, "/readyz", nil); w.Code != ready {
			t.Errorf("%s: /readyz %d %s", what, w.Code, w.Body)
		}
	}
	check("serving", 200, 200)
	f.change(func(f *fake) { f.stopped = true })
	check("stopping", 200, 503)
	f.change(func(f *fake) { f.stopped, f.status.Drain = false, &api.Drain{} })
	check("draining", 200, 503)
	f.change(func(f *fake) { f.err = api.ErrUnavailable })
	check("hanging", 503, 503)
}

func TestPProf(t *testing.T) {
	url := serve(t, Config{Source: newFake(), PProf: true})
	for target, want := range map[string]string{
		"/debug/pprof/":                   "goroutine",
		"/debug/pprof/goroutine?debug=1":  "goroutine profile",
		"/debug/pprof/trace?seconds=0.05": "",
	} {
		r, err := http.Get(url + target)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v", target, r.Status, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
