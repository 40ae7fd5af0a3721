package server

import (
	"net/netip"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/fleet"
)

// estate is what a server hands over to its successor: all that its clients could miss. It holds values and no pointers, and names
// what it refers to by numbers, so that it can be made on one set of loops and read on another. It goes over as gob: a field that
// the reader does not know is skipped, and one that the writer did not know is zero. So a field keeps its name and its meaning for
// ever, and the zero value must mean what was the case before there was the field. Where that does not do, estateFormat goes up.
//
// All times are durations since the reactor of the predecessor started, which is also when that of the successor has.
type estate struct {
	At        time.Duration // when it was made
	Started   time.Time     // when it was nothing: see [api.Status], whose uptime and counters go on
	Takeovers uint64        // before this one
	Untaken   uint64        // takeovers that have failed
	Space     uint64        // see [Server.lockSpace]
	LastID    uint64        // the last number of a connection
	NextToken uint64        // greater than every token of a grant
	Opens     time.Duration // until then a free key rests: see [lockmgr.Table.SetDelay]; 0 if none did
	Refused   map[string]uint64
	Failed    map[string]uint64 // accepts, by the name of the error
	Deadlocks deadlocksLeft
	Fleet     *fleet.Legacy // nil unless the server is one of a fleet
	Size      estateSize
	Parts     [][]byte // a loopLeft for each loop, as gob
}

// estateSize is how much is handed over, as the predecessor has counted it.
type estateSize struct {
	Sessions int // those included that are not carried
	Keys     int // that somebody holds
	Resting  int // see [lockmgr.Table.Resting]
	Waiters  int
}

// loopLeft is what one loop hands over: its sessions, and the keys of its shard.
type loopLeft struct {
	Entrances []entranceLeft // by which the sessions came, and the former ones
	Sessions  []sessionLeft
	Formers   []formerLeft // in the order in which they go on
	Keys      []keyLeft
	Counters  countersLeft
	Dropped   int        // sessions that are not carried, and have nothing to lose
	Lines     *linesLeft // in a fleet
}

// entranceLeft is an entrance, which the successor may have or not.
type entranceLeft struct {
	URL    string
	Client string // see entrance
	TLS    bool
}

// identityLeft is what is known about a client, see identity and about.
type identityLeft struct {
	Connection uint64
	Address    netip.AddrPort
	Entrance   int // place in the list of the loop
	Proven     string
	Name       string
	Owner      string
	Changes    int
	KickedBy   string
}

// sessionLeft is a session.
type sessionLeft struct {
	Identity identityLeft
	Since    time.Duration
	Carried  bool // its socket goes over; otherwise the session ends when the predecessor has gone
	Conn     reactor.ConnState
	Command  []byte // the beginning of a command, and its length: see [proto.Parser.Begun]
	Length   int
	Pending  []byte
	Ahead    uint32 // see pendingInput
	Serial   uint32 // of its latest wait
	Keys     int    // that it holds
	Turn     int    // its place among those that wait for a turn, counted from 1; 0 if it does not
	HalfShut bool   // its input has ended
	Ended    string // why it has ended, in the words of the API; empty if it has not
	Stalled  bool
	Newcomer bool
}

// formerLeft is who has ended and whose keys have not all gone on.
type formerLeft struct {
	Identity identityLeft
	Why      string        // in the words of the API
	Ended    time.Duration // when
	Until    time.Duration // and until when its keys rest
	Unknown  bool          // it is whoever held a key before the start
}

// keyLeft is a key that is held or rests, and who waits for it. Exactly one of Session, Former and Place is not zero.
type keyLeft struct {
	Key     []byte
	Token   uint64 // 0 if no grant is known
	Since   time.Duration
	Session uint64 // the number of the connection that holds it
	Former  int    // whose it was: the place in the list of the loop, counted from 1
	Place   int    // of a fleet that holds it: its number in the list of Lines, counted from 1
	Queue   []waitLeft
}

// waitLeft is a wait for a key. Either Session or Place is not zero.
type waitLeft struct {
	Session uint64 // the number of the connection that waits
	Place   int    // of a fleet that waits: its number in the list of Lines, counted from 1
	Since   time.Duration
	Timeout time.Duration
	Suspect bool // it may be part of a deadlock
}

// countersLeft is what a worker has counted, in the words of the API.
type countersLeft struct {
	Commands  map[string]map[string]uint64 // by kind and outcome
	Ends      map[string]uint64            // of sessions, by reason
	LimitHits map[string]uint64
	Accepted  uint64
	Moves     uint64
	Grants    uint64
	Timeouts  uint64
	Paused    uint64
	Stalled   uint64
	Waits     map[string]histogramLeft // by how they ended
	Holds     histogramLeft
	Messages  uint64 // between loops, and the wake-ups that they needed
	WakeUps   uint64
}

// histogramLeft is a histogram.
type histogramLeft struct {
	Bounds []time.Duration
	Counts []uint64
	Sum    time.Duration
}

// deadlocksLeft is what the detector knows.
type deadlocksLeft struct {
	Found, Broken uint64
	Standing      []deadlockLeft
}

// deadlockLeft is a deadlock that stands.
type deadlockLeft struct {
	Number uint64
	Found  time.Time
	Waits  []edgeLeft // the youngest last
}

// edgeLeft is a wait of a deadlock. The rest of it is known by who waits.
type edgeLeft struct {
	Waiter uint64 // the number of the connection
	Serial uint32 // of the wait, see sessionLeft
	Grant  uint64 // the token of the key
}
