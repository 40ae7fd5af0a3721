package bench

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pace is the tick of open loops. It is short compared with the latencies of a loaded server, and long enough that ticks
// cost little.
const pace = 200 * time.Microsecond

// startPacer ticks loops until the function that it returns is called. It sleeps in the kernel, on a thread of its own,
// because the timers of the runtime have a resolution of a millisecond.
func startPacer(loops []*loop) (stop func()) {
	var (
		stopped atomic.Bool
		done    sync.WaitGroup
	)
	done.Go(func() {
		ticks := make([]func(), len(loops))
		for i, l := range loops {
			ticks[i] = l.tick
		}
		for !stopped.Load() {
			left := unix.NsecToTimespec(int64(pace))
			_ = unix.Nanosleep(&left, nil) // a signal only shortens it
			for i, l := range loops {
				if l.ticking.CompareAndSwap(false, true) { // otherwise it has not handled the last tick yet
					l.do(ticks[i])
				}
			}
		}
	})
	return func() {
		stopped.Store(true)
		done.Wait()
	}
}
