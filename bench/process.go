package bench

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime returns the processor time that a process has used since its start, in user and kernel mode, including
// that of threads that have ended. It reads the process's own clock: /proc/PID/stat has a resolution of 10 ms only.
func processorTime(pid int) (time.Duration, error) {
	// The kernel's number for the clock of a process: see MAKE_PROCESS_CPUCLOCK and CPUCLOCK_SCHED in
	// include/linux/posix-timers.h, or clock_getcpuclockid(3).
	const scheduler = 2
	clock := int32(^pid<<3 | scheduler)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("processor clock of process %d: %w", pid, os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(t.Nano()), nil
}

// residentMemory returns the resident memory of a process in bytes: VmRSS.
func residentMemory(pid int) (int64, error) {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		value, ok := strings.CutPrefix(lines.Text(), "VmRSS:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: VmRSS: %w", file.Name(), err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("%s has no VmRSS: the process has exited", file.Name())
}
