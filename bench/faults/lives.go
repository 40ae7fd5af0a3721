package faults

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lives are the processes that are the daemon, one after another.
type lives struct {
	mu      sync.Mutex
	current *os.Process      // nil while it is the first one
	last    *os.ProcessState // of the latest that has ended
	ends    map[int]*os.ProcessState
}

// left reports whether a process was one of them, and has ended as one that was taken over from.
func (v *lives) left(pid int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	end := v.ends[pid]
	return end != nil && end.Success()
}

// end returns how the latest of the processes has ended that has.
func (v *lives) end() *os.ProcessState {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// adoptOrphans makes this process the parent of those whose parent ends, so that it can wait for a daemon that has taken over.
var adoptOrphans = sync.OnceValue(func() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })

// pid returns the number of the process that is the daemon now.
func (d *daemon) pid() int {
	d.lives.mu.Lock()
	defer d.lives.mu.Unlock()
	if d.lives.current != nil {
		return d.lives.current.Pid
	}
	return d.cmd.Process.Pid
}

// follow waits for the process, and for each that has taken over from the one before. It reads what all of them say.
func (d *daemon) follow(text *os.File) {
	defer close(d.ended)
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&d.log, text)
		_ = text.Close()
	}()
	_ = d.cmd.Wait() // the state says how it has ended
	for state := d.cmd.ProcessState; ; {
		next := d.heir()
		d.lives.mu.Lock()
		if state != nil {
			d.lives.last = state
			d.lives.ends[state.Pid()] = state
		}
		if next != nil {
			d.lives.current = next
		}
		d.lives.mu.Unlock()
		if next == nil {
			break
		}
		state, _ = next.Wait() // it is a child of this process, which has adopted it
	}
	const enough = time.Second // something else may have kept the other end
	select {
	case <-read:
	case <-time.After(enough):
	}
}

// heir returns the process that has taken over from one that has ended, nil if there is none.
func (d *daemon) heir() *os.Process {
	for _, m := range d.members() {
		if m.parent == os.Getpid() && m.daemon {
			process, err := os.FindProcess(m.pid)
			if err == nil {
				return process
			}
		}
	}
	return nil
}

// member is a process of the group that the daemon leads: whatever it has started is in it.
type member struct {
	pid, parent int
	dead        bool // it has ended, and nobody has waited for it
	stopped     bool
	daemon      bool // it runs the daemon's program
}

// members lists the processes of the daemon's group.
func (d *daemon) members() (all []member) {
	program, err := os.Stat(d.t.options.Daemon)
	if err != nil {
		return nil
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since
		}
		// pid (name) state parent group ...; the name may contain anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		const state, parent, group = 0, 1, 2
		if len(fields) <= group || fields[group] != strconv.Itoa(d.cmd.Process.Pid) {
			continue
		}
		m := member{dead: strings.ContainsAny(fields[state], "ZX"), stopped: strings.ContainsAny(fields[state], "Tt")}
		m.pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(path))) // the kernel writes numbers
		m.parent, _ = strconv.Atoi(fields[parent])
		running, err := os.Stat(filepath.Join(filepath.Dir(path), "exe"))
		m.daemon = err == nil && os.SameFile(program, running)
		all = append(all, m)
	}
	return all
}

// daemons returns the processes of the group that run the daemon's program and have not ended.
func (d *daemon) daemons() (pids []int) {
	for _, m := range d.members() {
		if m.daemon && !m.dead {
			pids = append(pids, m.pid)
		}
	}
	return pids
}
