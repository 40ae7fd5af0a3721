// Package proto is the wire protocol of the lock daemon, both ends of it: bytes to commands and replies for the server,
// commands to bytes and bytes to answers for a client. It does no I/O and knows nothing of locks.
//
// A command, to the byte:
//
//	command = ( lock | unlock | fence | name | owner ) CR LF
//	lock    = "lock"   1*SP key 1*SP timeout *SP       every keyword in any case: LoCk
//	unlock  = "unlock" 1*SP key *SP
//	fence   = "fence"  1*SP key *SP
//	name    = "name"   1*SP text *SP
//	owner   = "owner"  1*SP id *SP
//	key     = 1*( A-Z / a-z / 0-9 )                    case matters; "lock" is a valid key
//	timeout = 1*DIGIT                                  milliseconds; leading zeros allowed; saturates at MaxTimeout
//	text    = 1*128( %x21-7E )                         one word of printable ASCII
//	id      = 1*64( A-Z / a-z / 0-9 )
//
// Nothing else: no leading spaces, no tabs, no empty lines, no bare CR or LF, no sign. A command has at most MaxCommand
// bytes, CR LF included. The first byte that cannot continue a command is a syntax error, at once and at that byte,
// whatever follows it; of a command that is too long it is byte MaxCommand+1.
//
// The replies, one line each:
//
//	l locked                     the key is now held by this connection
//	t timeout                    the time ran out first
//	u unlocked                   released; the next waiter has it
//	f <token>                    this connection holds the key under this fencing token, 1 to 2^63-1
//	n named <silence> <space>    the connection has that name from now on. silence: milliseconds after which a client
//	                             whose host has vanished loses its keys; space: 16 hexadecimal digits, the lock table
//	o owned                      the connection belongs to that owner from now on
//	e already locked             lock of a key that this connection holds; at once, whatever the timeout
//	e not locked                 unlock or fence of a key that nobody holds
//	e not owner                  unlock or fence of a key that somebody else holds
//	e kicked                     an operator closed the connection while it waited; it is closed after it
//	e deadlock                   the wait was part of a deadlock and was ended, if the server is told to do so
//	e too many keys              the limit of keys, or of their bytes, that one connection may hold; what it holds, it keeps
//	e out of memory              the limit of the whole server: nothing that is held is lost, and unlocks work. Sent unasked, it
//	                             is the limit for a new connection, which is closed after it
//	e too many connections       the connection limit; the connection is closed after it
//
// A syntax error has no reply: the connection ends.
//
// What Parser guarantees:
//
//   - the same commands and the same error for every fragmentation of the same bytes;
//   - it reads no byte after the command that it returns, so that a caller can stop between two commands of a pipeline
//     and go on later;
//   - it reads each byte once, with two exceptions: a keyword may be compared first as a word and then letter by letter,
//     and an argument that is too long is read twice, after which the connection ends;
//   - no allocation for a command that lies whole in the input, and none for a split one once the parser's storage has
//     grown to the connection's arguments (never beyond MaxCommand bytes);
//   - input of any kind never makes it panic.
//
// A Parser belongs to one connection and is not safe for concurrent use; a server calls it on the loop that owns the
// connection. All functions are safe from any goroutine.
//
// # Adding a command
//
// The files that a new command touches:
//
//  1. proto/command.go: its Kind, and its entry in the table: keyword, arguments, replies. For a new reply also reply.go:
//     one constant and one entry. The parser's states, the reasons of syntax errors, the counters and the metrics follow
//     from the tables.
//  2. proto/doc.go and proto/README.md: its grammar and its replies.
//  3. proto/append.go: the function that writes it, for clients; proto/client where the client sends it.
//  4. server/shard.go for what it does to a key, server/session.go and execute.go for what it does to its connection.
//  5. The tests: the grammar in proto/grammar_test.go, and what it does in those of server.
//
// Start reading at the table in command.go, then Parser.Next.
package proto
