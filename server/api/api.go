package api

import (
	"errors"
	"fmt"
	"time"
)

// Limits of the pages, in entries.
const (
	// DefaultLimit is the length of a page if the query gives none.
	DefaultLimit = 100
	// MaxLimit is the length of the longest page.
	MaxLimit = 1000
	// ListedKeys is the number of held keys that a page of connections lists for each of them at most.
	ListedKeys = 16
)

var (
	// ErrNotFound says that nobody holds the key, or that no connection has the number.
	ErrNotFound = errors.New("not found")
	// ErrQuery is wrapped by errors about an invalid query: an unknown order, a cursor that no page gave.
	ErrQuery = errors.New("bad query")
	// ErrConflict says that another connection, or another grant, has the key than the one that was meant.
	ErrConflict = errors.New("the key has changed hands")
	// ErrTakeover says why no other process has taken over: it was refused, or tried and given up. The server serves on.
	ErrTakeover = errors.New("no takeover")
	// ErrUnavailable says that the server is not running, or that a loop did not answer in time.
	ErrUnavailable = errors.New("the server does not answer")
)

// ConnectionID is the number of a connection: 1 for the first that the server accepted. No number is used twice.
type ConnectionID uint64

// Peer is one connection and who is at its other end.
type Peer struct {
	Connection ConnectionID `json:"connection"`
	// Address is host:port, that of the client behind a proxy; unix: and the path of the socket for one that came by a Unix
	// socket.
	Address string `json:"address"`
	// Identity is who the client is: the name in its certificate or, on a Unix socket, its user and process as the kernel
	// knows them (uid 1000 pid 4711). It is empty if neither says so.
	Identity string `json:"identity,omitempty"`
	// Name is the name that the client has given the connection, empty if it has given none.
	Name string `json:"name,omitempty"`
	// Owner is the owner that the client has named, empty if it has named none. All connections of one owner count as one in
	// the search for deadlocks.
	Owner string `json:"owner,omitempty"`
	// Daemon names another daemon of the fleet, by its lease in hexadecimal: the key is there, whether one of its clients holds it or
	// not, or it is the next to get it. Address is where that daemon serves, if it is known; all else is empty.
	Daemon string `json:"daemon,omitempty"`
}

// Where names the connection or the daemon, for messages.
func (p Peer) Where() string {
	switch {
	case p.Daemon == "":
		return fmt.Sprintf("connection %d (%s)", p.Connection, p.Address)
	case p.Address == "":
		return "daemon " + p.Daemon
	}
	return fmt.Sprintf("daemon %s (%s)", p.Daemon, p.Address)
}

// Status is what the server is and what it has counted since it started.
type Status struct {
	Version string   `json:"version"`
	Host    string   `json:"host,omitempty"` // the name of the machine
	PID     int      `json:"pid"`            // the number of the process, as it knows it itself
	Address string   `json:"address"`        // where it serves: host:port, or a URL if that is no TCP socket
	Listen  []string `json:"listen"`         // all such addresses, as URLs; Address is the first
	// Started is when the server started with nothing: another Started means that what clients held before is lost. A takeover does
	// not change it.
	Started        time.Time `json:"started"`
	UptimeSeconds  float64   `json:"uptime_seconds"`
	Loops          int       `json:"loops"`
	Connections    int       `json:"connections"`
	MaxConnections int       `json:"max_connections"`
	HeldKeys       int       `json:"held_keys"`
	Waiters        int       `json:"waiters"`
	// OldestHoldSeconds is how long the key is held that is held longest, OldestWaitSeconds how long the longest wait has lasted so
	// far: 0 for none.
	OldestHoldSeconds float64 `json:"oldest_hold_seconds"`
	OldestWaitSeconds float64 `json:"oldest_wait_seconds"`
	Deadlocks         int     `json:"deadlocks"` // now
	// MemoryBytes is what clients make the server take, of at most MemoryLimitBytes: keys, waiters, connections, input that is not
	// executed yet, answers that are not read.
	MemoryBytes      int64 `json:"memory_bytes"`
	MemoryLimitBytes int64 `json:"memory_limit_bytes"`
	// LockDelaySeconds is how long a key rests whose holder's connection has ended without an unlock: nobody holds it, and it goes
	// to the next only then. RestingKeys do so now.
	LockDelaySeconds float64 `json:"lock_delay_seconds"`
	RestingKeys      int     `json:"resting_keys"`
	// GrantsInSeconds is how long nothing is granted yet after the start, 0 if that is over.
	GrantsInSeconds float64 `json:"grants_in_seconds,omitempty"`
	// CertificateExpires is when the TLS certificate expires; there is none if it is zero.
	CertificateExpires time.Time `json:"certificate_expires,omitzero"`
	// Takeover is the one by which this process became the server, nil if it started with nothing.
	Takeover *Takeover `json:"takeover,omitempty"`
	// Drain is the drain that is under way, nil if there is none.
	Drain *Drain `json:"drain,omitempty"`
	// Fleet is what is known of the fleet, nil if the daemon is alone.
	Fleet    *Fleet   `json:"fleet,omitempty"`
	Counters Counters `json:"counters"`
}

