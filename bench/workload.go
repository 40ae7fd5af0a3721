package bench

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrWorkload is wrapped by errors about a workload that cannot be run.
var ErrWorkload = errors.New("bench: bad workload")

// Kind says what the connections of a workload do.
type Kind string

// The kinds.
const (
	Uncontended Kind = "uncontended" // each connection locks and unlocks a key of its own
	Contended   Kind = "contended"   // all connections lock and unlock keys that they share
	Pipelined   Kind = "pipelined"   // many pairs of lock and unlock a write
	Waiters     Kind = "waiters"     // all connections queue for one key, then get it one after another
	Timeouts    Kind = "timeouts"    // all connections wait for what they will not get, under a side load
	Churn       Kind = "churn"       // connect, lock, unlock, close
	Idle        Kind = "idle"        // each connection holds a key and is silent
	Mixed       Kind = "mixed"       // own keys, shared keys, tries and refusals
)

// Kinds lists all kinds.
var Kinds = []Kind{Uncontended, Contended, Pipelined, Waiters, Timeouts, Churn, Idle, Mixed}

// Queues reports whether the kind needs a server that queues requests for a key.
func (k Kind) Queues() bool {
	return k == Contended || k == Waiters || k == Timeouts || k == Mixed
}

// Unit is what a Result counts as one operation: a command with its reply; a hand-over for Waiters; a wait that ran out
// for Timeouts; a connection from connect to close for Churn; a connection that holds its key for Idle.
func (k Kind) Unit() string {
	switch k {
	case Waiters:
		return "hand-over"
	case Timeouts:
		return "wait"
	case Churn, Idle:
		return "connection"
	}
	return "command"
}

// paced reports whether the kind can run as an open loop.
func (k Kind) paced() bool {
	return k == Uncontended || k == Contended || k == Pipelined || k == Mixed
}

// Workload is what to do to a server. The zero value of a field that a kind does not use is right for it; Default fills
// in the others.
type Workload struct {
	Kind Kind `json:"kind"`

	// Connections is the number of connections that the kind is about: the clients, the waiters, the waits in flight,
	// the silent ones; for Churn those that are open at a time.
	Connections int `json:"connections"`
	// Keys is how many keys the connections share (Contended, Mixed).
	Keys int `json:"keys,omitempty"`
	// Zipf is the exponent of the keys' popularity, above 1; 0 means that all are equally popular.
	Zipf float64 `json:"zipf,omitempty"`
	// Pairs is the number of lock and unlock commands, in pairs, that a Pipelined write has.
	Pairs int `json:"pairs,omitempty"`
	// Line is how many of the connections of Waiters wait at a time; they take turns. 0 is all.
	Line int `json:"line,omitempty"`
	// Rate is what an open loop offers, in commands a second over all connections; 0 is a closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Share is the side load of Timeouts: a share of the most that the server does on that load alone, from 0 to 1.
	Share float64 `json:"share,omitempty"`

	// Warmup is how long the load runs before it is measured. Waiters, Idle and Timeouts have preparations of their
	// own.
	Warmup time.Duration `json:"warmup_ns"`
	// Window is how long it is measured.
	Window time.Duration `json:"window_ns"`
}

const (
	defaultConnections = 50
	defaultKeys        = 50
	defaultPairs       = 16
	defaultShare       = 0.5
	defaultWarmup      = 200 * time.Millisecond
	defaultWindow      = time.Second
)

// Default returns a workload of a kind with everything filled in.
func Default(kind Kind) Workload {
	w := Workload{Kind: kind, Connections: defaultConnections, Warmup: defaultWarmup, Window: defaultWindow}
	switch kind {
	case Contended, Mixed:
		w.Connections = 10 * defaultConnections
		w.Keys = defaultKeys
	case Pipelined:
		w.Pairs = defaultPairs
	case Waiters:
		w.Connections = 1000
	case Timeouts:
		w.Connections = 10_000
		w.Share = defaultShare
	case Idle:
		w.Connections = 10_000
	}
	return w
}

// Name is a short name that tells a workload from others of a comparison: uncontended/50.
func (w *Workload) Name() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d", w.Kind, w.Connections)
	switch {
	case w.Keys > 0:
		fmt.Fprintf(&b, "x%d", w.Keys)
	case w.Pairs > 0:
		fmt.Fprintf(&b, "x%d", w.Pairs)
	}
	if w.Line > 0 {
		fmt.Fprintf(&b, " line of %d", w.Line)
	}
	if w.Zipf > 0 {
		fmt.Fprintf(&b, " zipf %g", w.Zipf)
	}
	if w.Rate > 0 {
		fmt.Fprintf(&b, " at %g/s", w.Rate)
	}
	return b.String()
}

// Validate returns an error that wraps ErrWorkload if the workload makes no sense.
func (w *Workload) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrWorkload, w.Kind, fmt.Sprintf(format, args...))
	}
	known := false
	for _, k := range Kinds {
		known = known || k == w.Kind
	}
	needsKeys := w.Kind == Contended || w.Kind == Mixed
	switch {
	case !known:
		return bad("no such kind")
	case w.Connections < 1:
		return bad("connections must be at least 1")
	case needsKeys && w.Keys < 1:
		return bad("keys must be at least 1")
	case w.Zipf != 0 && w.Zipf <= 1:
		return bad("the exponent of zipf must be above 1")
	case w.Kind == Pipelined && (w.Pairs < 1 || w.Pairs > maxPairs):
		return bad("pairs must be from 1 to %d", maxPairs)
	case w.Line < 0 || w.Line > w.Connections:
		return bad("the line must not be longer than there are connections")
	case w.Rate < 0:
		return bad("the rate must not be negative")
	case w.Rate > 0 && !w.Kind.paced():
		return bad("has no open loop")
	case w.Share < 0 || w.Share > 1:
		return bad("the share must be from 0 to 1")
	case w.Warmup < 0 || w.Window <= 0:
		return bad("the window must be longer than nothing")
	}
	return nil
}

// maxPairs bounds a write of Pipelined to what fits into the socket buffers of a server that does not read while it
// writes.
const maxPairs = 256
