package fleet

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time on CLOCK_BOOTTIME, which goes on while the machine is suspended: leases do too. Go's own clock stands still then.
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("fleet: CLOCK_BOOTTIME: %v", err)) // every Linux since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}
