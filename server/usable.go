package server

import (
	"math"

	"github.com/KimMachineGun/automemlimit/memlimit"
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

// usableMemory returns the memory that this process may use, in bytes: that of its cgroup or of the machine, whichever is less.
// Where neither is known, it is a gibibyte.
func usableMemory() int64 {
	limit, err := memlimit.FromSystem()
	if err != nil {
		limit = 1 << 30
	}
	if cgroup, err := memlimit.FromCgroup(); err == nil { // else it has none
		limit = min(limit, cgroup)
	}
	return int64(min(limit, math.MaxInt64))
}
