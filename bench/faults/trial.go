package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long something may take that a sound daemon does at once. Only a fault makes it take that long.
const patience = 8 * time.Second

// errSkip is wrapped by the error of a case that cannot be made on this machine.
var errSkip = errors.New("skipped")

// trial is one run of a case. Its methods are safe from any goroutine, except that only the goroutine of the case, and those
// that it starts with parallel, may stop it: skip, fatal and what calls them.
type trial struct {
	ctx     context.Context
	options *Options
	dir     string // for sockets and the like
	script  string // the program at the daemon's path, if it is not the daemon itself: see successors.go

	mu         sync.Mutex
	violations []string
	err        error // that stopped it
	cleanups   []func()

	commands atomic.Int64 // that were checked
	grants   atomic.Int64 // of fleets, among them
	labs     atomic.Int64 // for names
}

// runTrial runs a case to its end, and cleans up behind it.
func runTrial(ctx context.Context, options *Options, c *Case) *Outcome {
	t := &trial{ctx: ctx, options: options}
	began := time.Now()
	out := &Outcome{Case: c}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer t.recovered()
		var err error
		if t.dir, err = os.MkdirTemp("", "dreadlock-faults-"); err != nil {
			t.fatal("%w", err)
		}
		t.cleanup(func() { _ = os.RemoveAll(t.dir) })
		out.Measured = c.run(t)
	}()
	<-ended
	t.clean()
	out.Grants = t.grants.Load()
	out.Elapsed, out.Commands, out.Violations, out.Err = time.Since(began), t.commands.Load(), t.violations, t.err
	if errors.Is(t.err, errSkip) {
		out.Skipped, out.Err = t.err.Error(), nil
	}
	return out
}

// each runs a part of a case as a trial of its own, which is cleaned up at once. The case goes on if that part was stopped.
func (t *trial) each(name string, f func(t *trial)) {
	if t.ctx.Err() != nil {
		t.fatal("%w", t.ctx.Err())
	}
	out := runTrial(t.ctx, t.options, &Case{Name: name, run: func(part *trial) string {
		f(part)
		return ""
	}})
	t.commands.Add(out.Commands)
	for _, what := range out.Violations {
		t.violate("%s: %s", name, what)
	}
	if out.Err != nil {
		t.violate("%s: %v", name, out.Err)
	}
	if out.Skipped != "" {
		t.skip("%s: %s", name, out.Skipped)
	}
}

// recovered turns a panic of a case into an error, so that its processes and hosts are cleaned up.
func (t *trial) recovered() {
	if p := recover(); p != nil {
		t.stop(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
}

// clean runs the cleanups, the latest first.
func (t *trial) clean() {
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		last := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		ended := make(chan struct{})
		go func() { // a cleanup may find that the case has failed, and stop
			defer close(ended)
			defer t.recovered()
			last()
		}()
		<-ended
	}
}

// cleanup has f run at the end of the case, also if it fails.
func (t *trial) cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// violate notes a promise that was not kept. The case goes on.
func (t *trial) violate(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violations = append(t.violations, fmt.Sprintf(format, args...))
}

// violated returns the number of violations so far.
func (t *trial) violated() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.violations)
}

// fatal stops the case: it cannot go on.
func (t *trial) fatal(format string, args ...any) {
	t.stop(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// skip stops a case that cannot be made on this machine.
func (t *trial) skip(format string, args ...any) {
	t.fatal("%w: %w", errSkip, fmt.Errorf(format, args...))
}

// must stops the case if there is an error.
func (t *trial) must(err error) {
	if err != nil {
		t.fatal("%w", err)
	}
}

func (t *trial) stop(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// stopped reports whether the case was stopped.
func (t *trial) stopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil || t.ctx.Err() != nil
}

// parallel calls f n times, each time on a goroutine of its own, and returns when all have returned. If one of them stopped the
// case, it is stopped here as well.
func (t *trial) parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			defer t.recovered()
			f(i)
		})
	}
	wg.Wait()
	if t.stopped() {
		t.fatal("%w", context.Cause(t.ctx))
	}
}

// pause waits. It stops the case if the suite is to end.
func (t *trial) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
		t.fatal("%w", t.ctx.Err())
	}
}

// eventually waits until check returns nil. It is a violation if it does not within the time.
func (t *trial) eventually(within time.Duration, what string, check func() error) {
	for deadline := time.Now().Add(within); ; {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.violate("%s: not within %s: %v", what, within, err)
			return
		}
		t.pause(2 * time.Millisecond)
	}
}

// path returns the path of a new file of the case.
func (t *trial) path(name string) string {
	return filepath.Join(t.dir, fmt.Sprintf("%d-%s", t.labs.Add(1), name))
}