// Drain is a drain: the server takes no new connections, lets those who hold a key or wait for one finish, and ends.
type Drain struct {
	Since time.Time `json:"since"`
	// Until is when the server ends at the latest, and drops what is held then.
	Until       time.Time `json:"until"`
	SecondsLeft float64   `json:"seconds_left"` // until then
	// HeldKeys are the keys that are held, and lost once the drain is over. Both numbers are as old as the server's latest
	// look, usually a fraction of a second.
	HeldKeys int `json:"held_keys"`
	Waiters  int `json:"waiters"`
	// Over says that the server ends now.
	Over bool `json:"over"`
}

// Counters have counted since the server started. They only grow, also by a takeover.
type Counters struct {
	// Commands that were answered: one count for each kind and each of its outcomes, also where it is 0, as a rate needs a
	// zero to start from.
	Commands []CommandCount `json:"commands"`
	// Accepted connections, without those that were refused.
	Accepted uint64 `json:"accepted"`
	// Refused are the connections that were closed before a command of theirs was read, by reason: one of [RefusalReasons].
	Refused map[string]uint64 `json:"refused"`
	// AcceptErrors are the errors of accept(2), and of giving a connection to a loop, by the name of the errno such as EMFILE:
	// those of [AcceptErrors], or others.
	AcceptErrors map[string]uint64 `json:"accept_errors"`
	// Grants are the waits that ended with the lock.
	Grants uint64 `json:"grants"`
	// Timeouts are the waits that ran out of time. A try (timeout 0) of a held key is no wait.
	Timeouts uint64 `json:"timeouts"`
	// Disconnects are the connections that ended, by reason: one of [DisconnectReasons].
	Disconnects map[string]uint64 `json:"disconnects"`
	// LimitHits counts how often clients ran into a limit, by limit: one of [Limits].
	LimitHits map[string]uint64 `json:"limit_hits"`
	// Moves of a connection to the loop whose keys it uses.
	Moves uint64 `json:"moves"`
	// Messages from loop to loop, and the wake-ups of loops that they needed.
	Messages uint64 `json:"messages"`
	WakeUps  uint64 `json:"wake_ups"`
	// Deadlocks that were found, and those of them that were broken.
	DeadlocksFound  uint64 `json:"deadlocks_found"`
	DeadlocksBroken uint64 `json:"deadlocks_broken"`
	// TakeoversFailed are those that were asked for and have not happened: see the log.
	TakeoversFailed uint64 `json:"takeovers_failed"`
	// Waits has the durations of all waits that ended with the lock or a timeout.
	Waits Histogram `json:"waits"`
	// WaitsByOutcome has the durations of all waits that are over, by how they ended: one of [WaitOutcomes].
	WaitsByOutcome map[string]Histogram `json:"waits_by_outcome"`
	// Holds has the times for which keys were held that are not held any more by that holder.
	Holds Histogram `json:"holds"`
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
	// Counts has the number of values in each bucket alone, and last the number of those above all bounds.
	Counts []uint64 `json:"counts"`
	// Sum of all values, in seconds.
	Sum float64 `json:"sum"`
}

// How waits end.
const (
	WaitLocked   = "locked"   // with the lock
	WaitTimedOut = "timeout"  // the time ran out
	WaitKicked   = "kicked"   // an operator closed the connection
	WaitDeadlock = "deadlock" // to break a deadlock
	WaitLost     = "lost"     // the connection ended, or the input of its client
)

// WaitOutcomes are all keys of Counters.WaitsByOutcome.
var WaitOutcomes = []string{WaitLocked, WaitTimedOut, WaitKicked, WaitDeadlock, WaitLost}

// The reasons for which connections end.
const (
	ClientClosed = "closed"       // the client closed, or its input ended
	Broken       = "broken"       // a reset, or a host that does not answer
	SyntaxError  = "syntax_error" // the client broke the protocol
	TooMuch      = "too_much"     // the client sent, or left unread, too much and could not be held back
	Kicked       = "kicked"       // an operator closed it
	IdleTimeout  = "idle"         // it had sent no command for --idle-timeout
	Drained      = "drained"      // it held nothing and waited for nothing while the server drained
	OutOfTouch   = "out_of_touch" // it held or wanted a key when the server lost touch with its fleet
	NotCarried   = "takeover"     // the server was taken over, and an encrypted connection cannot be
)

