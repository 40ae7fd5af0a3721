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
	Pipelined   Kind = "pipelined"   // many pairs of lock and unlock in one write
	Waiters     Kind = "waiters"     // connections queue for one key and get it one after another
	Timeouts    Kind = "timeouts"    // all connections wait for keys that they do not get, under a side load
	Churn       Kind = "churn"       // connect, lock, unlock, close
	Idle        Kind = "idle"        // each connection holds a key and is silent
	Mixed       Kind = "mixed"       // own keys, shared keys, refused commands
	Groups      Kind = "groups"      // connections in groups; those of a group lock and unlock one key
	Fresh       Kind = "fresh"       // each connection locks and unlocks a key that nobody has used before
	Takeover    Kind = "takeover"    // connections hold and wait while other processes take over, one after another
)

// Kinds lists all kinds.
var Kinds = []Kind{Uncontended, Contended, Pipelined, Waiters, Timeouts, Churn, Idle, Mixed, Groups, Fresh, Takeover}

// Queues reports whether the kind needs a server that queues requests for a key.
func (k Kind) Queues() bool {
	return k == Contended || k == Waiters || k == Timeouts || k == Mixed || k == Groups || k == Takeover
}

// Unit names what a Result counts as one operation: a command with its reply; for Waiters a hand-over; for Timeouts a wait
// that timed out; for Churn a connection from connect to close; for Idle a connection that holds its key; for Takeover a takeover.
func (k Kind) Unit() string {
	switch k {
	case Waiters:
		return "hand-over"
	case Timeouts:
		return "wait"
	case Churn, Idle:
		return "connection"
	case Takeover:
		return "takeover"
	}
	return "command"
}

// paced reports whether the kind can run in an open loop.
func (k Kind) paced() bool {
	return k == Uncontended || k == Contended || k == Pipelined || k == Mixed || k == Churn || k == Groups || k == Fresh
}

// Workload is a load to put on a server. Fields that a kind does not use are zero. Default fills in the others.
type Workload struct {
	Kind Kind `json:"kind"`

	// Connections is the number of connections: the clients; for Waiters those that take turns in the queue; for Timeouts
	// the concurrent waits; for Churn those that are open at a time.
	Connections int `json:"connections"`
	// Keys is the number of keys that the connections share (Contended, Mixed), or of the groups (Groups).
	Keys int `json:"keys,omitempty"`
	// Zipf is the exponent of the keys' popularity, above 1; 0 means that all are equally popular.
	Zipf float64 `json:"zipf,omitempty"`
	// Pairs is the number of pairs of lock and unlock in one write (Pipelined).
	Pairs int `json:"pairs,omitempty"`
	// Queue is the length of the queue (Waiters): that many connections wait at a time. 0 is all.
	Queue int `json:"queue,omitempty"`
	// Rate is the load of an open loop, in commands per second over all connections, for Churn in connections per second; 0 is
	// a closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Share is the side load of Timeouts: a fraction of the most that the server can do of it, from 0 to 1.
	Share float64 `json:"share,omitempty"`

	// Warmup is how long the load runs before it is measured.
	Warmup time.Duration `json:"warmup_ns"`
	// Window is how long the load is measured.
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

// Default returns a complete workload of a kind.
func Default(kind Kind) Workload {
	w := Workload{Kind: kind, Connections: defaultConnections, Warmup: defaultWarmup, Window: defaultWindow}
	switch kind {
	case Contended, Mixed, Groups:
		w.Connections = 10 * defaultConnections
		w.Keys = defaultKeys
	case Pipelined:
		w.Pairs = defaultPairs
	case Waiters, Takeover:
		w.Connections = 1000
	case Timeouts:
		w.Connections = 10_000
		w.Share = defaultShare
	case Idle:
		w.Connections = 10_000
	}
	return w
}

// Name is a short name that is unique in a comparison: uncontended/50.
func (w *Workload) Name() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d", w.Kind, w.Connections)
	switch {
	case w.Keys > 0:
		fmt.Fprintf(&b, "x%d", w.Keys)
	case w.Pairs > 0:
		fmt.Fprintf(&b, "x%d", w.Pairs)
	}
	if w.Queue > 0 {
		fmt.Fprintf(&b, " queue of %d", w.Queue)
	}
	if w.Zipf > 0 {
		fmt.Fprintf(&b, " zipf %g", w.Zipf)
	}
	if w.Rate > 0 {
		fmt.Fprintf(&b, " at %g/s", w.Rate)
	}
	return b.String()
}

// Validate returns an error that wraps ErrWorkload if the workload is invalid.
func (w *Workload) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrWorkload, w.Kind, fmt.Sprintf(format, args...))
	}
	known := false
	for _, k := range Kinds {
		known = known || k == w.Kind
	}
	needsKeys := w.Kind == Contended || w.Kind == Mixed || w.Kind == Groups
	switch {
	case !known:
		return bad("unknown kind")
	case w.Connections < 1:
		return bad("connections must be at least 1")
	case needsKeys && w.Keys < 1:
		return bad("keys must be at least 1")
	case w.Zipf != 0 && w.Zipf <= 1:
		return bad("the exponent of zipf must be greater than 1")
	case w.Kind == Pipelined && (w.Pairs < 1 || w.Pairs > maxPairs):
		return bad("pairs must be from 1 to %d", maxPairs)
	case w.Queue < 0 || w.Queue > w.Connections:
		return bad("the queue cannot be longer than the number of connections")
	case w.Rate < 0:
		return bad("the rate must not be negative")
	case w.Rate > 0 && !w.Kind.paced():
		return bad("it cannot run in an open loop: omit the rate")
	case w.Share < 0 || w.Share > 1:
		return bad("the share must be from 0 to 1")
	case w.Warmup < 0 || w.Window <= 0:
		return bad("the window must be longer than 0")
	}
	return nil
}

// maxPairs bounds a write of Pipelined to what fits into the socket buffers, since a server may not read while it writes.
const maxPairs = 256
