package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreadlock/server/api"
)

// fakeAdmin is an admin interface with a few keys and connections.
type fakeAdmin struct {
	url   string
	token string
	down  atomic.Bool // it answers 503

	mu       sync.Mutex
	requests []string
	samples  int         // of the status
	drain    *api.Drain  // in the status
	states   []api.Drain // of a drain, for who waits; the first for who does not
	cut      bool        // the answer to who waits ends in the middle of what would come next

	takeover  *api.Takeover        // in the status
	takesOver func() *api.Takeover // sets the next one, and returns it; nil to end the connection without an answer
	refuses   string               // why there is none
}

var began = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func peer(id api.ConnectionID) api.Peer {
	p := api.Peer{Connection: id, Address: fmt.Sprintf("10.0.0.1:%d", 39_996+id)}
	if id == 5 {
		p.Name, p.Owner = "nightly@db1", "db1job7"
	}
	return p
}

func statusAt(sample int) api.Status {
	n := uint64(sample)
	return api.Status{
		Version: "1.2.3", PID: 4711, Address: "[::]:6001", Started: began, UptimeSeconds: 11_520 + float64(sample), Loops: 4,
		Connections: 1200, MaxConnections: 10_000, HeldKeys: 3, Waiters: 2, Deadlocks: 1, OldestHoldSeconds: 300, OldestWaitSeconds: 252.5,
		MemoryBytes: 3 << 20, MemoryLimitBytes: 1 << 30,
		Counters: api.Counters{
			Commands: []api.CommandCount{
				{Kind: "lock", Outcome: "locked", Count: 7000 * n},
				{Kind: "lock", Outcome: "already_locked", Count: 2},
				{Kind: "unlock", Outcome: "unlocked", Count: 5000 * n},
				{Kind: "unlock", Outcome: "not_owner", Count: 0},
			},
			Accepted: 4321, Grants: 40 * n, Timeouts: 3,
			Disconnects: map[string]uint64{api.ClientClosed: 5, api.Kicked: 1, api.SyntaxError: 0, "of_a_newer_daemon": 2},
			LimitHits:   map[string]uint64{api.LimitConnections: 1},
			Moves:       6, Messages: 1_000_000, WakeUps: 1, DeadlocksFound: 2, DeadlocksBroken: 1,
			Waits: api.Histogram{Bounds: []float64{0.001, 1, 60}, Counts: []uint64{60, 30, 9, 1}, Sum: 250},
			WaitsByOutcome: map[string]api.Histogram{
				api.WaitLocked: {Bounds: []float64{1}, Counts: []uint64{40, 0}}, api.WaitLost: {Bounds: []float64{1}, Counts: []uint64{2, 1}},
				api.WaitKicked: {Bounds: []float64{1}, Counts: []uint64{0, 0}},
			},
			Holds: api.Histogram{Bounds: []float64{1, 60}, Counts: []uint64{50, 49, 1}, Sum: 300},
		},
	}
}

var fakeKeys = []api.Key{
	{Key: "a1", Holder: peer(5), Since: began, HeldSeconds: 0.25},
	{Key: "b", Holder: peer(7), Since: began, HeldSeconds: 7200, Waiters: 1, LongestWaitSeconds: 3},
	{Key: "nightly", Holder: peer(5), Token: 1_795_521_600_000_000_007, Since: began, HeldSeconds: 75, Waiters: 1234, LongestWaitSeconds: 252},
}

// restingKeys are found by name only. The connection of the holder of the first has ended, and nobody knows of the second's.
var restingKeys = []api.Key{
	{Key: "rests", Holder: peer(5), Token: 7, Since: began, HeldSeconds: 75, FreesInSeconds: 8, Waiters: 1, LongestWaitSeconds: 3},
	{Key: "early", Since: began, FreesInSeconds: 0.25, Waiters: 1, LongestWaitSeconds: 2},
}

var fakeConnections = []api.Connection{
	{Peer: peer(5), Since: began, ConnectedSeconds: 90_000, State: api.Waiting, Held: 2, Holds: []string{"nightly", "a1"}, WaitsFor: "b", WaitedSeconds: 3},
	{Peer: peer(7), Since: began, ConnectedSeconds: 59.99, Loop: 1, State: api.Idle, Held: 1, Holds: []string{"b"}},
	{Peer: peer(9), Since: began, ConnectedSeconds: 3, State: api.Lagging},
}

