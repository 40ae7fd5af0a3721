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
	// ErrUnreachable: no attempt to connect succeeded until the wait was over. The error of the last one is wrapped as well.
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
