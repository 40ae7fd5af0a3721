package server

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// memoryLimit returns MaxMemory, and what it is by default if it is zero.
func (c *Config) memoryLimit() int64 {
	if c.MaxMemory > 0 {
		return int64(c.MaxMemory)
	}
	return max(usableMemory()/2, minMaxMemory)
}

// RuntimeMemory returns the GOMEMLIMIT with which a process serves best, in bytes: the collector has half as much as the
// clients may take for what it has not collected, and the rest of the process has some.
func (c *Config) RuntimeMemory() int64 { return c.memoryLimit()*3/2 + baseMemory }

// baseMemory is what the process takes beside its clients, in bytes.
const baseMemory = 16 << 20

// usableMemory returns the memory that this process may use, in bytes: that of its cgroup or of the machine, or what is left of its address
// space (ulimit -v, LimitAS=), whichever is least. Where none is known, it is a gibibyte.
func usableMemory() int64 {
	limit, err := memlimit.FromSystem()
	if err != nil {
		limit = 1 << 30
	}
	if cgroup, err := memlimit.FromCgroup(); err == nil { // else it has none
		limit = min(limit, cgroup)
	}
	return int64(min(limit, leftToMap(), math.MaxInt64))
}

// mapMargin is the address space, in bytes, that the runtime takes beyond what it has in use: it reserves the heap by 64 MiB.
const mapMargin = 256 << 20

// leftToMap returns how much more address space this process may have, in bytes. At the limit the Go runtime ends the process.
func leftToMap() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err != nil || limit.Cur == unix.RLIM_INFINITY {
		return math.MaxUint64
	}
	self, err := procfs.Self()
	if err != nil {
		return limit.Cur
	}
	stat, err := self.Stat()
	if err != nil {
		return limit.Cur
	}
	return limit.Cur - min(limit.Cur, uint64(stat.VSize)+mapMargin) // what the runtime has reserved is most of it
}
