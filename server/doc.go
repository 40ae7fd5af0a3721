// Package server is the lock daemon: it joins the event loops of reactor, the lock tables of lockmgr and the protocol
// of proto.
//
//	connection ─► session ─► request ─► shard of the key ─► answer ─► session ─► connection
//	              its loop              that loop's table             its loop
//
// A way is where clients come in, as an option says it; an entrance is a socket of it that is open, and an arrival a connection
// that has come by it and has no session yet.
//
// A session is our state for one connection. It lives on the loop that got the connection, and moves to another one if
// it goes on using the keys of that. A roster is the sessions of one loop, a shard the keys that one loop owns, chosen by
// their hashes; a worker has both. If a command is for a key of the session's own loop, the shard executes it at once.
// Otherwise the request travels to the other loop as a message, and comes back with the answer.
//
// # The life of a command
//
//  1. session.Data gets bytes, and session.execute parses one command.
//  2. session.command fills in the request and calls shard.execute, or posts the request to the other loop, whose shard
//     serves it. While the answer is outstanding, further input is pending.
//  3. The table answers, or queues the request. A queued request has a timer in the wheel of the shard's loop. Its wait is
//     ended by whatever comes first there: a grant, the timer, or the end of the session.
//  4. session.answered appends the reply and runs the pending input. The replies of a turn leave in one write.
//
// A session that has more to execute than a turn of its loop allows keeps that as pending input, and waits among the turns of
// its roster: see turns.go.
//
// # What is guaranteed
//
//   - A request has one outcome, decided on the loop of its shard.
//   - A session that ends holds nothing and waits for nothing from the same turn on, on its own loop, and from the next
//     message on, on the others: whoever asks finds its keys free. That message leaves before the socket is closed: who has
//     seen the end and asks then comes after it, unless that loop has more messages than a turn can handle. Where it held
//     more than a turn can pass on, those who wait for the rest are granted it in the turns that follow; until then such a
//     key is shown with its last holder, and counted as held by nobody. A grant that crosses the end of the session is
//     released by that message.
//   - No client keeps the others of its loop waiting for more than a few milliseconds, whatever it sends, holds, or ends.
//   - Answers come in the order of the commands. The end of the input does not lose those that need no waiting.
//   - A client that sends without reading, or while it waits, is held back by TCP. What it costs is bounded, and what all cost
//     together is: see memory.go.
//   - A drain lets those who hold a key or wait for one finish, and serves nobody else. It ends when nobody holds a key, or
//     when its time is up.
//   - Once the server stops, nothing is granted any more: whoever was told that he holds a key learns that he lost it
//     before anybody else can be told the same. The log names what is lost.
//
// # A fleet
//
// With [Config.Fleet] several servers, on machines of their own, share one lock space. They meet in a store, in which each stands in
// line for a key by a place; its clients stand behind that in its memory.
//
//	store  k: ours     theirs    ours
//	             │        │         │      a lock of k stands at the end if the last place is ours;
//	table  k: a <- b   (theirs)  c  ◄───── otherwise it waits behind a place that is to come
//
// The table grants the key to a place of theirs when our clients before it are done; then ours is left, and the others see it go.
//
//   - Who has asked when another stood in line already gets the key after that one, within a server always. Between servers the order
//     is that of the store, which lags behind what clients send by the time of one write.
//   - A grant is told only while the lease of the server lasts for certain. When that is over, or a place is gone that was not left,
//     all who hold or wait are dropped, before the store gives their keys to others. A server that is stopped for longer than its lease
//     cannot tell its clients in time: only the fencing token protects then.
//   - The fencing token of a grant is that of the place, by its revision in the store, and the number of the grant under it.
//   - A try, and an unlock or a fence of a key that the session does not hold, waits for the store where no place of ours stands.
//     If that takes too long the key is taken to be somebody's. These are answered also after the end of the input.
//   - A place without clients is kept for some seconds, if no other server waits.
//   - With a lock delay the lease lasts longer by that than anybody is told. So the keys of a server that has died rest for all others,
//     also for those that start meanwhile, and nothing rests only because a server has started.
//   - Deadlocks are seen among the connections of one server only. Kicks and releases are for what is held here; what is elsewhere is
//     shown as the server that has it.
//
// # A takeover
//
// A server hands over all that its clients could miss to a successor, a server in another process, and is the predecessor then. Package
// takeover has what the two say to each other.
//
//	predecessor   serves ───────────► stands still: estate ──► commit ──► leaves
//	successor     listens, makes room ──────────► restores, verifies ──► ack: serves
//
// Clients notice a pause, and this holds:
//
//   - Before the commit the predecessor goes on after any failure, and the successor has read no byte of a client and told nobody
//     anything. After it only the successor decides. So there are never two that grant; if there is none, both processes have died.
//   - A request has one outcome, decided before or after. The successor goes on with the predecessor's clock, so no wait ends early, and
//     compares a digest of all keys, holders and queues with the predecessor's.
//   - The estate names by numbers what it refers to, and is read by other versions: estate.go has the rules.
//   - The sessions of connections that cannot be handed over, those by TLS, end when the predecessor has left: nobody is given their keys
//     before they can know.
//
// # What is seen from outside
//
// Server.Keys, Connections, Status and the like answer an operator's queries, Server.Kick ends a connection, and Server.Drain
// the server. They run as tasks on the loops, in short steps between the turns of the clients, with a rest after each. The
// detector, a goroutine, looks in the same way, without the rests, for connections that wait for one another, as soon as one
// waits that holds a key or has an owner. What clients do wrong is logged by package noise, which one client cannot flood.
//
// New makes a server from a Config, and Server.Run serves. Start reading at worker.go, session.go, execute.go and shard.go; arrival.go says
// how a connection gets there, request.go what belongs to which loop, closing.go how sessions end, drain.go and stop.go how
// the server does, move.go why sessions change loops; lines.go and place.go how keys are shared, member.go what the store of a
// fleet says; handover.go and inherit.go how it goes on in another process; memory.go what happens when memory is short, search.go how
// the end of a client is noticed that is not read; task.go begins what is seen from outside, waitfor.go says when a
// deadlock is believed. sim_test.go drives all of it without sockets and time.
package server
