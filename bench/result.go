package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result has the figures of one run of one workload on one server. It exists only if every reply was right.
//
// Parts that do not apply are nil: processor time and memory without a process, and what belongs to another kind of
// workload.
type Result struct {
	Workload Workload  `json:"workload"`
	Server   string    `json:"server"` // Target.Name
	Kind     string    `json:"kind"`   // Target.Kind
	Loops    int       `json:"loops"`  // Target.Loops
	Started  time.Time `json:"started"`

	// Elapsed is the actual length of the window. For Waiters it is the time of all hand-overs, for Idle the time of
	// connecting and locking, for Takeover that of all takeovers.
	Elapsed time.Duration `json:"elapsed_ns"`
	// Operations is the number of operations in the window; Kind.Unit says what one is.
	Operations int64 `json:"operations"`
	// Answered is the number of operations of the whole run, in the window and outside.
	Answered int64 `json:"answered"`
	// Throughput is Operations per second.
	Throughput float64 `json:"operations_per_s"`
	// Latency is the time from request to reply; for an open loop, from when the request should have been sent; for
	// Pipelined, of all commands of a write together; for Churn, from connect to the last reply; for Timeouts, of the
	// side load.
	Latency *Latency `json:"latency,omitempty"`
	// ServerCPU and GeneratorCPU are the processor time that the server and the generator used for the operations.
	ServerCPU    *CPU `json:"server_cpu,omitempty"`
	GeneratorCPU *CPU `json:"generator_cpu,omitempty"`
	// Allocations is the number of heap objects that the server allocated per operation; nil if it does not report it.
	Allocations *float64 `json:"server_allocations_per_operation,omitempty"`
	// Memory is the resident memory of the server at the end of the window, in bytes.
	Memory int64 `json:"memory_bytes,omitempty"`

	Waiters  *WaitersResult  `json:"waiters,omitempty"`
	Timeouts *TimeoutsResult `json:"timeouts,omitempty"`
	Idle     *IdleResult     `json:"idle,omitempty"`
	Takeover *TakeoverResult `json:"takeover,omitempty"`
}

// CPU is processor time in user and kernel mode.
type CPU struct {
	Total        time.Duration `json:"total_ns"`
	PerOperation time.Duration `json:"per_operation_ns"`
}

// Latency is a distribution of times.
type Latency struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	Min   time.Duration `json:"min_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
	// Distribution has the whole curve, for plots: ever finer steps to the largest value.
	Distribution []Quantile `json:"distribution,omitempty"`
}

// Quantile is one point of a distribution: Percent of the values are at most Value.
type Quantile struct {
	Percent float64       `json:"percent"`
	Value   time.Duration `json:"value_ns"`
}

// WaitersResult has the figures of Waiters alone.
type WaitersResult struct {
	Cycles int `json:"cycles"` // how often the queue was filled and emptied
	// OrderChecked says that every grant was in order, as far as the server confirmed the order of the requests: see the
	// type queueScript. It is false for a server that does not report how many connections wait for a key.
	OrderChecked bool `json:"order_checked"`
	// EnqueueRate is the number of requests per second that joined the queue, with the probes that pace them.
	EnqueueRate float64 `json:"enqueues_per_s"`
	// HandOverRate is the number of times per second that the key changed hands.
	HandOverRate float64 `json:"hand_overs_per_s"`
	// Enqueue and HandOver are the server's processor time per request that has to wait, without the probes, and per
	// grant with the unlock before it. Nil without a process.
	Enqueue  *CPU `json:"enqueue_cpu,omitempty"`
	HandOver *CPU `json:"hand_over_cpu,omitempty"`
}

// TimeoutsResult has the figures of Timeouts alone.
type TimeoutsResult struct {
	InFlight int `json:"in_flight"` // concurrent waits
	// Early is the number of waits that timed out before their time, counted from just before the request was sent.
	Early int64 `json:"early"`
	// Late is how late the others were, including the round trip of request and reply.
	Late *Latency `json:"late"`
	// Most is the most that the server did of the side load alone, and Offered the side load, in commands per second.
	Most    float64 `json:"most_per_s"`
	Offered float64 `json:"offered_per_s"`
}

// IdleResult has the figures of Idle alone.
type IdleResult struct {
	Before        int64   `json:"before_bytes"`          // resident memory without connections
	After         int64   `json:"after_bytes"`           // with all of them
	PerConnection float64 `json:"bytes_per_connection"`  // memory
	CPUShare      float64 `json:"cpu_share_of_one_core"` // with all connections, while all are silent
}

// NewLatency summarizes a histogram of nanoseconds. It returns nil if the histogram is empty.
func NewLatency(h *hdrhistogram.Histogram) *Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(percent float64) time.Duration { return time.Duration(h.ValueAtQuantile(percent)) }
	l := &Latency{
		Count: h.TotalCount(),
		Mean:  time.Duration(h.Mean()),
		Min:   time.Duration(h.Min()),
		P50:   at(50),
		P90:   at(90),
		P99:   at(99),
		P999:  at(99.9),
		Max:   time.Duration(h.Max()),
	}
	for _, b := range h.CumulativeDistribution() {
		l.Distribution = append(l.Distribution, Quantile{Percent: b.Quantile, Value: time.Duration(b.ValueAt)})
	}
	return l
}

// newCPU divides processor time by operations. It returns nil if there were none.
func newCPU(total time.Duration, operations int64) *CPU {
	if operations < 1 {
		return nil
	}
	return &CPU{Total: total, PerOperation: total / time.Duration(operations)}
}
