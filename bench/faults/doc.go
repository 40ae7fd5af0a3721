// Package faults makes everything fail that can fail around the daemon, from outside, and checks that it keeps its promises.
//
//	                 ┌── host of the daemon ──┐          ┌─ hosts of clients ─┐
//	bench.Run ──────►│ Unix socket            │          │                    │
//	near clients ───►│ loopback ──► daemon    │◄══ wire ═╪══ remote clients   │
//	admin requests ─►│ Unix socket            │ (weather)│                    │
//	                 └────────────────────────┘          └────────────────────┘
//	     every client records ──► history ──► check ──► violations ──► table
//
// A host is a network namespace (see package netns), and a wire joins two of them: this program carries the packets, and can
// lose, delay, reorder and duplicate them, or none at all. Nothing of it has a name, so nothing is left when the program
// ends, however it ends; only a daemon that has taken over from another one is not ended if this program is killed.
//
// # Takeovers
//
// What lies at the daemon's path is a link to it. Before a takeover a script takes its place, which restores the link and then becomes
// the successor, in another environment or with a relay between the two processes: see successors.go, between.go and ordeal.go.
//
// # What is checked
//
//   - The history of each case, with the rules of the function check: exclusivity, order where the order of arrival was
//     confirmed, one answer a command in its order, answers that fit, no early timeout, no connection ended for no reason.
//   - At the end of each case: the daemon's connections, held keys and waiters are those that its living clients have; when
//     these have gone it has none; and it has counted one outcome for each command.
//   - The load of other clients, which bench.Run checks answer by answer and which must not notice the fault.
//   - The promise of the case itself, mostly a time.
//
// A case is a function that is given a trial. It reads like a test: what must not go on stops it, and what is wrong is noted.
// Start reading at suite.go, then vanish.go.
package faults
