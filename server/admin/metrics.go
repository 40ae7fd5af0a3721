package admin

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"dreadlock/server/api"
	"dreadlock/server/noise"
)

const (
	// scrapeTime is the time that the server has to answer a scrape. Prometheus gives up after 10 s by default.
	scrapeTime = 5 * time.Second
	// maxScrapes is the number of scrapes at a time; one more gets status 503.
	maxScrapes = 4
)

// newMetrics answers scrapes of Prometheus. A scrape that cannot get everything fails as a whole: a missing count would
// look like a restart.
func newMetrics(source Source, log *noise.Log) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector{source},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            warnings{log},
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// plainMetric is a metric without labels: one number of the status.
type plainMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*api.Status) float64
}

func gauge(name, help string, value func(*api.Status) int) plainMetric {
	return plainMetric{desc(name, help), prometheus.GaugeValue, func(s *api.Status) float64 { return float64(value(s)) }}
}

// gaugeSeconds is a gauge of a time.
func gaugeSeconds(name, help string, value func(*api.Status) float64) plainMetric {
	return plainMetric{desc(name, help), prometheus.GaugeValue, value}
}

func counter(name, help string, value func(*api.Counters) uint64) plainMetric {
	return plainMetric{desc(name, help), prometheus.CounterValue, func(s *api.Status) float64 { return float64(value(&s.Counters)) }}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("dreadlock_"+name, help, labels, nil)
}

var plainMetrics = []plainMetric{
	gauge("loops", "Event loops.", func(s *api.Status) int { return s.Loops }),
	gauge("connections", "Connections of clients.", func(s *api.Status) int { return s.Connections }),
	gauge("max_connections", "Maximum number of connections of clients.", func(s *api.Status) int { return s.MaxConnections }),
	gauge("held_keys", "Keys that are held.", func(s *api.Status) int { return s.HeldKeys }),
	gauge("resting_keys", "Keys whose holder's connection has ended without an unlock, and that have not gone on yet.",
		func(s *api.Status) int { return s.RestingKeys }),
	{
		desc("lock_delay_seconds", "How long such a key rests: --lock-delay."), prometheus.GaugeValue,
		func(s *api.Status) float64 { return s.LockDelaySeconds },
	},
	gauge("waiters", "Connections that wait for a key.", func(s *api.Status) int { return s.Waiters }),
	gaugeSeconds("oldest_hold_seconds", "Time for which the key is held that is held longest, 0 if none is.",
		func(s *api.Status) float64 { return s.OldestHoldSeconds }),
	gaugeSeconds("oldest_wait_seconds", "Time that the longest wait has lasted so far, 0 if nobody waits.",
		func(s *api.Status) float64 { return s.OldestWaitSeconds }),
	gauge("draining", "Whether the server drains: 1 if it does, else 0.", func(s *api.Status) int {
		if s.Drain != nil {
			return 1
		}
		return 0
	}),
	gaugeSeconds("start_time_seconds", "When the server started with nothing, in seconds since 1970; a takeover does not change it.",
		func(s *api.Status) float64 { return float64(s.Started.UnixNano()) / 1e9 }),
	gaugeSeconds("takeover_pause_seconds", "Time for which nobody was answered in the latest takeover, 0 if there was none.",
		func(s *api.Status) float64 { return latestTakeover(s).PauseSeconds }),
	{
		desc("takeovers_total", "Takeovers since the server started with nothing."), prometheus.CounterValue,
		func(s *api.Status) float64 { return float64(latestTakeover(s).Count) },
	},
	gauge("memory_bytes", "Memory that clients take: keys, connections, input and output.",
		func(s *api.Status) int { return int(s.MemoryBytes) }),
	gauge("memory_limit_bytes", "Memory that clients may take.", func(s *api.Status) int { return int(s.MemoryLimitBytes) }),
	gauge("deadlocks", "Deadlocks that exist now.", func(s *api.Status) int { return s.Deadlocks }),

	counter("connections_accepted_total", "Connections that were accepted, without those that were refused.",
		func(c *api.Counters) uint64 { return c.Accepted }),
	counter("grants_total", "Waits that ended with the lock.",
		func(c *api.Counters) uint64 { return c.Grants }),
	counter("timeouts_total", "Waits that ran out of time; a try with timeout 0 is no wait.",
		func(c *api.Counters) uint64 { return c.Timeouts }),
	counter("connection_moves_total", "Moves of connections to the loop whose keys they use.",
		func(c *api.Counters) uint64 { return c.Moves }),
	counter("loop_messages_total", "Messages from one loop to another.",
		func(c *api.Counters) uint64 { return c.Messages }),
	counter("loop_wakeups_total", "Wake-ups of loops by messages.",
		func(c *api.Counters) uint64 { return c.WakeUps }),
	counter("deadlocks_found_total", "Deadlocks that were found.",
		func(c *api.Counters) uint64 { return c.DeadlocksFound }),
	counter("deadlocks_broken_total", "Deadlocks that were broken.",
		func(c *api.Counters) uint64 { return c.DeadlocksBroken }),
	counter("takeovers_failed_total", "Takeovers that were asked for and have not happened: see the log.",
		func(c *api.Counters) uint64 { return c.TakeoversFailed }),
}

