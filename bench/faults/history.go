package faults

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The answers of the daemon.
const (
	locked        = "l locked"
	timedOut      = "t timeout"
	unlocked      = "u unlocked"
	alreadyLocked = "e already locked"
	notLocked     = "e not locked"
	notOwner      = "e not owner"
	named         = "n named" // and two words, see kind
	owned         = "o owned"
)

// verb is what a command does.
type verb uint8

const (
	lock verb = iota
	unlock
	fence
	name  // with the name as the key
	owner // with the owner as the key
)

func (v verb) String() string { return [...]string{"lock", "unlock", "fence", "name", "owner"}[v] }

// moment is a time since the clock of the histories began. All clients of a process share the clock.
type moment int64

const never moment = math.MaxInt64

var clock = time.Now()

func now() moment { return moment(time.Since(clock)) }

func (m moment) add(d time.Duration) moment { return m + moment(d) }

// operation is one command as its client saw it.
type operation struct {
	verb     verb
	key      string
	timeout  time.Duration
	sent     moment // before it was written
	answered moment // after its answer was read; never without one
	queued   moment // when it was known to wait in the daemon's queue; never if it was not
	reply    string

	// The token of a grant, and when its client knew it. The check finds them in the answers.
	token     uint64
	tokenRead moment
}

// session is what is known of one connection. Its operations belong to its client until the history is checked.
type session struct {
	id         int
	operations []operation // in the order in which they were sent

	// lost is from when on the daemon may have ended the connection: its client has, or its host has gone. Never if neither.
	lost atomic.Int64
	// ended is when the client saw that the daemon had ended the connection.
	ended moment
	cause error // by which the client saw that

	// node is the daemon of a fleet that the connection leads to, nil for a daemon that is alone.
	node *node
	// alive is the latest moment of which the client knows that the connection had not ended.
	alive moment
	// refused are writes that a resource did not take. See [resource].
	refused []refusal
}

// end says how the connection ended, and how long the session had been silent.
func (s *session) end() string {
	var last moment
	for i := range s.operations {
		last = s.operations[i].sent
		if at := s.operations[i].answered; at != never {
			last = at
		}
	}
	return fmt.Sprintf("%v, %s after its last command or answer", s.cause, time.Duration(s.ended-last).Round(time.Millisecond))
}

// mayEnd notes that the connection may end from now on. The first time counts.
func (s *session) mayEnd() { s.lost.CompareAndSwap(int64(never), int64(now())) }

// lostAt returns from when on the connection may have ended.
func (s *session) lostAt() moment { return moment(s.lost.Load()) }

// history is what the clients of one daemon saw.
type history struct {
	mu       sync.Mutex
	sessions []*session
}

// add returns a new session. It is safe from any goroutine.
func (h *history) add() *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &session{id: len(h.sessions), ended: never}
	s.lost.Store(int64(never))
	h.sessions = append(h.sessions, s)
	return s
}
