package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dreadlock/server/api"
)

// fakeTakeover is the nth takeover of a fake.
func fakeTakeover(n uint64) *api.Takeover {
	return &api.Takeover{
		At: began, Count: n, FromPID: 4710 + int(n), FromVersion: "1.2.2", PID: 4711 + int(n), Version: "1.2.3", PauseSeconds: 0.0125,
		Connections: 1200, HeldKeys: 3, Waiters: 1,
	}
}

// set changes a fake before it is asked: by another process, of which the race detector does not see that it comes later.
func (a *fakeAdmin) set(change func(*fakeAdmin)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// takes makes a fake be taken over: its status shows that after some more answers of the former process.
func (a *fakeAdmin) takes(done *api.Takeover, answered bool) {
	a.takesOver = func() *api.Takeover {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.takeover = done; answered {
			return done
		}
		return nil
	}
}

// What a takeover shows and asks for, and how it ends.
func TestTakeoverShows(t *testing.T) {
	const shows = "process 4712 (1.2.3) has taken over from 4711 (1.2.2): nobody was answered for 13 ms\n" +
		"handed over: 1,200 connections, 3 held keys, 1 waiter\n"
	closed := *fakeTakeover(1)
	closed.Closed = 1
	for name, c := range map[string]struct {
		prepare func(*fakeAdmin)
		status  int
		shows   string
		says    string // on stderr
	}{
		"done":      {func(a *fakeAdmin) { a.takes(fakeTakeover(1), true) }, 0, shows, ""},
		"with TLS":  {func(a *fakeAdmin) { a.takes(&closed, true) }, 0, shows + "closed: 1 connection by TLS\n", ""},
		"no answer": {func(a *fakeAdmin) { a.takes(fakeTakeover(1), false) }, 0, shows, ""},
		"the second": {
			func(a *fakeAdmin) {
				a.takeover = fakeTakeover(1)
				a.takes(fakeTakeover(2), false)
			}, 0, strings.NewReplacer("4711", "4712", "4712", "4713").Replace(shows), "",
		},
		"refused": {
			func(a *fakeAdmin) { a.refuses = "no takeover: it drains" }, exitFailed, "", "no takeover: it drains; the daemon serves on as before",
		},
		"too busy": {func(a *fakeAdmin) { a.down.Store(true) }, exitUnreachable, "", "too busy or stopping"},
	} {
		a := serveAdmin(t)
		a.set(c.prepare)
		got := runs(t, "takeover", "--admin", a.url)
		if got.status != c.status || got.stdout != c.shows || (c.says == "") != (got.stderr == "") || c.says != "" && !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v\nwant %d\n%s%s", name, got, c.status, c.shows, c.says)
		}
	}
}

// A new process that does not answer, and a process that has lost the request, are told apart.
func TestNoSuccessor(t *testing.T) {
	for _, c := range []struct {
		done   api.Takeover
		down   bool
		status int
		says   string
	}{
		{api.Takeover{Count: 1, PID: 4712}, true, exitUnreachable, "but the new process does not answer at "},
		{api.Takeover{Count: 1, PID: 4712}, false, exitUnreachable, "to process 4712, but the former process answers at "},
		{api.Takeover{Count: 1}, true, exitUnreachable, "but the new process does not answer at "},
		{api.Takeover{Count: 1}, false, exitFailed, "without an answer, and serves on"},
	} {
		a := serveAdmin(t)
		a.down.Store(c.down)
		view, err := newAdmin(t.Context(), &globals{Admin: a.url})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for strings.Count(a.seen(), "GET") < 2 {
				<-time.After(time.Millisecond)
			}
			cancel()
		}()
		_, err = view.awaitSuccessor(ctx, &c.done)
		var e *exit
		if !errors.As(err, &e) || e.status != c.status || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// JSON has the type of the admin interface.
func TestTakeoverJSON(t *testing.T) {
	a := serveAdmin(t)
	a.set(func(a *fakeAdmin) { a.takes(fakeTakeover(1), true) })
	want, err := json.MarshalIndent(fakeTakeover(1), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if got := runs(t, "takeover", "--json", "--admin", a.url); got.status != 0 || got.stdout != string(want)+"\n" {
		t.Errorf("%+v", got)
	}
	if seen := a.seen(); seen != "GET /api/v1/status\nPOST /api/v1/takeover\nGET /api/v1/status" {
		t.Errorf("it asks %s", seen)
	}
}

// A daemon that is too old to be taken over is not asked, and loses nothing.
func TestTakeoverOfOldDaemon(t *testing.T) {
	var asked atomic.Int32
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.Method != http.MethodGet {
			refuse(w, http.StatusNotFound, "there is nothing here")
			return
		}
		status := statusAt(1)
		status.PID = 0
		answer(w, status)
	}))
	defer old.Close()
	got := runs(t, "takeover", "--admin", old.URL)
	if got.status != exitFailed || !oneLine(got.stderr, "(1.2.3) is too old for a takeover") || asked.Load() != 1 {
		t.Errorf("%+v, %d requests", got, asked.Load())
	}
}

// The status says where the process comes from, and what has failed.
func TestStatusOfTakeover(t *testing.T) {
	status := statusAt(1)
	status.Takeover = fakeTakeover(1)
	status.Counters.TakeoversFailed = 2
	var out strings.Builder
	if err := writeStatus(&out, &status, ""); err != nil {
		t.Fatal(err)
	}
	contains(t, out.String(), "process      4711\ntook over    from process 4711 (1.2.2) at "+api.Instant(began)+", nobody was answered for 13 ms\n",
		"takeovers  2 failed: the log says why\n")
	if got := latestTakeover(fakeTakeover(3)); !strings.HasSuffix(got, ", 3 takeovers in all") {
		t.Error(got)
	}
	older := statusAt(1)
	older.PID = 0
	out.Reset()
	if err := writeStatus(&out, &older, ""); err != nil || strings.Contains(out.String(), "process") || strings.Contains(out.String(), "takeover") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// A question whose connection ends without an answer is asked once more: its process may have handed over.
func TestAsksAgain(t *testing.T) {
	for cuts, want := range map[int32]int{1: 0, 2: exitUnreachable} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) > cuts {
				answer(w, statusAt(1))
				return
			}
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.(*net.TCPConn).SetLinger(0) // a reset
				conn.Close()
			}
		}))
		if got := runs(t, "status", "--json", "--admin", server.URL); got.status != want || asked.Load() != 2 {
			t.Errorf("%d resets: %+v, %d requests", cuts, got, asked.Load())
		}
		server.Close()
	}
}

// What changes something is asked for once.
func TestPostsOnce(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	if got := runs(t, "kick", "5", "--yes", "--admin", server.URL); got.status != exitUnreachable || asked.Load() != 1 {
		t.Errorf("%+v, %d requests", got, asked.Load())
	}
}

// Top goes on over a takeover, also with rates: the counters go on too.
func TestTopOverTakeover(t *testing.T) {
	a := serveAdmin(t)
	j := begin(t, nil, "top", "--json", "-i", "100ms", "-n", "3", "--admin", a.url)
	j.stdout.await(t, "\n")
	a.set(func(a *fakeAdmin) { a.takeover = fakeTakeover(1) })
	got := j.wait()
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if got.status != 0 || len(lines) != 3 {
		t.Fatalf("%+v", got)
	}
	var last sample
	if err := json.Unmarshal([]byte(lines[2]), &last); err != nil || last.Rates == nil || last.Status.Takeover == nil {
		t.Errorf("%v in %s", err, lines[2])
	}
}