// latestTakeover returns the takeover of a status, a zero one if there was none.
func latestTakeover(s *api.Status) *api.Takeover {
	if s.Takeover == nil {
		return &api.Takeover{}
	}
	return s.Takeover
}

var (
	buildInfo   = desc("build_info", "Versions of the daemon and of Go; always 1.", "version", "goversion")
	commands    = desc("commands_total", "Commands that were answered.", "kind", "outcome")
	disconnects = desc("disconnects_total", "Connections of clients that ended.", "reason")
	refused     = desc("connections_refused_total", "Connections that were closed before a command of theirs was read.", "reason")
	acceptFails = desc("accept_errors_total", "Connections that could not be accepted, by the name of the error.", "reason")
	expiry      = desc("tls_certificate_expiry_timestamp_seconds", "When the TLS certificate expires, in seconds since 1970.")
	limitHits   = desc("limit_hits_total", "Clients that ran into a limit.", "limit")
	waits       = desc("wait_duration_seconds", "Duration of waits, by how they ended.", "outcome")
	holds       = desc("hold_duration_seconds", "Time for which keys were held.")
)

// collector keeps no numbers: each scrape asks the server once.
type collector struct {
	source Source
}

// Describe lists what Collect sends.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range plainMetrics {
		out <- m.desc
	}
	for _, d := range []*prometheus.Desc{buildInfo, commands, disconnects, refused, acceptFails, expiry, limitHits, waits, holds} {
		out <- d
	}
	describeFleet(out)
}

// Collect asks the server for its status and sends it as metrics.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	status, err := c.source.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(buildInfo, err)
		return
	}
	out <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, status.Version, runtime.Version())
	for _, m := range plainMetrics {
		out <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(status))
	}
	for _, c := range status.Counters.Commands {
		out <- prometheus.MustNewConstMetric(commands, prometheus.CounterValue, float64(c.Count), c.Kind, c.Outcome)
	}
	sendLabelled(out, disconnects, api.DisconnectReasons, status.Counters.Disconnects)
	sendLabelled(out, refused, api.RefusalReasons, status.Counters.Refused)
	sendLabelled(out, acceptFails, api.AcceptErrors, status.Counters.AcceptErrors)
	sendLabelled(out, limitHits, api.Limits, status.Counters.LimitHits)
	if at := status.CertificateExpires; !at.IsZero() {
		out <- prometheus.MustNewConstMetric(expiry, prometheus.GaugeValue, float64(at.Unix()))
	}
	if status.Fleet != nil {
		sendFleet(out, status.Fleet)
	}
	for _, how := range slices.Sorted(maps.Keys(status.Counters.WaitsByOutcome)) {
		out <- histogram(waits, status.Counters.WaitsByOutcome[how], how)
	}
	out <- histogram(holds, status.Counters.Holds)
}

// sendLabelled sends a count for each of the values that are known, also where it is 0, since a rate needs a zero to start
// from, and for each other one that was counted.
func sendLabelled(out chan<- prometheus.Metric, desc *prometheus.Desc, known []string, counts map[string]uint64) {
	for _, value := range known {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(counts[value]), value)
	}
	for value, count := range counts {
		if !slices.Contains(known, value) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(count), value)
		}
	}
}

// histogram returns a metric whose buckets are cumulative, as Prometheus wants them.
func histogram(desc *prometheus.Desc, h api.Histogram, labels ...string) prometheus.Metric {
	if len(h.Counts) != len(h.Bounds)+1 {
		return prometheus.NewInvalidMetric(desc, fmt.Errorf("%d counts for %d bounds", len(h.Counts), len(h.Bounds)))
	}
	buckets := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		buckets[bound] = sum
	}
	return prometheus.MustNewConstHistogram(desc, sum+h.Counts[len(h.Bounds)], h.Sum, buckets, labels...)
}
