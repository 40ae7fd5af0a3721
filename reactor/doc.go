// Package reactor runs the event loops: gnet loops, each with a mailbox and a timing wheel. It knows nothing of locks.
//
//	             ┌─ loop ────────────────────────────────┐
//	sockets ────►│ Client.Opened, Data, Closed           │
//	other loops ►│ mailbox ──► Handler.Receive           │──► Post: mailboxes of other loops
//	ticker ─────►│ wheel ────► Handler.Expire            │
//	             │ at the end of each turn: Settle, send │
//	             └───────────────────────────────────────┘
//
// # Threading
//
// These are the rules of the whole daemon; nothing else states them.
//
//   - A loop is one goroutine. Everything belongs to exactly one loop, and only that loop touches it; what other
//     goroutines reach is atomic and says so. No mutex guards anything that a loop does for a client.
//   - A connection belongs to the loop that accepted it, until it moves to another and all of it with it.
//   - A loop never blocks: it waits for no channel, no mutex that is held for long, no other loop and no log.
//   - Loops talk by messages. A message hands over what it carries: from Post on, it is the receiver's.
//   - Messages from one loop to another arrive in the order in which they were posted.
//   - A turn is what a loop does for one event. Messages that are posted in a turn leave at its end, together. A loop
//     is woken only if its mailbox was empty, so one wake-up serves a batch.
//   - A turn is bounded: so many messages, so many timers, so much input. What is left waits behind the sockets.
//   - Conn.Write and Conn.Close may call Client.Closed before they return. Whoever writes looks afterwards whether his
//     client still lives, and never writes in the middle of other work: that is what Settle is for.
//
// # Time
//
// A wheel has no clock; it is told what tick it is. The ticker is a goroutine that sleeps until the first timer of all
// loops is due and wakes the loops in question. While no timer runs it sleeps for ever: an idle server does nothing. A
// timer never ends early; it ends late by at most one tick and what the loop is busy with.
//
// # What is not left to gnet
//
// Listen keeps a second process from sharing the port. Run turns the end of the loops into an error. Conn keeps writes
// away from descriptors that are somebody else's by now, and holds back a peer that sends or does not read more than is
// good. poll.go says how.
//
// Start reading at loop.go, then conn.go, mailbox.go and wheel.go; move.go has how a connection changes its loop.
package reactor
