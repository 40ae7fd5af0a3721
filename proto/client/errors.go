package client

import "errors"

// The errors of this package. Those that calls return are wrapped with what was done and what happened; a context that
// ended is its Err.
var (
	// ErrTimeout: somebody else held the key until the wait ran out; with TryLock, at once.
	ErrTimeout = errors.New("client: the wait ran out")
	// ErrConnectionLost: the connection ended. From Lock and TryLock: it did before the answer came, in all attempts.
	// From Unlock, and as the cause of a lock's context: somebody else may hold the key by now.
	ErrConnectionLost = errors.New("client: connection lost")
	// ErrUnreachable: no connection could be made in all attempts. The error of the last one is wrapped as well.
	ErrUnreachable = errors.New("client: the server cannot be reached")
	// ErrProtocol: what came was no answer. The other side is hardly a lock daemon.
	ErrProtocol = errors.New("client: not an answer of a lock daemon")
	// ErrUnlocked: the lock was unlocked before. It is the cause of the context of such a lock.
	ErrUnlocked = errors.New("client: unlocked")
	// ErrClosed: the client was closed before.
	ErrClosed = errors.New("client: closed")
)

// ServerError is what the server said instead of doing what it was asked: errors.As finds a *ServerError.
type ServerError struct {
	Text string // such as "too many connections", behind the "e " of the answer
}

// Error returns the text and whose it is.
func (e *ServerError) Error() string { return "client: the server says: " + e.Text }
