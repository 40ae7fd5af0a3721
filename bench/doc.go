// Package bench measures lock servers from outside: throughput, latency, processor time per command and memory, of the
// daemon and of the servers it is compared with: redis, memcached, and echo servers, which show the limits of the
// framework and of the machine.
//
//	Workload ─► script ─► conn ─────► gnet client loop ═══ sockets ═══ server, a process of its own
//	            chooses    request,   histogram, counters                  │
//	            the next   reply as                                        │ processor clock, VmRSS
//	            request    bytes                                           ▼
//	Target ──────────────────────────► Run ◄─── samples at both ends of the window
//	                                    │
//	                                 Result ─► Compare ─► Comparison ─► Goals, tables, JSON, report
//
// # How it measures
//
//   - All sockets are connected first. Then the load runs for Workload.Warmup, and then for Workload.Window, which is
//     measured. A sample is taken at both ends of the window: the clock, the number of operations, the processor time
//     of the server and of the generator. Then no new job begins, and every outstanding reply is awaited, so that a lost
//     one is noticed.
//   - A closed loop sends the next request when the reply arrives, which finds the most that a server can do. An open
//     loop (Workload.Rate) sends by schedule, whatever the server does, and counts latency from the scheduled time. So a
//     server that stalls is charged for every request that it delays.
//   - The generator shares the machine with the server. It sends prebuilt bytes, compares replies as bytes, and
//     allocates nothing per request. Its own cost is in the result.
//   - Compare takes turns: every round measures every server on every workload, in random order, so that a machine that
//     slows down does so for all of them. It reports medians, their spread, and ratios taken within a round.
//
// # What it guarantees
//
// Every reply is checked. A wrong reply, a lost one, an unexpected one, a key that two connections hold at once and a
// grant out of order end the run with an error that is a Violation. A Result exists only if there was none. The order of
// grants is checked only as far as the server confirms the order of the requests: see the type queueScript.
//
// Heap allocations and waiters are reported by our own daemon, if it was started here: see daemon.go.
//
// # Threading
//
// A conn and a loop belong to the goroutine of their gnet client loop; there is one gnet client per loop. Other
// goroutines reach them with loop.do, and read the atomic counters. Run, Compare and Start are safe from any goroutine,
// but two runs at the same time disturb each other's figures.
//
// Start reading at run.go, then loop.go and conn.go. dialect.go has the requests and replies, peer.go the servers that
// can be started.
package bench
