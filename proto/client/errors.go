package client

import "errors"

// The errors of this package. Calls return them wrapped with the operation, the key and the cause. If a context has ended,
// they return its Err.
var (
	// ErrTimeout: somebody else held the key until the wait was over; with TryLock, at once.
	ErrTimeout = errors.New("client: timed out waiting for the key")
	// ErrConnectionLost: the connection ended. From Lock and TryLock: before the answer came, in every attempt. From
	// Unlock, and as the cause of a lock's context: somebody else may hold the key by now.
	ErrConnectionLost = errors.New("client: connection lost")
	// ErrUnreachable: no attempt to connect succeeded. The error of the last one is wrapped as well.
	ErrUnreachable = errors.New("client: the server cannot be reached")
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
