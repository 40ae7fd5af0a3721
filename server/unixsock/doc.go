// Package unixsock opens Unix sockets for servers: with the right mode and group from the first connection on, in the place
// of a socket that a dead process has left, and never in the place of anything else.
//
//	path.lock   locked (flock) from Listen to Close: of two processes that want the path, one gets it
//	path        the socket
//
// What stands at the path before:
//
//	nothing                             the socket is made
//	a socket that nobody listens on     it is stale: removed, and the socket is made
//	a socket that somebody listens on   refused with syscall.EADDRINUSE
//	a socket that cannot be asked       refused
//	anything else, also a symbolic link refused, never removed
//
// Both files are removed by Close. If the process is killed they stay, and the next one replaces them: the kernel has
// released the lock.
//
// A process that takes over from another one gets the socket and the lock as descriptors, and nothing changes at the path: see
// [Address.Adopt]. The lock belongs to whoever has it open.
package unixsock
