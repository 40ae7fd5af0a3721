// Package client takes locks at a lock daemon or a fleet of them, and tells a holder when it has lost its lock.
//
//	             ┌─ Client ─────────────────────────────┐
//	Lock ───────►│ idle connections ── none ──► dial    │
//	             │   ▲        │                   │     │      ┌─ server ─────────┐
//	             │   │        └─► one connection ◄┘─────┼─────►│ one session each │
//	Unlock ─────►│   └── unlocked ──── │                │      └──────────────────┘
//	             └─────────────────────┼────────────────┘
//	Lost, Context ◄── reader: the connection has ended
//
// # A lock owns its connection
//
// A lock has a connection of its own from the moment it is asked for until it is unlocked. The protocol would allow one
// connection to hold many keys, but
//
//   - a connection that waits can do nothing else: an unlock would have to wait for somebody else's lock;
//   - the only way to leave a queue is to close the connection, and that would free the other keys too;
//   - to the server a connection is one holder, so two goroutines that share one would be told "already locked" where
//     they should wait for each other.
//
// A connection costs the server about 1.3 KiB, and the process a goroutine and a few KiB. Some are kept when they are idle,
// so that TryLock and Unlock take one round trip each. The number in use has no limit: with one, a goroutine that holds a
// lock and asks for another could wait for goroutines that wait for it. A program that starts goroutines without a limit
// should limit those.
//
// # What is guaranteed
//
//   - A call whose context ends returns at once and holds nothing: it closes its connection, which takes it out of the
//     queue, and frees the key if the grant had crossed it.
//   - After Unlock has returned, whatever it returned, the process does not hold the key: the server has said so, or the
//     connection is closed, and the server frees the key when it sees that.
//   - If a connection ends before the answer to a lock, or the server cannot be reached or has no room, the client asks
//     again on a new one, with what is left of the wait and at the end of the queue, until the wait or the context is over.
//     That is safe, since the end of the connection frees what it may have been granted.
//   - A lock that was lost is never taken again by itself: somebody else may have had the key in the meantime.
//   - Lock.Lost is closed as soon as the connection of a held lock ends, and Lock.Context is done.
//   - If the way to the server is cut without a word, in one direction or both, Lost is closed when half of the time is over
//     after which the server gives the key to another, at the latest: see Silence. The other half is for the work to end, and
//     Lock.Until says how long that is. This needs a server that announces that time; with an older one, Lost is closed after
//     twice Options.KeepAlive, and whether that is early enough depends on the server's keepalive.
//
// # How to hold a lock
//
// Do the work under Lock.Context, in calls that end when it is done; see the example there. Where the connection ends, the
// holder learns of it a moment after the server. And whatever is agreed about silence, the process may have been stopped or
// suspended in the meantime, and a write that is on its way cannot be called back. Where two writers at a time would destroy
// something, the resource itself must refuse the older one. Options.Fence and Lock.Token give it a number to compare; a lock
// alone cannot do it.
//
// If the server's host is reachable but the server does not answer, calls wait until their contexts end; a lock that is held is
// lost, as with a host that is not reachable.
//
// # Ways to the server
//
// The address says how to connect: host:port is plain TCP, tls://host:port is TLS, and unix:///path is a Unix socket. All
// of the above is true of each. With TLS the server's certificate is checked, and must be for the host of the address;
// Options.TLS has the authorities, and the certificate of the client if the server wants one. A handshake that fails
// because one side does not accept the other is ErrHandshake, which is not tried again; one that is interrupted is.
//
// # Several servers
//
// The servers of a fleet are one lock table to their clients. A client is given some of them, with commas in between, or a name
// that has several addresses. It asks all at once who they are, and goes to one of those that answer: a random one, so that clients
// spread over the fleet, unless Options.First says which. It stays there, with all its connections, until one cannot be made; then it
// asks all again. A call that waits when its server goes asks for the key at another one, at the end of the queue; a lock
// that is held is lost with its server.
//
// Servers that are no fleet have a lock table each: two clients could hold one key. Each server says which table it has, so the
// client notices: Lock fails with a *TablesError, before a lock is told, if two servers that it reaches have two tables, and also if
// one address leads to two servers. It cannot see the table of a server that it does not reach. A call that stood in the queue of a
// server and has lost it does not go on in another table, unless that server has come back with the same new one, or is no longer
// among the addresses: it waits for that as it waits for a server that is away. A server that was started again at its address has
// a new table, and that is no error: what was held is lost, and known to be.
//
// # Several locks
//
// Two goroutines that take two keys in two orders wait for each other for ever, and so do two programs. The server finds that
// if it knows which locks stay held while a call waits: give the call the context of the innermost lock that it is needed
// under.
//
//	a, err := c.Lock(ctx, "a", -1)
//	b, err := c.Lock(a.Context(), "b", -1) // a is not released before this returns
//
// The server then shows the deadlock, and one that is to break deadlocks answers the youngest call, with a *ServerError. Locks
// that are taken with unrelated contexts are never taken for one another's. WithOwner and Options.Owner are for programs that
// know more than their contexts tell.
//
// # Names and older servers
//
// Every connection has a name, by which people see who holds and who waits: Options.Name. It is said in the same write as
// the first request. The answer tells what the client should know of its server: after what time it takes a silent client
// for dead, and which lock table it has.
//
// A server that does not have the word ends the connection there. The client then asks again on another connection, after a
// command that every server answers. Only if the name is what ends that one as well, it is an older server, and the client
// does without names, owners and fencing tokens. It tries them again when that server has ended a connection, since its
// successor may be a newer one, and after a minute.
//
// All methods are safe from any goroutine. Start reading at Client.Lock, then conn.go; silence.go says what is done about
// silence, and pulse.go does it; survey.go chooses one of several servers, and tables.go compares their lock tables.
package client
