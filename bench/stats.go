package bench

import (
	"slices"
	"time"
)

// Stat summarizes one figure over several rounds.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"` // that have the figure
}

// newStat summarizes values. The median of an even number of them is the mean of the two in the middle.
func newStat(values []float64) Stat {
	if len(values) == 0 {
		return Stat{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Stat{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0],
		Max:    sorted[n-1],
		Rounds: n,
	}
}

// Metric names a figure of a Result. The name includes the unit.
type Metric string

// The metrics.
const (
	Throughput   Metric = "operations_per_s"
	ServerCPU    Metric = "server_us_per_operation"
	GeneratorCPU Metric = "generator_us_per_operation"
	Allocations  Metric = "server_allocations_per_operation"
	LatencyP50   Metric = "latency_p50_us"
	LatencyP99   Metric = "latency_p99_us"
	LatencyP999  Metric = "latency_p999_us"
	EnqueueCPU   Metric = "enqueue_us"
	EnqueueRate  Metric = "enqueues_per_s"
	HandOverCPU  Metric = "hand_over_us"
	Early        Metric = "early_waits"
	LateP50      Metric = "late_p50_ms"
	LateP99      Metric = "late_p99_ms"
	LateP999     Metric = "late_p999_ms"
	LateMax      Metric = "late_max_ms"
	IdleMemory   Metric = "bytes_per_connection"
	IdleCPU      Metric = "idle_cpu_share"
	Answer       Metric = "takeover_answer_ms"
	WorstAnswer  Metric = "takeover_worst_answer_ms"
	Stood        Metric = "takeover_stood_ms"
	WorstStood   Metric = "takeover_worst_stood_ms"
)

// Metrics lists all metrics in the order of tables.
var Metrics = []Metric{
	Throughput, ServerCPU, Allocations, GeneratorCPU, LatencyP50, LatencyP99, LatencyP999, EnqueueRate, EnqueueCPU, HandOverCPU,
	Early, LateP50, LateP99, LateP999, LateMax, IdleMemory, IdleCPU, Answer, WorstAnswer, Stood, WorstStood,
}

// Of returns the figure of a result, if it has it.
func (m Metric) Of(r *Result) (value float64, ok bool) {
	switch m {
	case Throughput:
		return r.Throughput, r.Throughput > 0
	case ServerCPU:
		return r.ServerCPU.micros()
	case GeneratorCPU:
		return r.GeneratorCPU.micros()
	case Allocations:
		if r.Allocations == nil {
			return 0, false
		}
		return *r.Allocations, true
	case LatencyP50, LatencyP99, LatencyP999:
		return m.ofLatency(r.Latency)
	case EnqueueCPU, EnqueueRate, HandOverCPU:
		return m.ofWaiters(r.Waiters)
	case Early, LateP50, LateP99, LateP999, LateMax:
		return m.ofTimeouts(r.Timeouts)
	case IdleMemory, IdleCPU:
		return m.ofIdle(r.Idle)
	case Answer, WorstAnswer, Stood, WorstStood:
		return m.ofTakeover(r.Takeover)
	}
	return 0, false
}

func (m Metric) ofLatency(l *Latency) (float64, bool) {
	if l == nil {
		return 0, false
	}
	value := map[Metric]time.Duration{LatencyP50: l.P50, LatencyP99: l.P99, LatencyP999: l.P999}[m]
	return float64(value) / float64(time.Microsecond), true
}

func (m Metric) ofWaiters(w *WaitersResult) (float64, bool) {
	switch {
	case w == nil:
		return 0, false
	case m == EnqueueCPU:
		return w.Enqueue.micros()
	case m == HandOverCPU:
		return w.HandOver.micros()
	}
	return w.EnqueueRate, true
}

func (m Metric) ofTimeouts(t *TimeoutsResult) (float64, bool) {
	switch {
	case t == nil:
		return 0, false
	case m == Early:
		return float64(t.Early), true
	case t.Late == nil:
		return 0, false
	}
	value := map[Metric]time.Duration{LateP50: t.Late.P50, LateP99: t.Late.P99, LateP999: t.Late.P999, LateMax: t.Late.Max}[m]
	return float64(value) / float64(time.Millisecond), true
}

func (m Metric) ofIdle(i *IdleResult) (float64, bool) {
	switch {
	case i == nil:
		return 0, false
	case m == IdleMemory:
		return i.PerConnection, true
	}
	return i.CPUShare, true
}

func (c *CPU) micros() (float64, bool) {
	if c == nil {
		return 0, false
	}
	return float64(c.PerOperation) / float64(time.Microsecond), true
}

func (m Metric) ofTakeover(t *TakeoverResult) (float64, bool) {
	if t == nil || len(t.Takeovers) == 0 {
		return 0, false
	}
	value := map[Metric]time.Duration{Answer: t.Answer, WorstAnswer: t.WorstAnswer, Stood: t.Stood, WorstStood: t.WorstStood}[m]
	return float64(value) / float64(time.Millisecond), true
}
