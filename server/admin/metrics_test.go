package admin

import (
	"bytes"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"dreadlock/server/api"
)

// scrape returns all metrics, as Prometheus reads them.
func scrape(t *testing.T, source Source) map[string]*dto.MetricFamily {
	t.Helper()
	w := ask(handlerOf(source), http.MethodGet, "/metrics", nil)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	problems, err := promlint.New(bytes.NewReader(w.Body.Bytes())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// sample returns the value of the metric with the given labels, which come as name, value.
func sample(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	for _, m := range families[name].GetMetric() {
		var has []string
		for _, l := range m.GetLabel() {
			has = append(has, l.GetName(), l.GetValue())
		}
		if slices.Equal(has, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true // one of them is nil
		}
	}
	return 0, false
}

func TestMetrics(t *testing.T) {
	f := newFake()
	f.status.Started = time.Unix(1764403200, 5e8)
	families := scrape(t, f)
	for _, c := range []struct {
		name   string
		value  float64
		labels []string
	}{
		{"dreadlock_loops", 2, nil},
		{"dreadlock_connections", 111, nil},
		{"dreadlock_max_connections", 1000, nil},
		{"dreadlock_held_keys", 33, nil},
		{"dreadlock_resting_keys", 3, nil},
		{"dreadlock_lock_delay_seconds", 7.5, nil},
		{"dreadlock_waiters", 81, nil},
		{"dreadlock_oldest_hold_seconds", 300, nil},
		{"dreadlock_oldest_wait_seconds", 42.5, nil},
		{"dreadlock_deadlocks", 1, nil},
		{"dreadlock_memory_bytes", 3 << 20, nil},
		{"dreadlock_memory_limit_bytes", 1 << 30, nil},
		{"dreadlock_draining", 0, nil},
		{"dreadlock_start_time_seconds", 1764403200.5, nil},
		{"dreadlock_takeovers_total", 0, nil},
		{"dreadlock_takeovers_failed_total", 3, nil},
		{"dreadlock_takeover_pause_seconds", 0, nil},
		{"dreadlock_connections_accepted_total", 77, nil},
		{"dreadlock_grants_total", 600, nil},
		{"dreadlock_timeouts_total", 50, nil},
		{"dreadlock_connection_moves_total", 9, nil},
		{"dreadlock_loop_messages_total", 800, nil},
		{"dreadlock_loop_wakeups_total", 700, nil},
		{"dreadlock_deadlocks_found_total", 4, nil},
		{"dreadlock_deadlocks_broken_total", 1, nil},
		{"dreadlock_commands_total", 5100, []string{"kind", "lock", "outcome", "locked"}},
		{"dreadlock_commands_total", 4000, []string{"kind", "unlock", "outcome", "unlocked"}},
		{"dreadlock_commands_total", 0, []string{"kind", "lock", "outcome", "timeout"}},
		{"dreadlock_commands_total", 7, []string{"kind", "a_new_one", "outcome", "done"}},
		{"dreadlock_disconnects_total", 0, []string{"reason", api.ClientClosed}},
		{"dreadlock_disconnects_total", 3, []string{"reason", api.Broken}},
		{"dreadlock_disconnects_total", 0, []string{"reason", api.SyntaxError}},
		{"dreadlock_disconnects_total", 0, []string{"reason", api.TooMuch}},
		{"dreadlock_disconnects_total", 1, []string{"reason", api.Kicked}},
		{"dreadlock_disconnects_total", 0, []string{"reason", api.Drained}},
		{"dreadlock_disconnects_total", 0, []string{"reason", api.IdleTimeout}},
		{"dreadlock_connections_refused_total", 5, []string{"reason", api.RefusedTLSHandshake}},
		{"dreadlock_connections_refused_total", 0, []string{"reason", api.RefusedNotAllowed}},
		{"dreadlock_accept_errors_total", 6, []string{"reason", "EMFILE"}},
		{"dreadlock_accept_errors_total", 0, []string{"reason", "ENFILE"}},
		{"dreadlock_accept_errors_total", 1, []string{"reason", "ENONET"}}, // one that nobody expects
		{"dreadlock_tls_certificate_expiry_timestamp_seconds", 1893553445, nil},
		{"dreadlock_limit_hits_total", 0, []string{"limit", api.LimitConnections}},
		{"dreadlock_limit_hits_total", 0, []string{"limit", api.LimitPipeline}},
		{"dreadlock_limit_hits_total", 2, []string{"limit", api.LimitOutput}},
		{"dreadlock_limit_hits_total", 0, []string{"limit", api.LimitKeys}},
		{"dreadlock_limit_hits_total", 0, []string{"limit", api.LimitKeyBytes}},
		{"dreadlock_limit_hits_total", 0, []string{"limit", api.LimitMemory}},
	} {
		if got, ok := sample(families, c.name, c.labels...); !ok || got != c.value {
			t.Errorf("%s %q: %v, %v; want %v", c.name, c.labels, got, ok, c.value)
		}
	}
	if n := len(families["dreadlock_commands_total"].GetMetric()); n != 4 {
		t.Errorf("%d kinds and outcomes of commands, the server has 4", n)
	}
	for _, name := range []string{"dreadlock_build_info", "go_goroutines", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("no %s", name)
		}
	}
}

func TestMetricOfDrain(t *testing.T) {
	f := newFake()
	if _, err := f.Drain(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, ok := sample(scrape(t, f), "dreadlock_draining"); !ok || got != 1 {
		t.Errorf("draining: %v, %v", got, ok)
	}
}

func TestMetricsOfTakeover(t *testing.T) {
	f := newFake()
	for range 2 {
		if _, err := f.TakeOver(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	families := scrape(t, f)
	for name, want := range map[string]float64{"dreadlock_takeovers_total": 2, "dreadlock_takeover_pause_seconds": 0.0125} {
		if got, ok := sample(families, name); !ok || got != want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

// Without a certificate there is no expiry.
func TestNoCertificate(t *testing.T) {
	f := newFake()
	f.status.CertificateExpires = time.Time{}
	if got := scrape(t, f)["dreadlock_tls_certificate_expiry_timestamp_seconds"]; got != nil {
		t.Errorf("%v", got)
	}
}

// The server counts the values of each bucket alone; the buckets of Prometheus are cumulative.
func TestHistogram(t *testing.T) {
	families := scrape(t, newFake())
	wantHistogram(t, families["dreadlock_wait_duration_seconds"], 80.5, []uint64{5, 5, 11, 13}, "outcome", api.WaitLocked)
	wantHistogram(t, families["dreadlock_wait_duration_seconds"], 0.25, []uint64{0, 3, 3, 3}, "outcome", api.WaitLost)
	wantHistogram(t, families["dreadlock_hold_duration_seconds"], 900, []uint64{8, 12, 13})
}

// wantHistogram checks the histogram with the given label, which comes as name, value. The last bucket has no bound.
func wantHistogram(t *testing.T, family *dto.MetricFamily, sum float64, buckets []uint64, label ...string) {
	t.Helper()
	for _, m := range family.GetMetric() {
		var has []string
		for _, l := range m.GetLabel() {
			has = append(has, l.GetName(), l.GetValue())
		}
		if !slices.Equal(has, label) {
			continue
		}
		h := m.GetHistogram()
		var got []uint64
		for _, b := range h.GetBucket() {
			got = append(got, b.GetCumulativeCount())
		}
		if total := buckets[len(buckets)-1]; !slices.Equal(got, buckets) || h.GetSampleCount() != total || h.GetSampleSum() != sum {
			t.Errorf("%s %q: %d values in buckets %v, %v s; want %v, %v s", family.GetName(), label, h.GetSampleCount(), got, h.GetSampleSum(),
				buckets, sum)
		}
		return
	}
	t.Errorf("no %s %q", family.GetName(), label)
}

// A scrape that cannot get everything gets nothing.
func TestScrapeFails(t *testing.T) {
	f := newFake()
	h := handlerOf(f)
	broken := func(what string, how func(*fake)) {
		f.change(how)
		w := ask(h, http.MethodGet, "/metrics", nil)
		if w.Code != http.StatusInternalServerError || bytes.Contains(w.Body.Bytes(), []byte("\ndreadlock_")) {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	broken("the server does not answer", func(f *fake) { f.err = api.ErrUnavailable })
	broken("a histogram makes no sense", func(f *fake) {
		f.err = nil
		f.status.Counters.Holds.Counts = f.status.Counters.Holds.Counts[1:]
	})
}
