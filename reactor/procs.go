package reactor

import (
	"os"
	"runtime"
)

// Procs returns the GOMAXPROCS with which a process of that many loops runs best: more than there are loops, for the reason
// that the package's documentation gives. It is never less than what the runtime has chosen, and just that if the
// environment variable GOMAXPROCS has chosen for it.
func Procs(loops int) int {
	chosen := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" {
		return chosen
	}
	return max(chosen, loops+1)
}
