// Package server is the lock daemon: it joins the event loops of reactor, the lock tables of lockmgr and the protocol
// of proto.
//
//	connection ─► session ─► request ─► shard of the key ─► answer ─► session ─► connection
//	              its loop              that loop's table             its loop
//
// A session is what is kept for a connection; it lives on the loop that accepted the connection, and moves to another one
// if it goes on using the keys of that. A shard is the part of the keys that one loop owns, chosen by the hash of the key.
// If a session's command is for a key of its own loop, the table is asked at once. Otherwise the request travels to the
// other loop as a message, and comes back with the answer.
//
// # The life of a command
//
//  1. Session.Data gets bytes, and execute parses one command.
//  2. Command fills in the request and calls shard.execute, or posts the request to the other loop, whose shard serves
//     it. While it is away, further input is kept in the backlog.
//  3. The table answers, or queues the request. A queued request has a timer in the wheel of the shard's loop. It is
//     ended by whatever comes first there: a grant, the timer, or the end of the session.
//  4. Session.answered appends the reply and goes on with the backlog. The replies of a turn leave in one write.
//
// # What is guaranteed
//
//   - A request has one outcome, decided on the loop of its shard.
//   - A session that ends frees its keys and leaves its queue in the same turn on its own loop, and with the next
//     message on the others. A grant that crosses the end of the session is freed by the message behind it.
//   - Answers come in the order of the commands. The end of the input does not lose those that need no waiting.
//   - A client that sends without reading, or while it waits, is held back by TCP. What it costs is bounded.
//   - Once the server stops, nothing is granted any more: whoever was told that he holds a key learns that he lost it
//     before anybody else can be told the same.
//
// # What is seen from outside
//
// Server.Keys, Connections, Status and the like answer an operator, and Kick is what he can do. They send tasks to the
// loops, which do them in short steps between the turns of their clients. The detector, a goroutine, looks in the same way
// for sessions that wait for one another, as soon as one waits that holds a key.
//
// New makes a server from a Config, and Run serves. Start reading at session.go and shard.go; request.go says what
// belongs to which loop, closing.go how sessions end, move.go why sessions change
// loops; task.go begins what is seen from outside, waitfor.go says when a deadlock is believed.
package server
