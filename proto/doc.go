// Package proto is the wire protocol of the lock daemon, both ends of it: bytes to commands for the server, commands to
// bytes for a client, and the replies. It does no I/O and knows nothing of locks.
//
// A command, to the byte:
//
//	command = ( lock | unlock ) CR LF
//	lock    = "lock"   1*SP key 1*SP timeout *SP       keyword in any case: LoCk
//	unlock  = "unlock" 1*SP key *SP
//	key     = 1*( A-Z / a-z / 0-9 )                    case matters; "lock" is a valid key
//	timeout = 1*DIGIT                                  milliseconds; leading zeros allowed; saturates at MaxTimeout
//
// Nothing else: no leading spaces, no tabs, no empty lines, no bare CR or LF, no sign. A command has at most MaxCommand
// bytes, CR LF included. The first byte that cannot continue a command is a syntax error, at once and at that byte,
// whatever follows it; of a command that is too long it is byte MaxCommand+1.
//
// The replies, one line each:
//
//	l locked                the key is now held by this connection
//	t timeout               the time ran out first
//	u unlocked              released; the next waiter has it
//	e already locked        lock of a key that this connection holds; at once, whatever the timeout
//	e not locked            unlock of a key that nobody holds
//	e not owner             unlock of a key that somebody else holds
//	e deadlock              the wait was part of a deadlock and was ended, if the server is told to do so
//	e too many connections  the connection limit; the connection is closed after it
//
// A syntax error has no reply: the connection ends.
//
// The parser's states, with what leads from one to the next; input may stop and go on anywhere:
//
//	begin ─► keyword ─SP─► before key ─► in key ─SP─► before timeout ─► in timeout ─SP─► tail
//	  ▲                                    │ unlock: SP to tail, or CR      │ CR           │ CR
//	  └──── LF ──── before LF ◄────────────┴────────────────────────────────┴──────────────┘
//
// What Parser guarantees:
//
//   - the same commands and the same error for every fragmentation of the same bytes;
//   - it looks at no byte twice and at none behind the command it returns, so that a caller can stop between two commands
//     of a pipeline and go on later;
//   - no allocation for a command that lies whole in the input, and none for a split one once the parser's storage has
//     grown to the connection's keys (never beyond MaxCommand bytes);
//   - input of any kind never makes it panic.
//
// A Parser belongs to one connection and is not safe for concurrent use; a server calls it on the loop that owns the
// connection. AppendLock, AppendUnlock and ValidKey serve clients and are safe from any goroutine.
//
// Start reading at Parser.Next.
package proto
