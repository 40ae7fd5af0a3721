package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// A takeover is answered with what was handed over, and the status of the successor says the same.
func TestTakeover(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	if st := get[api.Status](t, h, "/api/v1/status"); st.Takeover != nil || st.PID != 4711 {
		t.Errorf("before: process %d, %+v", st.PID, st.Takeover)
	}
	for n := range uint64(2) {
		w := ask(h, http.MethodPost, "/api/v1/takeover", nil)
		var got api.Takeover
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		st := get[api.Status](t, h, "/api/v1/status")
		if got.Count != n+1 || got.FromPID != 4711+int(n) || got.PID != got.FromPID+1 || got.HeldKeys != 33 || got.Waiters != 81 || got.Closed != 2 ||
			st.Takeover == nil || st.Takeover.Count != got.Count || st.PID != got.PID {
			t.Errorf("takeover %d: %+v, the status has %+v", n+1, got, st.Takeover)
		}
	}
	if !strings.HasPrefix(f.by, "192.0.2.1:") {
		t.Errorf("asked for by %q", f.by)
	}
}

// Why there is no takeover is said, with a status that tells who is to blame. One that is given up by its client goes on.
func TestTakeoverFails(t *testing.T) {
	for _, c := range []struct {
		err    error
		target string
		status int
	}{
		{fmt.Errorf("%w: this is process 1 of its container", api.ErrTakeover), "", http.StatusConflict},
		{fmt.Errorf("%w: %w after 15 s", api.ErrTakeover, context.DeadlineExceeded), "", http.StatusConflict},
		{fmt.Errorf("%w: %w: it is starting", api.ErrTakeover, api.ErrUnavailable), "", http.StatusServiceUnavailable},
		{nil, "?force=true", http.StatusBadRequest},
	} {
		f := newFake()
		f.err = c.err
		w := ask(handlerOf(f), http.MethodPost, "/api/v1/takeover"+c.target, nil)
		var says failure
		if err := json.Unmarshal(w.Body.Bytes(), &says); err != nil || w.Code != c.status || c.err != nil && says.Error != c.err.Error() {
			t.Errorf("%v%s: %d %s", c.err, c.target, w.Code, w.Body)
		}
	}
	f := newFake()
	r := httptest.NewRequest(http.MethodPost, "http://localhost/api/v1/takeover", nil)
	ctx, leave := context.WithCancel(newLimit().remember(r.Context(), &limitedConn{}))
	leave()
	w := httptest.NewRecorder()
	handlerOf(f).ServeHTTP(w, r.WithContext(ctx))
	if w.Code != http.StatusOK || f.status.Takeover == nil {
		t.Errorf("the client has left: %d %s", w.Code, w.Body)
	}
}

// unhurried is a server whose takeovers take a moment.
type unhurried struct{ *fake }

func (s unhurried) TakeOver(ctx context.Context, by string) (*api.Takeover, error) {
	select {
	case <-time.After(20 * time.Millisecond):
		return s.fake.TakeOver(ctx, by)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A takeover may take longer than other answers may.
func TestTakeoverOutlastsTimeouts(t *testing.T) {
	server := httptest.NewUnstartedServer(handlerOf(unhurried{newFake()}))
	server.Config.WriteTimeout = time.Millisecond
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return newLimit().remember(ctx, &limitedConn{Conn: c})
	}
	server.Start()
	defer server.Close()
	if status, _, body := request(t, http.MethodPost, server.URL+"/api/v1/takeover"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}