// DisconnectReasons are all keys of Counters.Disconnects.
var DisconnectReasons = []string{ClientClosed, Broken, SyntaxError, TooMuch, Kicked, IdleTimeout, Drained, OutOfTouch, NotCarried}

// The reasons for which connections are refused.
const (
	RefusedMaxConnections = "max_connections" // too many connections
	RefusedMaxPerAddress  = "max_per_address" // too many connections from one address
	RefusedMaxMemory      = "max_memory"      // the memory of the server is used up
	RefusedNotAllowed     = "not_allowed"     // the address is not among those of allow=
	RefusedNotProxy       = "not_proxy"       // the address is not among those of proxy=
	RefusedProxyHeader    = "proxy_header"    // no PROXY header came, or not in time
	RefusedTLSHandshake   = "tls_handshake"   // the TLS handshake failed, or took too long
	RefusedLost           = "lost"            // it got to no event loop: a shortage of the machine, or the daemon stopped
)

// RefusalReasons are all keys of Counters.Refused.
var RefusalReasons = []string{
	RefusedMaxConnections, RefusedMaxPerAddress, RefusedMaxMemory, RefusedNotAllowed, RefusedNotProxy, RefusedProxyHeader,
	RefusedTLSHandshake, RefusedLost,
}

// AcceptErrors are the keys of Counters.AcceptErrors that can be expected: shortages, and connections that were lost early.
var AcceptErrors = []string{"EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ECONNABORTED", "EPERM", "EPROTO"}

// The limits that a client can run into. Each has the name of its flag.
const (
	LimitConnections = "max_connections" // a connection was refused
	LimitPipeline    = "max_pipeline"    // a client was held back because it sent on while it waited
	LimitOutput      = "max_output"      // a client was held back because it did not read
	LimitKeys        = "max_keys"        // a lock was refused: the connection holds too many keys
	LimitKeyBytes    = "max_key_bytes"   // a lock was refused: the keys of the connection take too much memory
	LimitMemory      = "max_memory"      // a lock or a connection was refused: the memory of the server is used up
)

// Limits are all keys of Counters.LimitHits.
var Limits = []string{LimitConnections, LimitPipeline, LimitOutput, LimitKeys, LimitKeyBytes, LimitMemory}

// KeyOrder is an order of keys.
type KeyOrder string

// The orders of keys. Keys that are equal in an order are sorted by name.
const (
	ByKey     KeyOrder = "key"     // by name
	ByWaiters KeyOrder = "waiters" // the longest queue first
	ByAge     KeyOrder = "age"     // the longest held first
	ByWait    KeyOrder = "wait"    // the longest wait of a first waiter first
)

// KeyQuery selects keys that are held or rest: those that meet all conditions. Upper and lower case differ.
type KeyQuery struct {
	Prefix   string   // of the key
	Contains string   // a part of the key
	Client   string   // a part of the holder's name, address, identity or owner
	Order    KeyOrder // ByKey if empty
	Limit    int      // of the page: 1 to MaxLimit, 0 for DefaultLimit
	Cursor   string   // Next of the previous page, empty for the first page
}