var fakeDeadlocks = api.Deadlocks{Found: 2, Broken: 1, Cycles: []api.Cycle{{
	ID: 2, Found: began, Waits: []api.Wait{
		{Peer: peer(7), WaitsFor: "nightly", WaitedSeconds: 252, HeldBy: 5},
		{Peer: peer(5), WaitsFor: "b", WaitedSeconds: 3, HeldBy: 7},
	},
}}}

var fakeEvents = []api.Event{
	{Seq: 11, Kind: api.EventGranted, Key: "nightly", Connection: 5, Address: "10.0.0.1:40001", Name: "nightly@db1", Token: 7, WaitedSeconds: 2.5},
	{Seq: 12, Kind: api.EventTimeout, Key: "nightly", Connection: 7, Address: "10.0.0.1:40003", WaitedSeconds: 30},
	{Seq: 13, Kind: api.EventReleased, Key: "nightly", Connection: 5, Address: "10.0.0.1:40001", Name: "nightly@db1", Token: 7},
	{Seq: 14, Kind: api.EventGranted, Key: "b", Connection: 7, Address: "10.0.0.1:40003", Token: 8},
	{Seq: 15, Kind: api.EventDeadlock, Key: "b", Connection: 5, Address: "10.0.0.1:40001", Deadlock: 2, HeldBy: 7, WaitedSeconds: 3},
	{Seq: 16, Kind: api.EventDeadlockOver, Key: "b", Connection: 5, Address: "10.0.0.1:40001", Deadlock: 2, HeldBy: 7, Reason: api.DeadlockBroken},
	{Seq: 17, Kind: api.EventKicked, Connection: 7, Address: "10.0.0.1:40003", By: "10.0.0.9:5", Held: 18, Keys: []string{"b", "c"}},
	{Seq: 18, Kind: api.EventLost, Key: "b", Connection: 7, Address: "10.0.0.1:40003", Token: 8, HeldSeconds: 60, Reason: api.Kicked, By: "10.0.0.9:5"},
	{Seq: 19, Kind: api.EventRefused, Address: "unix:/s", Identity: "uid 7", Reason: api.RefusedMaxConnections},
}

// eventsAt returns the latest events that match.
func eventsAt(r *http.Request) api.EventPage {
	page := api.EventPage{Events: []api.Event{}, Next: 19, Oldest: began}
	for _, e := range fakeEvents {
		e.Time = began.Add(time.Duration(e.Seq) * time.Second)
		if (r.FormValue("key") == "" || e.Key == r.FormValue("key")) && int(e.Seq) > atoi(r.FormValue("since")) &&
			(r.FormValue("connection") == "" || number(e.Connection) == r.FormValue("connection")) {
			page.Events = append(page.Events, e)
		}
	}
	if limit := atoi(r.FormValue("limit")); len(page.Events) > limit {
		page.Events = page.Events[len(page.Events)-limit:]
	}
	return page
}

