package takeover

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic returns the reading of the clock at a time of this process, in nanoseconds. All processes of the machine read the same
// clock, which is also that of the Go runtime. It is off by some nanoseconds, in the direction in which nothing is early.
func Monotonic(at time.Time) int64 {
	since := time.Since(at)
	return clock() - int64(since)
}

// At returns the time of this process at which the clock had that reading: see [Monotonic].
func At(reading int64) time.Time {
	now := clock()
	return time.Now().Add(time.Duration(reading - now))
}

func clock() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("takeover: clock_gettime: " + err.Error()) // fails only for a wrong pointer or number
	}
	return now.Nano()
}
