package admin

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/certs"
)

// exported returns what a daemon with a certificate exports, which has served a client, and is in a fleet.
func exported(t *testing.T) []scrapedSeries {
	t.Helper()
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server("localhost"))
	store, err := certs.Load(certs.Files{Cert: cert, Key: key}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	srv, address := startReal(t, func(cfg *server.Config) { cfg.Certificates = store })
	c := prototest.Dial(t, address)
	c.Do("lock a 0", "l locked")
	c.Do("unlock a", "u unlocked")
	return append(seriesOf(scrape(t, srv)), fleetSeries(t)...)
}

// alerts returns the rules, as promtool reads them.
func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	text, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, promParser, nil)
	for _, err := range errs {
		t.Error(err)
	}
	if len(errs) > 0 || len(groups.Groups) == 0 {
		t.FailNow()
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Every rule is about what a daemon exports, says what to do, and does not fire for a daemon that is well.
func TestAlerts(t *testing.T) {
	all := exported(t)
	for _, r := range alerts(t) {
		wantSelected(t, r.Alert, r.Expr, all)
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) ||
			r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s needs a severity, a summary and a description: %v %v", r.Alert, r.Labels, r.Annotations)
		}
		if firing := fires(t, &r, all); firing {
			t.Errorf("%s fires for a daemon that is well", r.Alert)
		}
	}
}

// fires reports whether an alert fires at the end: its expression has had a result for long enough.
func fires(t *testing.T, r *rulefmt.Rule, all []scrapedSeries) bool {
	t.Helper()
	from := scraped - time.Duration(r.For)
	for _, s := range evaluate(t, all, r.Expr, from) {
		if len(s.Floats) == int((scraped-from)/time.Minute)+1 {
			return true
		}
	}
	return false
}

// since is a value that changes at a time before the end.
func since(before time.Duration, was, is float64) func(time.Duration) float64 {
	return func(at time.Duration) float64 {
		if at <= scraped-before {
			return was
		}
		return is
	}
}

// growing is a count that grows by a number in every minute, from a time before the end on.
func growing(before time.Duration, perMinute float64) func(time.Duration) float64 {
	return func(at time.Duration) float64 { return max(at-(scraped-before), 0).Minutes() * perMinute }
}

