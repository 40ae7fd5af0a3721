// Package takeover is what two processes of the daemon say to each other when the new one, the successor, takes over from the old one,
// its predecessor: a restart that no client notices but for a pause. It knows nothing of what is handed over.
//
// The predecessor starts the successor as its child, with one end of a pair of Unix sockets of packets. So the successor has the
// options, the environment, the output, the control group and the sandbox of the predecessor, and nobody else can speak to either.
//
//	predecessor (Successor)            successor (Predecessor)
//
//	serves                  hello ──►                                who it is, and its listeners
//	serves                  ◄── prepared                             it has opened what else it needs
//	stands still            estate, descriptors ──►                  takes them, touches none
//	stands still            ◄── ready                                has verified them
//	serves nobody any more  commit ──►
//	                        ◄── ack                                  serves
//	leaves                  left ──►                                 ends what was not handed over
//
// # One of them serves
//
// The ack decides. Before it has been queued at the predecessor the successor does nothing that a client could see. From the commit
// on the predecessor waits for it, and grants nothing:
//
//   - It has come: the predecessor ends, whatever becomes of the successor.
//   - It has not come in time: the predecessor closes its end for what it receives, which the kernel does under the lock under which
//     it queues. Then either the ack is there after all, or it cannot be sent any more. So it need not be waited for what the successor
//     does, which may be stopped; it is killed afterwards.
//
// The predecessor says abort before it goes on after a commit. So a successor that cannot send its ack, and sees the end of
// the pair without an abort, knows that the predecessor has died as it stood: it serves, since nobody else does.
//
// # When one of them dies (†), stops or hangs (…)
//
//	until            predecessor †          predecessor …             successor † or …
//	prepared         the successor ends     the successor ends        the predecessor serves
//	ready            the successor ends     the successor ends        the predecessor goes on
//	commit           the successor ends     the successor ends        the predecessor goes on
//	ack              the successor serves   the successor serves      the predecessor goes on
//	left             the successor serves   the successor kills it    nobody: the locks are lost, as by any crash
//
// Every wait is bounded, here or by the context of the caller. A successor that is refused, or refuses, has touched nothing; it
// is told why or says why.
//
// # What goes over
//
// Descriptors go at most 128 a message, without being duplicated first, and come with close-on-exec. If not all of them arrive, the
// step fails. What is not a descriptor goes in a file in memory, whose content is the caller's matter, in gob as the messages.
//
// Start reading at message.go, then successor.go, which the predecessor calls, and predecessor.go, which the successor calls.
package takeover
