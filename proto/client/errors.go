package client

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// The errors of this package. Calls return them wrapped with the operation, the key and the cause. If a context has ended,
// they return its Err.
var (
	// ErrTimeout: somebody else held the key until the wait was over; with TryLock, at once.
	ErrTimeout = errors.New("client: timed out waiting for the key")
	// ErrConnectionLost: the connection ended. From Lock and TryLock: before the answer came, in every attempt. From
	// Unlock, and as the cause of a lock's context: somebody else may hold the key by now.
	ErrConnectionLost = errors.New("client: connection lost")
	// ErrUnreachable: no attempt to connect succeeded until the wait was over. The error of the last one is wrapped as well; with
	// several servers it is a *ServersError.
	ErrUnreachable = errors.New("client: the server cannot be reached")
	// ErrHandshake: with TLS, server and client do not accept each other: the certificate of one of them is missing, has
	// expired, or is from an authority that the other one does not know; that of the server is for another name; or what
	// listens there does not speak TLS. The text says which, and the cause is wrapped as well. There is no second attempt.
	ErrHandshake = errors.New("client: TLS handshake failed")
	// ErrAddress: the address cannot be read; see ParseAddress. Or Options.TLS is set and the address has no tls://.
	ErrAddress = errors.New("client: invalid address")
	// ErrProtocol: the server sent something that is not the answer to the command. It is probably not a lock daemon.
	ErrProtocol = errors.New("client: not an answer of a lock daemon")
	// ErrUnlocked: the lock was unlocked before. It is also the cause of the context of a lock that was unlocked.
	ErrUnlocked = errors.New("client: unlocked")
	// ErrClosed: the client is closed.
	ErrClosed = errors.New("client: closed")
)

// ServerError is an error that the server answered. Find it with errors.As, as a *ServerError.
type ServerError struct {
	Text string // such as "too many connections": the answer without its "e "
}

// Error returns the text, and says that it is the server's.
func (e *ServerError) Error() string { return "client: the server says: " + e.Text }

// TablesError says that the servers of a client are two lock tables, not a fleet, or that one address leads to two servers. A lock at
// one says nothing at the other, so the client uses neither. Find it with errors.As, as a *TablesError.
type TablesError struct {
	One   string // a server
	Other string // another one; the same if one address leads to two; empty if the server is too old to say which table it has
}

// Error says which servers they are.
func (e *TablesError) Error() string {
	switch e.Other {
	case "":
		return "client: " + e.One + " is too old to say which lock table it has: it cannot be one of several servers"
	case e.One:
		return "client: " + e.One + " leads to two lock tables, not to one server or a fleet: a lock in one says nothing in the other"
	}
	return "client: " + e.One + " and " + e.Other + " are two lock tables, not a fleet: a lock at one says nothing at the other"
}

// OtherTableError says that the call stood in the queue of a server that is gone, and that those that are there have another lock
// table. The call waits until its server is back: it wraps ErrUnreachable. Find it with errors.As, as a *OtherTableError.
type OtherTableError struct {
	Former string // the server that is gone
	Other  string // one that is there
}

// Error says which servers they are.
func (e *OtherTableError) Error() string {
	return "client: " + e.Other + " has another lock table than " + e.Former + ", where the wait stood in line"
}

// Unwrap returns ErrUnreachable.
func (e *OtherTableError) Unwrap() error { return ErrUnreachable }

// ServersError says why none of several servers could be used. It wraps all their errors. Find it with errors.As, as a
// *ServersError.
type ServersError struct {
	Failures []Failure
}

// Failure is why a server could not be used.
type Failure struct {
	Server string // its address
	Err    error
}

// Error names all servers, with the reasons in short.
func (e *ServersError) Error() string {
	all := make([]string, len(e.Failures))
	for i, f := range e.Failures {
		reason := f.Err.Error()
		if op := (*net.OpError)(nil); errors.As(f.Err, &op) {
			reason = op.Err.Error()
		}
		all[i] = fmt.Sprintf("%s: %s", f.Server, strings.TrimPrefix(reason, "client: "))
	}
	return "client: no server can be used: " + strings.Join(all, "; ")
}

// Unwrap returns the errors of the servers.
func (e *ServersError) Unwrap() []error {
	all := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		all[i] = f.Err
	}
	return all
}
