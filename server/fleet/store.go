package fleet

import (
	"context"

	"dreadlock/server/api"
)

// Store is where the daemons of a fleet meet. Its methods are safe from any goroutine.
type Store interface {
	Handover
	// Run keeps the member in touch with the store, until ctx is done: it begins a session as soon as the store answers, and another one
	// whenever one is lost. It waits for a store that cannot be reached, as long as it takes, and says so in the log. When ctx is
	// done it tells the member that the session is lost, ends the lease, so that the others need not wait for that, and returns. A server
	// ends ctx when none of its clients can be told anything any more. Run is to be called once.
	Run(ctx context.Context, m Member)
	// Status returns what is known about the fleet. It asks nobody.
	Status() *api.Fleet
	// Space returns a number that names the lock space, the same for all daemons of the fleet and all their starts. It is 0 until the
	// daemon was in touch for the first time.
	Space() uint64
	// Address returns where the daemon with that lease is reached, empty if that is not known. It is for people, and cheap.
	Address(lease int64) string
}
