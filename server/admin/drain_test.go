package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"dreadlock/server/api"
)

// A request begins a drain, with the time that it names or one that the server chooses, and is answered at once.
func TestDrain(t *testing.T) {
	for target, seconds := range map[string]float64{
		"/api/v1/drain": 30, "/api/v1/drain?timeout=": 30, "/api/v1/drain?timeout=90&wait=false": 90, "/api/v1/drain?timeout=0.5": 0.5, "/api/v1/drain?timeout=0": 0,
	} {
		h := handlerOf(newFake())
		if st := get[api.Status](t, h, "/api/v1/status"); st.Drain != nil {
			t.Errorf("before: %+v", st.Drain)
		}
		w := ask(h, http.MethodPost, target, nil)
		var state api.Drain
		if err := json.Unmarshal(w.Body.Bytes(), &state); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		if state.SecondsLeft != seconds || state.HeldKeys != 33 || state.Waiters != 81 || state.Over ||
			state.Until.Sub(state.Since).Seconds() != seconds {
			t.Errorf("%s: %+v", target, state)
		}
		if st := get[api.Status](t, h, "/api/v1/status"); st.Drain == nil || !st.Drain.Until.Equal(state.Until) {
			t.Errorf("%s: the status has %+v", target, st.Drain)
		}
	}
}

// drainLines asks for a drain and returns its lines as they come.
func drainLines(t *testing.T, url string) (next func() (api.Drain, error)) {
	t.Helper()
	r, err := http.Post(url+"/api/v1/drain?wait=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Body.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%s %v", r.Status, r.Header)
	}
	lines := json.NewDecoder(bufio.NewReader(r.Body))
	return func() (state api.Drain, err error) {
		err = lines.Decode(&state)
		return state, err
	}
}

// Who waits is told every second what is held, and at last what is lost, even if the interface is stopped right then. More
// than one may wait.
func TestDrainWait(t *testing.T) {
	f := newFake()
	url, stop := serveUntil(t, Config{Source: f})
	first, second := drainLines(t, url), drainLines(t, url)
	for _, next := range []func() (api.Drain, error){first, second, first} {
		if state, err := next(); err != nil || state.HeldKeys != 33 || state.Over {
			t.Errorf("%+v, %v", state, err)
		}
	}
	f.endDrain(2)
	stop()
	for _, next := range []func() (api.Drain, error){first, second} {
		state, err := next()
		for err == nil && !state.Over {
			state, err = next() // one that was under way
		}
		if err != nil || state.HeldKeys != 2 {
			t.Errorf("at the end: %+v, %v", state, err)
		}
		if _, err := next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// A drain may take longer than other answers may.
func TestDrainOutlastsTimeouts(t *testing.T) {
	f := newFake()
	server := httptest.NewUnstartedServer(handlerOf(f))
	server.Config.WriteTimeout = time.Millisecond
	server.Start()
	defer server.Close()
	next := drainLines(t, server.URL)
	for range 3 {
		if state, err := next(); err != nil || state.Over {
			t.Fatalf("%+v, %v", state, err)
		}
	}
	f.endDrain(0)
	for {
		state, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if state.Over {
			return
		}
	}
}

// Who does not wait any longer is forgotten.
func TestDrainWaiterLeaves(t *testing.T) {
	f := newFake()
	url, stop := serveUntil(t, Config{Source: f})
	r, err := http.Post(url+"/api/v1/drain?wait=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	stop() // and TestMain looks for what is left
}
