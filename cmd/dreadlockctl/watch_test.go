package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"dreadlock/server/api"
)

// scriptedStream answers each request for a stream with the next of some texts.
func scriptedStream(t *testing.T, texts ...string) (url string, asked func() string) {
	t.Helper()
	var mu sync.Mutex
	var requests []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(requests)
		requests = append(requests, r.URL.RequestURI()+" after "+r.Header.Get("Last-Event-ID"))
		mu.Unlock()
		if n < len(texts) {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, texts[n])
			return
		}
		refuse(w, http.StatusNotFound, "there is nothing here")
	}))
	t.Cleanup(server.Close)
	return server.URL, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(requests, "\n")
	}
}

// A stream that breaks is asked for again after the last event, and what was missed is counted.
func TestWatchGoesOn(t *testing.T) {
	url, asked := scriptedStream(t,
		"retry: 1000\n\n: alive\nid: 4\n\n",
		"id: 5\ndata: {\"kind\":\"granted\",\"key\":\"k\",\"connection\":1,\"address\":\"a:1\",\"token\":\"9\"}\n\nid: 6\ndata: {\"kind\":\"time",
		"event: lost\ndata: {\"lost\":1}\n\nid: 9\ndata: {\"kind\":\"unheard_of\",\"key\":\"k\"}\n\nevent: end\ndata: {\"error\":\"it is stopping\"}\n\n",
		"event: of_a_newer_daemon\ndata: {}\n\n",
	)
	got := runs(t, "watch", "k", "--limit", "7", "--admin", url)
	if got.status != exitFailed {
		t.Errorf("status %d", got.status)
	}
	contains(t, got.stdout, "  k granted to 1 (a:1), token 9\n", "  unheard of: connection 0 (), key k\n")
	if n := strings.Count(got.stdout, "\n"); n != 2 {
		t.Errorf("%d lines: %s", n, got.stdout)
	}
	contains(t, got.stderr, "1 event missed", "the daemon has closed the connection: trying again\n", "watches again\n",
		"has ended the stream: it is stopping: trying again\n", "keeps no events")
	path := "/api/v1/events?key=k&limit=7 after "
	if want := path + "\n" + path + "4\n" + path + "6\n" + path + "9\n" + path + "9"; asked() != want {
		t.Errorf("it asks\n%s\nwant\n%s", asked(), want)
	}
}

// What cannot be had at the start is not tried again.
func TestWatchFails(t *testing.T) {
	a := serveAdmin(t)
	for name, c := range map[string]struct {
		url    string
		status int
		says   string
	}{
		"old daemon":  {mustURL(scriptedStream(t)), exitFailed, "keeps no events"},
		"no stream":   {a.url, exitFailed, "is not the admin interface"},
		"nobody":      {"http://127.0.0.1:1", exitUnreachable, "nothing listens"},
		"no interest": {mustURL(scriptedStream(t, "data: nonsense\n\n")), exitFailed, "is not the admin interface"},
	} {
		if got := runs(t, "watch", "--admin", c.url); got.status != c.status || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v, want %d, %s", name, got, c.status, c.says)
		}
	}
}

func mustURL(url string, _ func() string) string { return url }

// Every kind of event has a sentence.
func TestSentences(t *testing.T) {
	var text strings.Builder
	for i := range fakeEvents {
		fmt.Fprintln(&text, sentence(&fakeEvents[i]))
	}
	const want = `nightly granted to 5 (nightly@db1, 10.0.0.1:40001) after 2.5 s, token 7
nightly not granted to 7 (10.0.0.1:40003): timeout after 30 s
nightly released by 5 (nightly@db1, 10.0.0.1:40001) after 0 ms
b granted to 7 (10.0.0.1:40003), token 8
deadlock 2: 5 (10.0.0.1:40001) waits for b, held by 7
deadlock 2 is over, broken: 5 (10.0.0.1:40001) had waited for b
connection 7 (10.0.0.1:40003) kicked by 10.0.0.9:5, freed 18 keys: b,c and 16 more
b lost by 7 (10.0.0.1:40003) after 1 min 0 s: kicked, by 10.0.0.9:5
client uid 7, unix:/s refused: max connections
`
	if text.String() != want {
		t.Errorf("got:\n%swant:\n%s", &text, want)
	}
	elsewhere := api.Event{Kind: api.EventElsewhere, Key: "b", Daemon: "1f", Address: "db2:6001"}
	if got := sentence(&elsewhere); got != "b goes on to daemon 1f (db2:6001) of the fleet" {
		t.Error(got)
	}
	for _, kind := range api.EventKinds {
		if got := sentence(&api.Event{Kind: kind}); strings.HasPrefix(got, words(kind)+": ") {
			t.Errorf("%s has no sentence: %s", kind, got)
		}
	}
}
