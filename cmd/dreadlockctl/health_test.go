package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What the health checks answer, and how that is said.
func TestHealth(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int // of the answer
		body   string
		exit   int
		asks   string
		says   string // on stderr
	}{
		{"", http.StatusOK, "ok\n", 0, "/healthz", ""},
		{"--ready", http.StatusOK, "ok\n", 0, "/readyz", ""},
		{"", http.StatusServiceUnavailable, "not all loops answer\n", exitFailed, "/healthz", "not all loops answer"},
		{"--ready", http.StatusServiceUnavailable, "not ready\n", exitFailed, "/readyz", "not ready"},
		{"", http.StatusOK, "welcome\n", exitFailed, "/healthz", "is not the admin interface"},
		{"", http.StatusNotFound, "404 page not found\n", exitFailed, "/healthz", "is not the admin interface"},
	} {
		var asked string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = r.URL.Path
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + server.URL}, append([]string{"health"}, strings.Fields(c.args)...)...)
		server.Close()
		if got.status != c.exit || (c.exit == 0) != (got.stdout == c.body) || (c.says == "") != (got.stderr == "") ||
			c.says != "" && !oneLine(got.stderr, c.says) {
			t.Errorf("%q, %d %q: %+v", c.args, c.status, c.body, got)
		}
		if asked != c.asks {
			t.Errorf("%q asks %s, want %s", c.args, asked, c.asks)
		}
		if got := runWith(t, []string{"DREADLOCK_ADMIN=" + server.URL}, "health"); got.status != exitUnreachable || !oneLine(got.stderr, "nothing listens") {
			t.Errorf("gone: %+v", got)
		}
	}
}

// A daemon is healthy and ready without a token; while it drains it is healthy, and not ready.
func TestHealthOfDaemon(t *testing.T) {
	v := startViewed(t, "--drain", "1h")
	for _, args := range []string{"health", "health --ready"} {
		v.says(args, `^ok\n$`)
	}
	holder := v.dial(t)
	holder.Do("lock a 0", "l locked")
	if got := v.ctl("drain"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	v.says("health", `^ok\n$`)
	if got := v.ctl("health", "--ready"); got.status != exitFailed || !oneLine(got.stderr, "not ready") {
		t.Errorf("in a drain: %+v", got)
	}
}
