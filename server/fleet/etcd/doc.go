// Package etcd is the store of a fleet on etcd. It knows nothing of clients and their sessions: see package fleet for what a place is.
//
//	<prefix>/q/<key>/<lease>.<seq>   a place, bound to the lease of its daemon; the value of a try is "t"
//	<prefix>/d/<lease>               a daemon: its address and version, rewritten every 2 s
//	<prefix>/space                   the number of the lock space, written once
//
// The order of the places of a key is that of (create revision, seq): keys that one transaction makes have one create revision.
//
//	loops ──► Session ──► writer ──────────► etcd
//	                      renewer ─────────►   │
//	loops ◄── Member ◄─── session.run ◄─── watcher
//
// # Goroutines
//
// session.run alone calls the member, and ends the session at the time up to which grants may be told: it waits for nothing but its
// channels. All that waits for etcd runs beside it: the renewer of the lease, the writer, which has one transaction under way while the
// next one collects, the watcher, and the checks of how etcd is run.
//
// # Time
//
// A lease is renewed from a known moment: that of sending. etcd counts from when it gets the request, so its end of the lease is never
// before ours. Grants may be told until that moment and the TTL of the answer, less [margin]. An answer that comes when that time is over
// counts for nothing.
//
// # What may go wrong
//
//   - A call has a second. Then the next endpoint is asked, and stays the one that is asked: each has a client of its own, since a
//     member that hangs keeps its connections open.
//   - A transaction whose answer was lost is written again. All operations can be repeated, but for a place that was made, seen and taken
//     away in between: it is made once more. Whoever is told of a place of its own that it does not know leaves it.
//   - Events are watched for from the revision of the list on, and what is not newer is skipped. A watch that hangs is noticed by the sign
//     of life of this daemon, which has to come back within [watchPatience], and begun anew at the next endpoint. Events that were lost
//     are noticed by counting places. Then, and when the history was compacted that the watch would need, all places are listed: what
//     has changed since is told, so no client notices. A place that was asked for, and has come and gone in between, is asked for again.
//   - A full database refuses what adds to it. Places are still left and refused, and the lease renewed, so that nobody loses a key.
//   - A lease that is gone ends the session.
//
// # Takeover
//
// Run stands while the store is suspended: no goroutine of the session runs, and everything in it is at rest. So it can go on with the
// same session, and so can the successor, with what [Store.Legacy] has of it: the places that the member knows, the revision from which
// to watch, and what is still to be written. Where the answer to a transaction was lost the successor writes it again, as the
// predecessor would have.
//
// Start reading at store.go, then session.go, writer.go and watcher.go; view.go is what is known of the places, health.go looks after how
// etcd is run, takeover.go and legacy.go hand a session over.
package etcd
