package client

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Two daemons that are no fleet have two lock tables. If a client took one of them for the other, two clients would hold one key.
// So each server says, in its answer to the name of a connection, which table it has: all of a fleet have one and the same, and a
// server that was started again has a new one, as what was held there is gone. The client uses one table at a time:
//
//   - the servers that it can reach have the same one, or it uses none: see survey.go;
//   - where the table is another one than before, the former one must be gone. It is not if a lock that is held there is
//     confirmed, and not if it is seen again: then one address leads to two servers, as with a balancer before them;
//   - a wait that has lost a server does not go on in another table as long as the former one may be served where it stood: its
//     server was not seen since.
//
// A connection is compared before the answer to its lock counts.

// tables is what a client knows about the lock tables of its servers. Its methods are safe from any goroutine.
type tables struct {
	gate chan struct{} // has room for the call that compares tables; the others wait for it

	mu       sync.Mutex
	space    uint64               // the table in use; 0 before the first
	seen     map[string]sighting  // by endpoint.where: of several servers, those that there are now
	replaced map[uint64]time.Time // tables that were in use, with the time of their end; not older than turnsTime
	open     map[*conn]struct{}   // the connections to a table that is known
	current  endpoint             // of several servers, that of new connections
	surveyed time.Time            // when all of them were asked; zero if they are to be asked again
}

// sighting is what an endpoint has said of itself.
type sighting struct {
	label string
	space uint64
}

const (
	// turnsTime is how long a client remembers a table that is gone. Only a server that is still there can be seen again.
	turnsTime = time.Minute
	// proofTime bounds how long the connection of a held lock may take to answer. Another one to the same servers has just
	// been answered.
	proofTime = time.Second
)

// errReplaced is why connections end whose table is gone.
var errReplaced = errors.New("the server has a new lock table: it was started again")

func newTables() tables {
	return tables{
		gate: make(chan struct{}, 1), seen: make(map[string]sighting), replaced: make(map[uint64]time.Time), open: make(map[*conn]struct{}),
	}
}

// admit compares the table of a connection that was told its name with the one in use. The error is a *TablesError,
// ErrConnectionLost, ErrUnreachable or that of the context; the connection is not to be used then.
func (t *tables) admit(ctx context.Context, cn *conn) error {
	if cn.server.space == 0 || t.join(cn) {
		return nil
	}
	if err := t.enter(ctx); err != nil {
		return err
	}
	defer t.leave()
	return t.use(ctx, cn)
}

// enter waits until the caller is the only one that compares tables. The error is that of the context.
func (t *tables) enter(ctx context.Context) error {
	select {
	case t.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave ends what enter began.
func (t *tables) leave() { <-t.gate }

// join counts a connection among those to the table in use, and reports whether it is one of them. The first connection
// decides which table that is.
func (t *tables) join(cn *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.space == 0 {
		t.space = cn.server.space
	}
	if t.space != cn.server.space {
		return false
	}
	t.seen[cn.to.where] = sighting{cn.to.label, t.space}
	t.open[cn] = struct{}{}
	if !cn.alive() { // and may have been removed before
		delete(t.open, cn)
	}
	return true
}

// remove forgets a connection that has ended.
func (t *tables) remove(cn *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, cn)
}

// use makes the table of a connection the one in use. Between enter and leave; the errors are those of admit.
func (t *tables) use(ctx context.Context, cn *conn) error {
	if t.join(cn) {
		return nil
	}
	former, err := t.outdated(cn)
	if err != nil {
		return err
	}
	for _, other := range former {
		alive, err := other.prove(ctx, proofTime)
		switch {
		case alive:
			return &TablesError{other.to.label, cn.to.label}
		case err != nil:
			return err
		}
	}
	t.mu.Lock()
	t.replaced[t.space] = time.Now()
	t.space = cn.server.space
	t.mu.Unlock()
	t.join(cn)
	return nil
}

// outdated returns the open connections to another table than that of a connection. It is an error if that one is known to be gone:
// either the connection is older than that, or the table is not gone.
func (t *tables) outdated(cn *conn) (former []*conn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for space, end := range t.replaced {
		if time.Since(end) > turnsTime {
			delete(t.replaced, space)
		}
	}
	if end, known := t.replaced[cn.server.space]; known {
		if cn.dialled.Before(end) {
			return nil, lost(errReplaced)
		}
		t.replaced[cn.server.space] = time.Now()
		return nil, &TablesError{cn.to.label, cn.to.label}
	}
	for other := range t.open {
		if other.server.space != cn.server.space {
			former = append(former, other)
		}
	}
	return former, nil
}

// mayGoOn reports whether a wait that stood in a table may go on in that of a connection. The error is an *OtherTableError: it may not as
// long as a server that had the former table does not say that it has another one now.
func (t *tables) mayGoOn(space uint64, cn *conn) error {
	if space == 0 || space == cn.server.space {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen {
		if s.space == space {
			return &OtherTableError{s.label, cn.to.label}
		}
	}
	return nil
}
