package admin

import (
	"context"
	"net/http"
	"net/http/pprof"
	"time"

	"dreadlock/server/noise"
)

// newHandler returns the handler of all requests. One mux has what is open to everybody. All else is in a second mux, after
// the guard and the bound for requests, so health is answered whatever goes on there. The hosts are those of the addresses on
// which it listens.
func newHandler(cfg *Config, token *tokenFile, limit *limit, noisy *noise.Log, hosts []string) http.Handler {
	g := &guard{token: token, hosts: hosts}

	guarded := http.NewServeMux()
	a := &endpoints{source: cfg.Source, log: cfg.Log, streams: limit.streams}
	for _, r := range a.routes(noisy) {
		handle(guarded, r)
	}
	if cfg.PProf {
		guarded.HandleFunc("/debug/pprof/", pprof.Index)
		guarded.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		guarded.HandleFunc("/debug/pprof/profile", pprof.Profile)
		guarded.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		guarded.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	guarded.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "there is nothing here")
	})

	open := http.NewServeMux()
	handle(open, route{http.MethodGet, "/{$}", servePage})
	for _, r := range a.probes() {
		handle(open, r)
	}
	open.Handle("/", g.allowed(limit.holding(guarded)))
	return limit.seeing(headers(g.local(open)))
}

// route is a path, and the one method that is answered there.
type route struct {
	method, path string
	handler      http.HandlerFunc
}

// routes are those of the API, and of Prometheus. They need the token. The file openapi.json describes each of them.
func (a *endpoints) routes(noisy *noise.Log) []route {
	return []route{
		{http.MethodGet, "/api/v1/status", a.status},
		{http.MethodGet, "/api/v1/keys", a.keys},
		{http.MethodGet, "/api/v1/keys/{key}", a.key},
		{http.MethodPost, "/api/v1/keys/{key}/release", a.release},
		{http.MethodGet, "/api/v1/connections", a.connections},
		{http.MethodGet, "/api/v1/connections/{id}", a.connection},
		{http.MethodPost, "/api/v1/connections/{id}/kick", a.kick},
		{http.MethodGet, "/api/v1/deadlocks", a.deadlocks},
		{http.MethodGet, "/api/v1/events", a.events},
		{http.MethodPost, "/api/v1/drain", a.drain},
		{http.MethodPost, "/api/v1/takeover", a.takeOver},
		{http.MethodGet, "/api/v1/openapi.json", a.description},
		{http.MethodGet, "/metrics", newMetrics(a.source, noisy).ServeHTTP},
	}
}

// probes are the health checks, which need no token. The file openapi.json describes them as well.
func (a *endpoints) probes() []route {
	return []route{
		{http.MethodGet, "/healthz", healthz(a.source)},
		{http.MethodGet, "/readyz", readyz(a.source)},
	}
}

// handle answers the method of a route on its path, and tells requests with another one what is allowed.
func handle(mux *http.ServeMux, r route) {
	mux.HandleFunc(r.method+" "+r.path, r.handler)
	mux.HandleFunc(r.path, func(w http.ResponseWriter, _ *http.Request) {
		allow := r.method
		if r.method == http.MethodGet {
			allow += ", " + http.MethodHead
		}
		w.Header().Set("Allow", allow)
		fail(w, http.StatusMethodNotAllowed, "want "+allow)
	})
}

// healthTime is the time that the loops have to show that they are alive.
const healthTime = 2 * time.Second

// healthz reports whether the daemon works: whether all of its loops answer. A check that only connects does not notice a
// loop that hangs.
func healthz(source Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTime)
		defer cancel()
		_, err := source.Status(ctx)
		answerProbe(w, err == nil, "not all loops answer")
	}
}

// readyz reports whether clients are served.
func readyz(source Source) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answerProbe(w, source.Ready(), "not ready")
	}
}

// answerProbe answers a health check: with ok, or with status 503 and the fault.
func answerProbe(w http.ResponseWriter, good bool, fault string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok"
	if !good {
		text = fault
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone
}
