package bench

import (
	"os"
	"runtime"
)

// processors is the number of processors that this process may use: GOMAXPROCS before raiseProcs.
var processors = runtime.GOMAXPROCS(0)

// raiseProcs raises GOMAXPROCS above the number of threads that sleep in system calls of their own, unless the
// environment sets it. It never lowers it.
//
// An event loop that sleeps in epoll_wait keeps its P, the runtime's permission to run Go code, until the runtime's
// monitor takes it away, which may take 10 ms. With as many loops as Ps, whatever else is ready to run waits for that:
// a timer, a goroutine that dials, the other loop. One P more than there are such threads is always free for them. The
// daemon does the same, so the echo servers must, and the load generator would otherwise measure its own delays.
func raiseProcs(threads int) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= threads {
		runtime.GOMAXPROCS(threads + 1)
	}
}