// Each rule fires when it should, and not a little earlier.
func TestAlertsFire(t *testing.T) {
	const day = 24 * time.Hour
	expires := func(in time.Duration) []scrapedSeries {
		return []scrapedSeries{series("dreadlock_tls_certificate_expiry_timestamp_seconds", constantly((scraped + in).Seconds()))}
	}
	of := func(name string, value func(time.Duration) float64, more ...string) []scrapedSeries {
		return []scrapedSeries{series(name, value, more...)}
	}
	both := func(name string, value float64, of string, all float64) []scrapedSeries {
		return []scrapedSeries{series(name, constantly(value)), series(of, constantly(all))}
	}
	stands := func(wait float64, grants func(time.Duration) float64) []scrapedSeries {
		return []scrapedSeries{series("dreadlock_oldest_wait_seconds", constantly(wait)), series("dreadlock_grants_total", grants)}
	}
	cases := map[string]struct{ fires, quiet []scrapedSeries }{
		"DreadlockDown":            {of("up", since(2*time.Minute, 1, 0)), of("up", since(30*time.Second, 1, 0))},
		"DreadlockRestarted":       {of("dreadlock_start_time_seconds", since(10*time.Minute, 1, 2)), of("dreadlock_start_time_seconds", since(20*time.Minute, 1, 2))},
		"DreadlockTakeoverFailed":  {of("dreadlock_takeovers_failed_total", since(10*time.Minute, 1, 2)), of("dreadlock_takeovers_failed_total", since(20*time.Minute, 1, 2))},
		"DreadlockLongWait":        {of("dreadlock_oldest_wait_seconds", constantly(601)), of("dreadlock_oldest_wait_seconds", constantly(599))},
		"DreadlockQueueStands":     {stands(130, constantly(7)), stands(130, growing(time.Hour, 1))},
		"DreadlockDeadlock":        {of("dreadlock_deadlocks", constantly(1)), of("dreadlock_deadlocks", since(30*time.Second, 0, 1))},
		"DreadlockDeadlocksBroken": {of("dreadlock_deadlocks_broken_total", since(time.Minute*30, 4, 5)), of("dreadlock_deadlocks_broken_total", constantly(5))},
		"DreadlockConnectionsHigh": {both("dreadlock_connections", 86, "dreadlock_max_connections", 100), both("dreadlock_connections", 84, "dreadlock_max_connections", 100)},
		"DreadlockClientsRefused": {
			of("dreadlock_connections_refused_total", growing(10*time.Minute, 1), "reason", "max_connections"),
			of("dreadlock_connections_refused_total", growing(10*time.Minute, 1), "reason", "not_allowed"),
		},
		"DreadlockStrangersRefused": {
			of("dreadlock_connections_refused_total", growing(time.Hour, 10), "reason", "tls_handshake"),
			of("dreadlock_connections_refused_total", growing(time.Hour, 1), "reason", "tls_handshake"),
		},
		"DreadlockAcceptErrors": {
			of("dreadlock_accept_errors_total", growing(10*time.Minute, 1), "reason", "EMFILE"),
			of("dreadlock_accept_errors_total", growing(10*time.Minute, 1), "reason", "ECONNABORTED"),
		},
		"DreadlockMemoryHigh": {
			both("dreadlock_memory_bytes", 91<<20, "dreadlock_memory_limit_bytes", 100<<20), both("dreadlock_memory_bytes", 89<<20, "dreadlock_memory_limit_bytes", 100<<20),
		},
		"DreadlockFilesHigh":              {both("process_open_fds", 91, "process_max_fds", 100), both("process_open_fds", 89, "process_max_fds", 100)},
		"DreadlockCertificateExpires":     {expires(13 * day), expires(15 * day)},
		"DreadlockCertificateExpiresSoon": {expires(1 * day), expires(3 * day)},
		"DreadlockFleetOutOfTouch":        {of("dreadlock_fleet_in_touch", since(time.Minute, 1, 0)), of("dreadlock_fleet_in_touch", since(20*time.Second, 1, 0))},
		"DreadlockFleetLost": {
			of("dreadlock_fleet_lost_total", since(10*time.Minute, 3, 4), "reason", "time"),
			of("dreadlock_fleet_lost_total", since(10*time.Minute, 3, 4), "reason", "stopped"),
		},
		"DreadlockFleetStoreMembers": {
			both("dreadlock_fleet_store_members_reachable", 2, "dreadlock_fleet_store_members", 3), both("dreadlock_fleet_store_members_reachable", 3, "dreadlock_fleet_store_members", 3),
		},
		"DreadlockFleetStoreFull": {
			both("dreadlock_fleet_store_size_bytes", 81, "dreadlock_fleet_store_quota_bytes", 100), both("dreadlock_fleet_store_size_bytes", 79, "dreadlock_fleet_store_quota_bytes", 100),
		},
		"DreadlockFleetWarnings": {of("dreadlock_fleet_warnings", since(20*time.Minute, 0, 1)), of("dreadlock_fleet_warnings", since(5*time.Minute, 0, 1))},
		"DreadlockFleetSlow":     {of("dreadlock_fleet_watch_lag_seconds", constantly(1.5)), of("dreadlock_fleet_watch_lag_seconds", constantly(0.5))},
		"DreadlockDrains":        {of("dreadlock_draining", since(20*time.Minute, 0, 1)), of("dreadlock_draining", since(10*time.Minute, 0, 1))},
	}
	for _, r := range alerts(t) {
		c, ok := cases[r.Alert]
		delete(cases, r.Alert)
		switch {
		case !ok:
			t.Errorf("%s: this test does not know when it is to fire", r.Alert)
		case !fires(t, &r, c.fires):
			t.Errorf("%s does not fire", r.Alert)
		case fires(t, &r, c.quiet):
			t.Errorf("%s fires too early", r.Alert)
		}
	}
	for name := range cases {
		t.Errorf("there is no rule %s", name)
	}
}

// Everything that the dashboard shows is exported by a daemon.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query any
			}
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	all := exported(t)
	want := func(what, expr string) {
		wantSelected(t, what, strings.NewReplacer("$job", "dreadlock", "$instance", ".*", "$__rate_interval", "5m", "$__interval", "1m").Replace(expr), all)
	}
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("panel %d, %q: needs a number of its own, a title and a target", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, ok := taken[at]; ok {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		for i, target := range p.Targets {
			want(fmt.Sprintf("%q, target %d", p.Title, i), target.Expr)
		}
	}
	for _, a := range dashboard.Annotations.List {
		want(a.Name, a.Expr)
	}
	for _, v := range dashboard.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			metric, _, _ := strings.Cut(strings.TrimPrefix(q["query"].(string), "label_values("), ", ")
			want("variable "+v.Name, metric)
		}
	}
}

// Whatever a daemon exports of its own is shown by the dashboard, or an alert looks at it.
func TestMetricsAreUsed(t *testing.T) {
	used := map[string]bool{"dreadlock_timeouts_total": true} // the waits by outcome are shown, which have the same number
	for _, file := range []string{"grafana.json", "alerts.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bdreadlock_\w+`).FindAllString(string(text), -1) {
			used[name] = true
		}
	}
	for _, s := range exported(t) {
		name := s.labels.Get("__name__")
		if base, ok := strings.CutSuffix(name, "_sum"); ok {
			name = base + "_bucket" // each histogram has both
		}
		if strings.HasPrefix(name, "dreadlock_") && !strings.HasSuffix(name, "_count") && !used[name] {
			t.Errorf("%s is exported, and used nowhere", name)
		}
	}
}
