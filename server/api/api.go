package api

import (
	"errors"
	"time"
)

// Limits of the pages, in entries.
const (
	// DefaultLimit is the length of a page for which none is asked.
	DefaultLimit = 100
	// MaxLimit is the length of the longest page.
	MaxLimit = 1000
	// ListedKeys is the number of keys that are listed of each connection in a page of them.
	ListedKeys = 16
)

var (
	// ErrNotFound says that nobody holds the key, or that there is no connection with the number.
	ErrNotFound = errors.New("not found")
	// ErrQuery is wrapped by errors about a query that makes no sense: an unknown order, a cursor that no page gave.
	ErrQuery = errors.New("bad query")
	// ErrUnavailable says that the server does not run, or that a loop did not answer in time.
	ErrUnavailable = errors.New("the server does not answer")
)

// ConnectionID is the number of a connection: 1 for the first that the server accepted. It is never used again.
type ConnectionID uint64

// Peer is one connection and who is at its other end.
type Peer struct {
	Connection ConnectionID `json:"connection"`
	Address    string       `json:"address"` // host:port
	// Name is what the client calls itself, empty if it does not.
	Name string `json:"name,omitempty"`
	// Owner is the one to whom the client says the connection belongs, with others of the same owner; empty if it says none.
	Owner string `json:"owner,omitempty"`
}

// Status is what the server is and what it has counted since it started.
type Status struct {
	Version        string    `json:"version"`
	Address        string    `json:"address"` // where it serves, host:port
	Started        time.Time `json:"started"`
	UptimeSeconds  float64   `json:"uptime_seconds"`
	Loops          int       `json:"loops"`
	Connections    int       `json:"connections"`
	MaxConnections int       `json:"max_connections"`
	HeldKeys       int       `json:"held_keys"`
	Waiters        int       `json:"waiters"`
	Deadlocks      int       `json:"deadlocks"` // cycles that stand now
	Counters       Counters  `json:"counters"`
}

// Counters only grow.
type Counters struct {
	// Commands that were answered: one count for each kind and each of its outcomes, also where it is 0, as a rate needs a
	// zero to start from.
	Commands []CommandCount `json:"commands"`
	// Accepted connections, those beyond the limit not counted.
	Accepted uint64 `json:"accepted"`
	// Grants are the keys that went to a waiter.
	Grants uint64 `json:"grants"`
	// Timeouts are the waits that ran out; a try of a held key (timeout 0) is none.
	Timeouts uint64 `json:"timeouts"`
	// Disconnects of clients, by reason: those of [DisconnectReasons].
	Disconnects map[string]uint64 `json:"disconnects"`
	// LimitHits, by limit: those of [Limits].
	LimitHits map[string]uint64 `json:"limit_hits"`
	// Moves are the connections that went to the loop whose keys they use.
	Moves uint64 `json:"moves"`
	// Messages from loop to loop, and the wake-ups that they took.
	Messages uint64 `json:"messages"`
	WakeUps  uint64 `json:"wake_ups"`
	// Deadlocks that were found, and those that were broken.
	DeadlocksFound  uint64 `json:"deadlocks_found"`
	DeadlocksBroken uint64 `json:"deadlocks_broken"`
	// Waits are all waits that ended by a grant or a timeout, by how long they took.
	Waits Histogram `json:"waits"`
}

// CommandCount counts the commands of one kind with one outcome.
type CommandCount struct {
	Kind    string `json:"kind"`    // the keyword
	Outcome string `json:"outcome"` // a word for the answer, with _ for spaces
	Count   uint64 `json:"count"`
}

// Histogram counts values by size.
type Histogram struct {
	// Bounds are the upper bounds of the buckets, in seconds, smallest first.
	Bounds []float64 `json:"bounds"`
	// Counts has the values in each bucket, those of smaller buckets not included, and last those above all bounds.
	Counts []uint64 `json:"counts"`
	// Sum of all values, in seconds.
	Sum float64 `json:"sum"`
}

// The reasons for which connections of clients end.
const (
	ClientClosed = "closed"       // the client closed, or its input ended
	Broken       = "broken"       // a reset, or a host that does not answer
	SyntaxError  = "syntax_error" // the client broke the protocol
	TooMuch      = "too_much"     // it sent or left unread too much and could not be held back
	Kicked       = "kicked"       // an operator asked for it
)

// DisconnectReasons are all keys of Counters.Disconnects.
var DisconnectReasons = []string{ClientClosed, Broken, SyntaxError, TooMuch, Kicked}

// The limits that a client can run into, by the flag that sets them.
const (
	LimitConnections = "max_connections" // a connection was refused
	LimitPipeline    = "max_pipeline"    // a client was held back because it sent on while it waited
	LimitOutput      = "max_output"      // a client was held back because it did not read
)

