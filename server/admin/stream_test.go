package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/noise"
)

// eventListener reads a stream of events.
type eventListener struct {
	t     *testing.T
	lines *bufio.Reader
	leave func()
	last  string // the id that was given last
}

// follow begins a stream. The header may be nil.
func follow(t *testing.T, url string, header http.Header) *eventListener {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if request.Header = header.Clone(); header == nil {
		request.Header = http.Header{}
	}
	request.Header.Set("Accept", "text/event-stream")
	transport := &http.Transport{}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	leave := func() {
		response.Body.Close()
		cancel()
		transport.CloseIdleConnections()
	}
	t.Cleanup(leave)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", response.Status, response.Header)
	}
	return &eventListener{t: t, lines: bufio.NewReader(response.Body), leave: leave}
}

// next returns the next message: its kind, empty for an event, and its data.
func (l *eventListener) next() (kind, data string, err error) {
	for {
		line, err := l.lines.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			l.last = value
		case "event":
			kind = value
		case "data":
			data = value
		case "":
			if strings.TrimSpace(line) == "" && data != "" {
				return kind, data, nil
			}
		case "retry":
		default:
			l.t.Fatalf("a line of a stream: %q", line)
		}
	}
}

// event returns the next message, which must be an event with that number.
func (l *eventListener) event(number uint64) api.Event {
	l.t.Helper()
	kind, data, err := l.next()
	var e api.Event
	if err == nil {
		err = json.Unmarshal([]byte(data), &e)
	}
	if err != nil || kind != "" || e.Seq != number || l.last != fmt.Sprint(number) {
		l.t.Fatalf("%s %s, id %s, %v: want event %d", kind, data, l.last, err, number)
	}
	return e
}

// says expects a message of a kind.
func (l *eventListener) says(kind, data string) {
	l.t.Helper()
	if k, d, err := l.next(); k != kind || !strings.Contains(d, data) || err != nil {
		l.t.Fatalf("%q %q, %v: want %q %q", k, d, err, kind, data)
	}
}

// A stream begins now, at a number, or some events ago, and goes on with what happens.
func TestStream(t *testing.T) {
	f := withEvents()
	url := serve(t, Config{Source: f}) + "/api/v1/events"
	begin, since, latest := follow(t, url, nil), follow(t, url+"?since=1", nil), follow(t, url+"?limit=2&key=k0", nil)
	again := follow(t, url+"?since=1", http.Header{"Last-Event-Id": {"5"}})
	since.says("lost", `{"lost":1}`)
	for n := range uint64(4) {
		since.event(n + 3)
	}
	latest.event(3)
	latest.event(5)
	again.event(6)
	for n := uint64(7); n < 10; n++ {
		f.happen(api.Event{Kind: api.EventReleased, Key: "k1"})
		if e := begin.event(n); e.Kind != api.EventReleased || e.Key != "k1" {
			t.Errorf("%+v", e)
		}
		since.event(n)
		again.event(n)
	}
	f.happen(api.Event{Kind: api.EventReleased, Key: "k0"})
	latest.event(10)
}

// A long history comes whole, page after page.
func TestStreamOfManyPages(t *testing.T) {
	f := newFake()
	const n = 2*streamPage + 7
	f.happen(make([]api.Event, n)...)
	l := follow(t, serve(t, Config{Source: f})+"/api/v1/events?since=2", nil)
	for i := uint64(3); i <= n; i++ {
		l.event(i)
	}
}

// A stream on which nothing happens says that it is alive, and how far the events have been looked at.
func TestStreamHeartbeat(t *testing.T) {
	f := withEvents()
	limit := newLimit()
	limit.streams.beat = time.Millisecond
	server := httptest.NewUnstartedServer(newHandler(&Config{Source: f, Log: zerolog.Nop()}, nil, limit, noise.New(zerolog.Nop()), nil))
	server.Config.ConnContext = limit.remember
	server.Listener = limit.share(server.Listener)
	server.Config.WriteTimeout = time.Millisecond // a stream outlasts it
	server.Start()
	defer server.Close()
	l := follow(t, server.URL+"/api/v1/events?key=nothing", nil)
	defer l.leave()
	f.happen(api.Event{Key: "other"})
	for beats := 0; beats < 5; {
		line, err := l.lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "id: 7\n" {
			beats++
		}
	}
}

// Streams are bounded, and do not keep others from asking. One that ends makes room for another.
func TestMaxStreams(t *testing.T) {
	f := withEvents()
	base := serve(t, Config{Source: f})
	url := base + "/api/v1/events"
	var all []*eventListener
	for range maxStreams {
		all = append(all, follow(t, url, nil))
	}
	r := newRequester(t, base, nil)
	if status, err := openStream(r, url); status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("one too many: %d, %v", status, err)
	}
	r.answers("/api/v1/events", http.StatusOK)
	all[0].leave()
	for end := time.Now().Add(patience); ; {
		status, err := openStream(r, url)
		if err != nil || time.Now().After(end) {
			t.Fatalf("a stream has ended, and there is no room for another: %d, %v", status, err)
		}
		if status == http.StatusOK {
			break
		}
	}
}

// openStream returns the status with which a stream would begin.
func openStream(r *requester, url string) (status int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// A stream ends with the server, or with the interface, and says so.
func TestStreamEnds(t *testing.T) {
	f := withEvents()
	url, stop := serveUntil(t, Config{Source: f})
	first := follow(t, url+"/api/v1/events", nil)
	f.change(func(f *fake) {
		f.err = fmt.Errorf("%w: it is stopping", api.ErrUnavailable)
		close(f.more)
		f.more = make(chan struct{})
	})
	first.says("end", "it is stopping")
	if _, _, err := first.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	f.change(func(f *fake) { f.err = nil })
	second := follow(t, url+"/api/v1/events", nil)
	stop()
	second.says("end", "")
	if _, _, err := second.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// What cannot become a stream is refused like any other request.
func TestBadStream(t *testing.T) {
	f := withEvents()
	h := handlerOf(f)
	stream := http.Header{"Accept": {"text/event-stream"}}
	for target, want := range map[string]string{
		"?since=x": "since=x: want a number", "?limit=1001": "from 1 to 1000", "?kind=lost": "unknown parameter",
	} {
		if w := ask(h, http.MethodGet, "/api/v1/events"+target, stream); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if w := ask(h, http.MethodGet, "/api/v1/events", http.Header{"Accept": stream["Accept"], "Last-Event-Id": {"x"}}); w.Code != http.StatusBadRequest {
		t.Errorf("Last-Event-ID: %d %s", w.Code, w.Body)
	}
	f.err = fmt.Errorf("%w: no events", api.ErrNotFound)
	if w := ask(h, http.MethodGet, "/api/v1/events", stream); w.Code != http.StatusNotFound {
		t.Errorf("without events: %d %s", w.Code, w.Body)
	}
}

// The stream of a real daemon has what its clients do.
func TestStreamOfRealDaemon(t *testing.T) {
	address, url := serveReal(t)
	l := follow(t, url+"/api/v1/events?key=a", nil)
	c := prototest.Dial(t, address)
	for range 3 {
		for _, do := range [][3]string{{"lock a 0", "l locked", api.EventGranted}, {"unlock a", "u unlocked", api.EventReleased}} {
			c.Do(do[0], do[1])
			c.Do("lock b 0", "l locked")
			c.Do("unlock b", "u unlocked")
			l.says("", `"kind":"`+do[2]+`","key":"a"`)
		}
	}
}
