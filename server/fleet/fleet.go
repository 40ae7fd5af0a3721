// Package fleet is what a server sees of the store that it shares with the other daemons of its fleet.
//
// # Places
//
// A daemon stands in line for a key, and its clients stand in line behind it, in its memory. The store keeps the lines: a place
// belongs to a key and to the lease of a daemon, and comes after all places that were made before it. Whoever has the first
// place has the key. A place that is left, or whose lease has ended, is gone.
//
// All daemons see all places, in one order. A daemon leaves its place when none of its clients needs the key any more, and
// another daemon waits; so the order of the lines is what grants keys, and nobody has to be asked.
//
// A try is a place of somebody who does not want to wait. The daemon whose client holds the key refuses it.
//
// # Time
//
// The lease of a daemon ends some time after the daemon was last heard. So that no two clients can be told that they hold a key,
// a session says until when a grant may be told, which is well before the lease can end.
package fleet

import (
	"fmt"
	"time"
)

// Place is a place in the line for a key. Places of one key differ, of all daemons and at all times.
type Place struct {
	Lease int64  // of the daemon whose place it is
	Seq   uint64 // among the places of that lease
}

// String returns the place for messages.
func (p Place) String() string { return fmt.Sprintf("%x.%d", p.Lease, p.Seq) }

// Change is a place that has come or gone.
type Change struct {
	Key   []byte
	Place Place
	// Try says that whoever made the place does not want to wait.
	Try bool
	// Gone says that the place was left, or refused, or that its lease has ended; otherwise it is the last of its line now.
	Gone bool
	// Revision is when the place was made. Of two places of one key the later one has the greater revision, or the same and
	// was made by the same transaction of one daemon.
	Revision uint64
}

// Session is the time for which a daemon has a lease. Its methods are safe from any goroutine, and never block. Once it is lost,
// they do nothing.
type Session interface {
	// Lease is the lease: places with it are those of this daemon.
	Lease() int64
	// Join asks for a place, which comes as a change.
	Join(key []byte, try bool) (seq uint64)
	// Leave gives up a place of this daemon, which goes as a change. A place that does not exist stays away.
	Leave(key []byte, seq uint64)
	// Refuse takes away a try of another daemon, unless this daemon has not got the place with the given seq any more: then
	// it has nothing to say.
	Refuse(key []byte, try Place, seq uint64)
	// Lose says that a place of this daemon is gone that it has not left. The store ends the session; from now on Until is 0.
	Lose()
	// Until returns the time on CLOCK_BOOTTIME until which a grant may be told. It is 0 once the session is lost.
	Until() time.Duration
}

// Member is a daemon, as the store sees it. A store calls its methods one at a time.
type Member interface {
	// Found begins a session. What follows first are changes that make the places that there are.
	Found(s Session)
	// Changed tells the changes of a session, in the order of the store. It does not wait until they are dealt with, and
	// keeps nothing of the slice.
	Changed(s Session, changes []Change)
	// Lost ends the session. When it returns, no client believes any more that it holds a key, as far as that can be told, and
	// the lease may be ended. If keys rest that were held, see Rest, that must be left to the store: it must not be revoked.
	Lost(s Session, reason error) (rests bool)
	// Rest returns the lock delay: how long a key is kept from the next holder whose client was lost. The lease has to last that
	// much longer than it would otherwise, which Until does not heed. So the places of a daemon that has died stay for that long, and
	// all who come see them. It is the same at all times.
	Rest() time.Duration
}