// Limits are all keys of Counters.LimitHits.
var Limits = []string{LimitConnections, LimitPipeline, LimitOutput}

// KeyOrder is an order of keys.
type KeyOrder string

// The orders of keys. Keys that are equal in an order are in that of their names.
const (
	ByKey     KeyOrder = "key"     // by name
	ByWaiters KeyOrder = "waiters" // the longest queue first
	ByAge     KeyOrder = "age"     // the key that was held longest by its holder first
	ByWait    KeyOrder = "wait"    // the key whose first waiter has waited longest first
)

// KeyQuery says which held keys are asked for.
type KeyQuery struct {
	Prefix string   // of the key
	Order  KeyOrder // ByKey if empty
	Limit  int      // 1 to MaxLimit; 0 for DefaultLimit
	Cursor string   // Next of the page before; empty for the first
}

// KeyPage is a page of held keys.
type KeyPage struct {
	Keys []Key `json:"keys"`
	// Matching is the number of held keys that match, on this page or not.
	Matching int `json:"matching"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// Key is a held key.
type Key struct {
	Key    string `json:"key"`
	Holder Peer   `json:"holder"`
	// Token is the fencing token of the grant; as a string in JSON, since it is too large for the numbers of JavaScript.
	Token       uint64    `json:"token,string"`
	Since       time.Time `json:"since"`
	HeldSeconds float64   `json:"held_seconds"`
	Waiters     int       `json:"waiters"`
	// LongestWaitSeconds is how long the first of the queue has waited; 0 without waiters.
	LongestWaitSeconds float64 `json:"longest_wait_seconds"`
	// Queue has the first waiters, in their order; only where one key is asked for, and there at most the number asked for.
	Queue []Waiter `json:"queue,omitempty"`
}

// Waiter is a connection that waits for a key.
type Waiter struct {
	Peer
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// TimeoutSeconds is the wait that the client asked for.
	TimeoutSeconds float64 `json:"timeout_seconds"`
}

// ConnectionQuery says which connections are asked for. They come in the order of their numbers.
type ConnectionQuery struct {
	Address string // prefix of the client's host:port
	Holding bool   // only those that hold a key
	Waiting bool   // only those that wait for one
	Limit   int    // 1 to MaxLimit; 0 for DefaultLimit
	Cursor  string // Next of the page before; empty for the first
}

// ConnectionPage is a page of connections.
type ConnectionPage struct {
	Connections []Connection `json:"connections"`
	// Matching is the number of connections that match, on this page or not.
	Matching int `json:"matching"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// Connection is a client's connection.
type Connection struct {
	Peer
	Since            time.Time `json:"since"`
	ConnectedSeconds float64   `json:"connected_seconds"`
	Loop             int       `json:"loop"`
	// State is one of [States].
	State string `json:"state"`
	Held  int    `json:"held"` // keys
	// Holds are the keys that it holds, in no order: at most [ListedKeys] of them in a page, [MaxLimit] where
	// one connection is asked for.
	Holds []string `json:"holds,omitempty"`
	// WaitsFor is the key that it waits for, empty if it does not.
	WaitsFor string `json:"waits_for,omitempty"`
	// WaitedSeconds is how long it has waited for it.
	WaitedSeconds float64 `json:"waited_seconds,omitempty"`
}

// The states of a connection.
const (
	Idle    = "idle"    // the client has the word
	Waiting = "waiting" // it waits for a key
	Lagging = "lagging" // it does not read its answers
	Ending  = "ending"  // its input has ended, its last commands are executed or sent
)

// States are all values of Connection.State.
var States = []string{Idle, Waiting, Lagging, Ending}

// Deadlocks are the cycles that stand.
type Deadlocks struct {
	Cycles []Cycle `json:"cycles"`
	// Found and Broken count since the start.
	Found  uint64 `json:"found"`
	Broken uint64 `json:"broken"`
	// Breaking says whether the server breaks cycles.
	Breaking bool `json:"breaking"`
}

// Cycle is a deadlock: each of its waits is for a key that the connection of the next one holds, or another connection of
// the same owner; the last one's is for a key of the first. The youngest wait comes last.
type Cycle struct {
	ID    uint64    `json:"id"` // 1 for the first that was found
	Found time.Time `json:"found"`
	Waits []Wait    `json:"waits"`
}

// Wait is one link of a cycle.
type Wait struct {
	Peer
	WaitsFor      string    `json:"waits_for"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// HeldBy is the connection that holds the key.
	HeldBy ConnectionID `json:"held_by"`
}