// KeyPage is a page of keys that are held or rest.
type KeyPage struct {
	Keys []Key `json:"keys"`
	// Matching is the number of such keys that match, whether on this page or not.
	Matching int `json:"matching"`
	// Ages has for how long all of these are held, with the bounds of [AgeBounds].
	Ages *Histogram `json:"ages,omitempty"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// AgeBounds are the bounds of KeyPage.Ages, in seconds: from a second to a day.
var AgeBounds = []float64{1, 10, 60, 600, 3600, 86400}

// Key is a key that is held, or rests: its holder's connection has ended without an unlock, nobody holds it, and it has not gone
// to the next yet.
type Key struct {
	Key string `json:"key"`
	// Holder of a key that rests is the one before. Its connection is 0 if the key is asked for soon after a start, and somebody may
	// have held it before that.
	Holder Peer `json:"holder"`
	// FreesInSeconds is how long a key still rests: it is more than 0 for every key that does, and only for these.
	FreesInSeconds float64 `json:"frees_in_seconds,omitempty"`
	// Token is the fencing token of the holder, 0 if there was none. In JSON it is a string, since JavaScript's numbers are too
	// small for it.
	Token uint64 `json:"token,string"`
	// Since is when the holder got it, and HeldSeconds how long it has held it, or had until its connection ended.
	Since       time.Time `json:"since"`
	HeldSeconds float64   `json:"held_seconds"`
	Waiters     int       `json:"waiters"`
	// LongestWaitSeconds is how long the first waiter has waited, 0 without waiters.
	LongestWaitSeconds float64 `json:"longest_wait_seconds"`
	// Queue has the first waiters, in their order; only where one key is asked for, and there at most the number asked for.
	Queue []Waiter `json:"queue,omitempty"`
}

// Waiter is a connection that waits for a key.
type Waiter struct {
	Peer
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// TimeoutSeconds is the timeout that the client asked for.
	TimeoutSeconds float64 `json:"timeout_seconds"`
}

// ReleaseQuery says which key is to be taken from its holder.
type ReleaseQuery struct {
	Key string
	// Connection and Token, unless they are 0, say from whom: the connection that holds the key, and the token of its grant. If another
	// one holds it by now, that one keeps it.
	Connection ConnectionID
	Token      uint64
	// By is who asks, for the log.
	By string
}

// Release is a key that was taken from its holder.
type Release struct {
	Key string `json:"key"`
	// Holder is who had it, and Token the fencing token of that grant; see Key.
	Holder      Peer    `json:"holder"`
	Token       uint64  `json:"token,string"`
	HeldSeconds float64 `json:"held_seconds"`
	// Next is who has it now, the first of those who waited; nil if nobody did.
	Next *Peer `json:"next,omitempty"`
	// Waiters are those who wait on.
	Waiters int `json:"waiters"`
}

// ConnectionOrder is an order of connections.
type ConnectionOrder string

// The orders of connections. Those that are equal in an order are sorted by their numbers.
const (
	ByConnection ConnectionOrder = "connection" // by number: the oldest first
	ByHeld       ConnectionOrder = "held"       // the one that holds the most keys first
	ByWaited     ConnectionOrder = "wait"       // the longest wait first, those that do not wait last
)

// ConnectionQuery selects connections: those that meet all conditions. Upper and lower case differ.
type ConnectionQuery struct {
	Address string          // prefix of the client's host:port
	Client  string          // a part of the client's name, address, identity or owner
	Holding bool            // only those that hold a key
	Waiting bool            // only those that wait for one
	Order   ConnectionOrder // ByConnection if empty
	Limit   int             // of the page: 1 to MaxLimit, 0 for DefaultLimit
	Cursor  string          // Next of the previous page, empty for the first page
}

// ConnectionPage is a page of connections.
type ConnectionPage struct {
	Connections []Connection `json:"connections"`
	// Matching is the number of connections that match, whether on this page or not.
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
	// Holds are the keys that it holds, in no order: at most [ListedKeys] of them in a page, at most [MaxLimit] where one
	// connection is asked for.
	Holds []string `json:"holds,omitempty"`
	// WaitsFor is the key that it waits for, empty if it does not wait.
	WaitsFor string `json:"waits_for,omitempty"`
	// WaitedSeconds is how long it has waited for it.
	WaitedSeconds float64 `json:"waited_seconds,omitempty"`
}

// The states of a connection.
const (
	Idle    = "idle"    // no command is under way
	Waiting = "waiting" // it waits for a key
	Lagging = "lagging" // the client does not read its answers
	Ending  = "ending"  // half-closed, answers still owed
)

// States are all values of Connection.State.
var States = []string{Idle, Waiting, Lagging, Ending}

// Deadlocks are the deadlocks that exist now.
type Deadlocks struct {
	Cycles []Cycle `json:"cycles"`
	// Found and Broken have counted since the server started.
	Found  uint64 `json:"found"`
	Broken uint64 `json:"broken"`
	// Breaking says whether the server breaks deadlocks.
	Breaking bool `json:"breaking"`
}

// Cycle is a deadlock. Each of its waits is for a key that the connection of the next wait holds, or another connection of
// the same owner; after the last wait comes the first. The youngest wait comes last.
type Cycle struct {
	ID    uint64    `json:"id"` // 1 for the first that was found
	Found time.Time `json:"found"`
	Waits []Wait    `json:"waits"`
}

// Wait is one wait of a cycle.
type Wait struct {
	Peer
	WaitsFor      string    `json:"waits_for"`
	Since         time.Time `json:"since"`
	WaitedSeconds float64   `json:"waited_seconds"`
	// HeldBy is the connection that holds the key.
	HeldBy ConnectionID `json:"held_by"`
}