func serveAdmin(t *testing.T) *fakeAdmin {
	t.Helper()
	a := &fakeAdmin{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		a.samples++
		status := statusAt(a.samples)
		status.Drain = a.drain
		if status.Takeover = a.takeover; a.takeover != nil {
			status.PID = a.takeover.PID
		}
		a.mu.Unlock()
		answer(w, status)
	})
	mux.HandleFunc("GET /api/v1/keys", func(w http.ResponseWriter, r *http.Request) {
		var page api.KeyPage
		all := slices.Clone(fakeKeys)
		all = slices.DeleteFunc(all, func(k api.Key) bool {
			return !strings.HasPrefix(k.Key, r.FormValue("prefix")) || !strings.Contains(k.Key, r.FormValue("contains"))
		})
		switch r.FormValue("order") {
		case "waiters", "wait":
			slices.Reverse(all)
		}
		page.Matching = len(all)
		page.Keys, page.Next = cut(all, r)
		answer(w, page)
	})
	mux.HandleFunc("GET /api/v1/keys/{key}", func(w http.ResponseWriter, r *http.Request) {
		for _, k := range slices.Concat(fakeKeys, restingKeys) {
			if k.Key == r.PathValue("key") {
				for i := range min(k.Waiters, atoi(r.FormValue("queue")), 2) {
					k.Queue = append(k.Queue, api.Waiter{
						Peer: peer(api.ConnectionID(100 + i)), Since: began, WaitedSeconds: 252.5, TimeoutSeconds: []float64{30, 9.2e9}[i],
					})
				}
				answer(w, k)
				return
			}
		}
		refuse(w, http.StatusNotFound, "not found")
	})
	mux.HandleFunc("POST /api/v1/keys/{key}/release", func(w http.ResponseWriter, r *http.Request) {
		for _, k := range fakeKeys {
			holder, token := r.FormValue("connection"), r.FormValue("token")
			switch {
			case k.Key != r.PathValue("key"):
			case holder != "" && holder != number(k.Holder.Connection) || token != "" && token != strconv.FormatUint(k.Token, 10):
				refuse(w, http.StatusConflict, "connection 5 holds it")
				return
			default:
				released := api.Release{Key: k.Key, Holder: k.Holder, Token: k.Token, HeldSeconds: k.HeldSeconds}
				if k.Waiters > 0 {
					released.Next, released.Waiters = new(peer(100)), k.Waiters-1
				}
				answer(w, released)
				return
			}
		}
		refuse(w, http.StatusNotFound, "not found")
	})
	mux.HandleFunc("GET /api/v1/connections", func(w http.ResponseWriter, r *http.Request) {
		all := fakeConnections
		if r.FormValue("client") == "x" { // of which there is none
			all = nil
		}
		page := api.ConnectionPage{Matching: len(all)}
		page.Connections, page.Next = cut(all, r)
		answer(w, page)
	})
	mux.HandleFunc("GET /api/v1/connections/{id}", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range fakeConnections {
			if number(c.Connection) == r.PathValue("id") {
				answer(w, c)
				return
			}
		}
		refuse(w, http.StatusNotFound, "not found")
	})
	mux.HandleFunc("POST /api/v1/connections/{id}/kick", func(w http.ResponseWriter, r *http.Request) {
		if !slices.ContainsFunc(fakeConnections, func(c api.Connection) bool { return number(c.Connection) == r.PathValue("id") }) {
			refuse(w, http.StatusNotFound, "not found")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /api/v1/drain", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		states, cut := a.states, a.cut
		a.mu.Unlock()
		if r.FormValue("wait") == "" {
			answer(w, states[0])
			return
		}
		for i := range states {
			answer(w, states[i])
		}
		if cut {
			io.WriteString(w, `{"since":`)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	mux.HandleFunc("POST /api/v1/takeover", func(w http.ResponseWriter, _ *http.Request) {
		if a.refuses != "" {
			refuse(w, http.StatusConflict, a.refuses)
			return
		}
		done := a.takesOver()
		if done == nil {
			panic(http.ErrAbortHandler)
		}
		answer(w, done)
	})
	mux.HandleFunc("GET /api/v1/deadlocks", func(w http.ResponseWriter, _ *http.Request) { answer(w, fakeDeadlocks) })
	mux.HandleFunc("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) { answer(w, eventsAt(r)) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.Method+" "+r.URL.String())
		a.mu.Unlock()
		switch {
		case a.down.Load():
			refuse(w, http.StatusServiceUnavailable, "the server does not answer")
		case a.token != "" && r.Header.Get("Authorization") != "Bearer "+a.token:
			refuse(w, http.StatusUnauthorized, "no token")
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func answer(w http.ResponseWriter, value any) { json.NewEncoder(w).Encode(value) }

func refuse(w http.ResponseWriter, status int, why string) {
	w.WriteHeader(status)
	answer(w, map[string]string{"error": why})
}

// cut returns a page of at most two entries of a list; the cursor is the index of the next one.
func cut[E any](all []E, r *http.Request) (page []E, next string) {
	begin := atoi(r.FormValue("cursor"))
	end := min(len(all), begin+min(2, atoi(r.FormValue("limit"))))
	if end < len(all) {
		next = strconv.Itoa(end)
	}
	return all[begin:end], next
}

func atoi(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// drains makes it answer like a daemon that drains. The answer with all states is cut off in the middle of another one if cut
// is set.
func (a *fakeAdmin) drains(cut bool, states ...api.Drain) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drain, a.states, a.cut = &states[0], states, cut
}

// seen returns the requests, one per line.
func (a *fakeAdmin) seen() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.requests, "\n")
}
