package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// runQueue tells how long the threads of the daemon have been ready to run and have had no processor: what other processes of the
// machine take from it. The kernel counts that for each thread, in nanoseconds, the second number in its schedstat.
type runQueue struct {
	threads []*os.File
	total   time.Duration // at the last look
}

// runQueueOf begins to look at the daemon. Threads that it starts later are not seen. A kernel without schedstat tells of no wait.
func (t *trial) runQueueOf(d *daemon) *runQueue {
	q := &runQueue{}
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.pid())) // the pattern is right
	for _, path := range paths {
		if file, err := os.Open(path); err == nil { // else it has ended since
			t.cleanup(func() { _ = file.Close() })
			q.threads = append(q.threads, file)
		}
	}
	q.wait()
	return q
}

// wait returns how long the threads have waited since the last call, all together.
func (q *runQueue) wait() time.Duration {
	var buf [64]byte
	total := time.Duration(0)
	for _, file := range q.threads {
		n, _ := file.ReadAt(buf[:], 0) // to its end; nothing if the thread has ended
		if fields := bytes.Fields(buf[:n]); len(fields) > 1 {
			ns, _ := strconv.ParseInt(string(fields[1]), 10, 64) // the kernel writes numbers
			total += time.Duration(ns)
		}
	}
	waited := total - q.total
	q.total = total
	return max(waited, 0)
}
