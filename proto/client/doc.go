// Package client locks keys at a lock daemon, and tells a holder when it has lost its lock.
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
// From the moment it is asked for until it is unlocked, a lock has a connection for itself. The protocol would let one
// connection hold many keys, but
//
//   - a connection that waits can do nothing else: an unlock would stand behind the wait of somebody else;
//   - the only way to leave a queue is to close the connection, and that would free the other keys too;
//   - to the server a connection is one holder, so two goroutines that share one would get "already locked" from it
//     where they should wait for each other.
//
// A connection costs the server about 1.3 KiB, and the process a goroutine and a few KiB. A few are kept when they are
// idle, so that TryLock and Unlock are two round trips. Nothing bounds the number in use: a goroutine that holds one
// lock and asks for the next would wait for those that wait for it. Whoever starts goroutines without bound bounds them.
//
// # What is guaranteed
//
//   - A call whose context ends returns at once and holds nothing: it closes its connection, which takes it out of the
//     queue, and frees the key if the grant had crossed it.
//   - After Unlock has returned, whatever it returned, the process holds nothing: the server has said so, or the
//     connection is closed, and the server frees the key when it sees that.
//   - A request whose connection ended before the answer is made again on a new one, with what is left of the wait and
//     at the end of the queue. That is safe, since the end of the connection frees what it may have been granted.
//   - A held lock is never made up again: another may have had the key meanwhile.
//   - Lock.Lost is closed as soon as the connection of a held lock ends, and Lock.Context is done. Where the server's
//     host vanished without a word, that takes Options.KeepAlive twice. By default that is half of the time after which
//     the server takes a silent client for dead: a holder that is cut off learns it before the key goes to another.
//
// # How to hold a lock
//
// Do the work under Lock.Context, in calls that end when it is done; see the example there. A lock is a lease on the
// word of the server, and the holder learns of its end a moment later: the process may have been stopped or suspended
// meanwhile, and a write that is on its way cannot be called back. Where two writers at once would destroy something,
// let the resource itself refuse the older one (a fencing token, a version that must match); a lock alone cannot.
//
// A server that is there and does not answer is waited for until the context ends.
//
// All methods are safe from any goroutine. Start reading at Client.Lock, then conn.go.
package client
