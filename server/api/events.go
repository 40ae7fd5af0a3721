package api

import "time"

// The kinds of events.
const (
	EventGranted      = "granted"       // the client holds the key from now on
	EventReleased     = "released"      // it gave the key up
	EventLost         = "lost"          // it lost the key; the reason is one of [DisconnectReasons], or [LostTaken]
	EventTimeout      = "timeout"       // it waited for the key in vain
	EventKicked       = "kicked"        // an operator closed its connection
	EventDeadlock     = "deadlock"      // its wait for the key is part of a deadlock
	EventDeadlockOver = "deadlock_over" // that deadlock is over; the reason is one of [DeadlockEnds]
	EventRefused      = "refused"       // it was kept out; the reason is one of [RefusalReasons]
	EventElsewhere    = "elsewhere"     // the key has gone on to another daemon of the fleet
)

// EventKinds are all values of Event.Kind.
var EventKinds = []string{
	EventGranted, EventReleased, EventLost, EventTimeout, EventKicked, EventDeadlock, EventDeadlockOver, EventRefused,
	EventElsewhere,
}

// LostTaken is the reason for which a key is lost whose holder stays connected: an operator has taken it. The others are
// [DisconnectReasons].
const LostTaken = "taken"

// How a deadlock ends, for each of its waits.
const (
	DeadlockDissolved = "dissolved" // one of its waits has ended by itself
	DeadlockBroken    = "broken"    // this wait was ended by the server, see --break-deadlocks
)

// DeadlockEnds are all reasons of [EventDeadlockOver].
var DeadlockEnds = []string{DeadlockDissolved, DeadlockBroken}

// Event is something that has happened to a client. What does not belong to its kind is left out of the JSON.
type Event struct {
	// Seq is the number of the event, which says where it comes among all events: by time and, for each key, in the order in
	// which things happened. Numbers that are missing are those of events that the server did not keep.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind string    `json:"kind"` // one of [EventKinds]
	// Key is what the event is about, empty for one that is about a connection only.
	Key        string       `json:"key,omitempty"`
	Connection ConnectionID `json:"connection,omitempty"` // none where a client was refused
	// Address, Identity, Name and Owner are those of the client at that time, see [Peer].
	Address  string `json:"address,omitempty"`
	Identity string `json:"identity,omitempty"`
	Name     string `json:"name,omitempty"`
	Owner    string `json:"owner,omitempty"`
	// Daemon is the daemon to which a key goes on, see [Peer]; Address is where it serves.
	Daemon string `json:"daemon,omitempty"`
	// Token is the fencing token of the grant that begins or ends.
	Token uint64 `json:"token,string,omitempty"`
	// WaitedSeconds is how long the client had waited for the key, 0 if it got it at once.
	WaitedSeconds float64 `json:"waited_seconds,omitempty"`
	// HeldSeconds is how long it had held the key that it gives up or loses.
	HeldSeconds float64 `json:"held_seconds,omitempty"`
	Reason      string  `json:"reason,omitempty"`
	// By is who asked for a kick: the address, and the user or the name in the certificate where they are known. A key that
	// is lost by a kick has it too, and one that was taken.
	By string `json:"by,omitempty"`
	// Keys are the first of the keys that a kick has freed, at most [NamedKeys], and Held is the number of all.
	Keys []string `json:"keys,omitempty"`
	Held int      `json:"held,omitempty"`
	// Deadlock is the number of a deadlock, see [Cycle], and HeldBy the connection that holds the key.
	Deadlock uint64       `json:"deadlock,omitempty"`
	HeldBy   ConnectionID `json:"held_by,omitempty"`
}

// NamedKeys is the number of keys that are named where a client is kicked.
const NamedKeys = 16

// EventQuery selects events.
type EventQuery struct {
	Key        string       // this key only; all if empty
	Connection ConnectionID // this connection only; all if 0
	// Since has the page begin after the event with this number, with 0 at the oldest one that is kept. If it is nil, the page
	// has the latest events.
	Since *uint64
	Limit int // of the page: 1 to MaxLimit, 0 for DefaultLimit
}

// EventPage is a page of events, the oldest first.
type EventPage struct {
	Events []Event `json:"events"`
	// Next is the Since of the next page: the number of the last event that was looked at.
	Next uint64 `json:"next"`
	// Lost is the number of events after Since, and not after Next, that the server did not keep. Nobody can tell any more
	// which of them would have matched.
	Lost uint64 `json:"lost"`
	// Oldest is the time of the oldest event that is kept, whether it matches or not: the history goes back to there. It is
	// missing if there is none.
	Oldest time.Time `json:"oldest,omitzero"`
	// Restarted says that Since is not a number of this server, but of one that ran before: the page begins at the oldest event.
	Restarted bool `json:"restarted,omitempty"`
}
