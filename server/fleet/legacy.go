package fleet

import (
	"context"
	"time"
)

// A daemon that is restarted without losing a lock hands its session over to the next process, the successor, and is the predecessor then.
// At any time one of the two writes to the store and renews the lease:
//
//	predecessor   Run ──► Suspend ──► Legacy ──► Yield, and Run returns
//	                         ▲           └─────► Resume, and Run goes on as if nothing had been
//	successor     Prepare ──► Inherit ──► Run
//
// While the store is suspended the session goes on: what it is asked for is kept. So its loops may deal with what they were told before,
// and the legacy has what comes of that.

// Handover is the part of a [Store] by which its session goes over. Prepare and Inherit are called before Run, the others while it runs.
type Handover interface {
	// Greeting returns what a successor has to know to say whether it can take over.
	Greeting() Greeting
	// Prepare returns why the store cannot go on with the session of a predecessor, nil if it can. It asks the store, which takes a while;
	// it changes nothing.
	Prepare(ctx context.Context, g Greeting) error
	// Suspend has the store finish what it is writing, which takes a second at most, renew the lease, write nothing more and call the
	// member no more. It returns until when grants may be told, 0 if there is no session; the takeover must be over by then. With an
	// error, as when ctx is done, the store is not suspended.
	Suspend(ctx context.Context) (until time.Duration, err error)
	// Legacy returns the session of a store that is suspended. There is an error if the session has been lost meanwhile.
	Legacy() (*Legacy, error)
	// Resume has a store go on that is suspended.
	Resume()
	// Yield says that the session of a store that is suspended is the successor's now: Run returns, and neither the store nor the member
	// is told anything.
	Yield()
	// Inherit has the store go on, as soon as it runs, with the session of a predecessor, which it returns; nil if there was none. The
	// member is not told of it by [Member.Found]. The session can be used at once. The error says what does not fit.
	Inherit(l *Legacy) (Session, error)
}

// Greeting is what the store of a predecessor says of itself.
type Greeting struct {
	// Store is its kind, and Name tells apart the fleets that it may have.
	Store, Name string
	// Space is the number of the lock space, 0 while there is no session.
	Space uint64
	// LockDelay is that of the member; who passes the greeting on adds it.
	LockDelay time.Duration
}

// Legacy is what a store hands over. It is made for package gob: a field that a later version has is zero if an earlier one has written it.
type Legacy struct {
	Greeting Greeting
	// Lease is that of the session, 0 if there is none. Then most of the others are zero, too.
	Lease int64
	// TTL is how long it lasts, and Rest by how much longer, for the lock delay. Until is until when grants may be told, on
	// CLOCK_BOOTTIME.
	TTL, Rest, Until time.Duration
	// Since is when the session began, or ended; Reason says why there is none.
	Since  time.Time
	Reason string
	// Seq is the last place that was asked for.
	Seq uint64
	// Revision is up to which the member has been told all changes; without a session, the greatest that was seen. Listed is that of the
	// last list, and Relist says that what comes next is another one.
	Revision, Listed uint64
	Relist           bool
	// Places are those that the member knows.
	Places []Change
	// Queue is what the session was asked for and has not written, in its order.
	Queue []Operation
	// Unseen are places that were asked for and have not come.
	Unseen []Unseen
	// Daemons are those of the fleet, and Beat numbers the last sign of life of this one.
	Daemons []Daemon
	Beat    uint64
	// Counters are what the store counts, by name.
	Counters map[string]uint64
}

// Operation is what a session was asked for.
type Operation struct {
	Key   []byte
	Place Place
	// Join says that the place is to be made, as a try or not; otherwise it is to go.
	Join, Try bool
	// While is the number of the place of this daemon that has to exist for the other to go; 0 if none has to.
	While uint64
}

// Unseen is a place that was asked for and has not come.
type Unseen struct {
	Operation Operation
	// Revision is when it was written, 0 if that is not known.
	Revision uint64
}

// Daemon is what is known of a daemon of the fleet.
type Daemon struct {
	Lease                   int64
	Address, Version, Space string
	Beat                    uint64
	// Age is how long ago its last sign of life was seen.
	Age time.Duration
}
