// Package bench measures lock servers from outside: throughput, latency, processor time per command and memory, of the
// daemon and of what it has to stand beside: redis, memcached, and echo servers that mark what the framework and the
// machine can do at all.
//
//	Workload ─► script ─► conn ─────► gnet client loop ═══ sockets ═══ server, a process of its own
//	            what is    request,   histogram, counters                  │
//	            said next  reply as                                        │ processor clock, VmRSS
//	                       bytes                                           ▼
//	Target ──────────────────────────► Run ◄─── samples at both ends of the window
//	                                    │
//	                                 Result ─► Compare ─► Comparison ─► Goals, tables, JSON, report
//
// # How it measures
//
//   - All sockets are connected first, then the load runs for Workload.Warmup, then Workload.Window is measured. Both
//     ends of the window are one sample: the clock, the count of operations, the processor time of the server and of the
//     generator. Then the load runs dry, so that a reply that never comes is noticed.
//   - A closed loop sends the next request when the reply has come, which finds the most that a server can do. An open
//     loop (Workload.Rate) sends by schedule, whatever the server does, and counts latency from the time at which the
//     schedule wanted the request to be sent. So a server that stalls is charged for everybody it keeps waiting.
//   - The generator shares the machine with the server. It sends prebuilt bytes, compares replies as bytes, and
//     allocates nothing per request. What it costs is in the result.
//   - Compare takes turns: every round measures every server on every workload, so that a machine that gets slower
//     does so for all of them. What it says are medians, their spread, and ratios taken within a round.
//
// # What it guarantees
//
// Every reply is checked. A wrong one, a lost one, one that nobody asked for, a key that two connections hold at once
// and a grant out of order end the run with an error that is a Violation. A Result exists only if there was none.
//
// Heap allocations are those of our own daemon, if it was started here: it tells them in its log when it gets SIGUSR1.
//
// # Threading
//
// A conn and a loop belong to the goroutine of their gnet client loop; there is one gnet client per loop. Others reach
// them by loop.do, and read the counters that are atomic. Run, Compare and Start are safe from any goroutine, but two
// runs at a time disturb each other.
//
// Start reading at run.go, then loop.go and conn.go; dialect.go says what is sent, peer.go which servers are started.
package bench
