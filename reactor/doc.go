// Package reactor runs the event loops: gnet loops, each with a mailbox and a timing wheel. It knows nothing of locks.
//
//	             ┌─ loop ────────────────────────────────┐
//	acceptors ──►│ Handler.Accept                        │
//	sockets ────►│ Client.Opened, Data, Closed ...       │
//	other loops ►│ mailbox ──► Handler.Receive           │──► Post: mailboxes of other loops
//	ticker ─────►│ wheel ────► Handler.Expire            │
//	             │ what is left ► Handler.Continue       │
//	             │ at the end of each turn: EndTurn,     │
//	             │ Closed, then the messages leave       │
//	             └───────────────────────────────────────┘
//
// # Threading
//
// These are the rules of the whole daemon; nothing else states them.
//
//   - A loop is one goroutine. Everything belongs to exactly one loop, and only that loop touches it; what other goroutines
//     reach is atomic, or guarded by a mutex that guards nothing else, and says so. The mutexes on the way of a
//     client are taken when its connection is accepted.
//   - A connection belongs to its acceptor, then to the loop that it was enrolled on, until it moves to another and all of it
//     with it.
//   - A loop never blocks: it waits for no channel, no mutex that is held for long, no other loop and no log. It does so on purpose,
//     for a bounded time, while all loops stand still.
//   - Loops talk by messages. A message hands over what it carries: from Post on, it is the receiver's.
//   - Messages from one loop to another arrive in the order in which they were posted.
//   - A turn is what a loop does for one event. Messages that are posted in a turn leave at its end, together, and before a
//     socket that we close in it. A loop is woken only if its mailbox was empty, so one wake-up serves a batch.
//   - A turn is bounded: see below.
//   - No method of Conn calls its client. The client of a connection that is closed, or breaks in a Write, hears of it by Closed
//     at the end of the turn, after EndTurn, which is called again.
//
// # Turns
//
// A turn has a budget: some thousand units, each a command or what takes as long, and a millisecond. Whatever can be much
// asks [Loop.Spend] before each piece and stops when nothing is left: messages, timers, ends of connections, and what the handler
// does. Spend reads the clock every 64 units, so it costs next to nothing.
//
// What is left must be kept where EndTurn sees it. The loop is then behind: it wakes itself, which comes after the sockets that
// epoll has to report, and the turn of that wake-up goes on with what is left, by [Handler.Continue]. Until then the turns of the
// sockets share one budget. So between two looks at the same socket lie a millisecond and little for each other socket, however
// much there is to do.
//
// Each part of a turn, and each turn of a loop that is behind, may do a little in any case: 64 units. So nothing
// starves: neither timers in a flood of messages, nor a client with one command among those who have thousands. Work of one
// kind is done in the order in which it was left.
//
// In builds with the race detector, [Loop.AssertOn] panics where something is touched on a loop that does not own it.
//
// # Processors
//
// A loop that sleeps in epoll_wait keeps its P, the runtime's right to run Go code, until sysmon takes that away, which may
// take 10 ms. With as many loops as Ps nothing else of the process runs meanwhile: neither the ticker nor an accepted
// connection's goroutine nor the admin interface. And the loops pay for the tug-of-war. So a program that runs a reactor
// sets GOMAXPROCS above the number of loops: [Procs] says how far.
//
// # Time
//
// A wheel has no clock; it is told what tick it is. The ticker is a goroutine that sleeps until the first timer of all
// loops is due and wakes the loops in question. It also wakes again whom a system call has failed to wake (wake.go).
// While no timer runs it sleeps for ever: an idle server does nothing. A
// timer never ends early; it ends late by at most one tick and what the loop is busy with.
//
// # What is not left to gnet
//
// Accepting is ours: gnet ends its loops when an accept fails, and shares the port with every process that wants it. Here a
// goroutine for each listener accepts, waits out a shortage of descriptors or memory, and enrolls the connection on the loop
// with the fewest (accept.go, enroll.go). Run turns the end of a loop into an error. Conn keeps writes
// away from descriptors that are somebody else's by now, keeps what a peer does not take at once (output.go), holds back a
// peer that sends or does not read more than is good (poll.go, sip.go), finds out that a peer's host has vanished (silence.go), and
// keeps the socket of a peer that has ended its side while answers are owed.
//
// TLS works over memory on the loop once its handshake is done (tls.go), so that an encrypted connection costs no goroutine.
//
// # Another process goes on
//
// A process can hand its connections to a successor, and the clients notice nothing but a pause. In the predecessor accepting
// pauses (pause.go), the loops stand still (standstill.go), and each connection is exported (adopt.go). The successor has
// made gnet connections that lead nowhere (blank.go), has its loops stand still as well, and puts the sockets in their
// place (heir.go). It reads and writes nothing before it begins, and the predecessor changes nothing, so the one can go on if
// the other fails.
//
// Start reading at loop.go, then budget.go, conn.go, mailbox.go and wheel.go; move.go has how a connection changes its loop,
// halfclose.go what happens when the peer has ended its side.
package reactor
