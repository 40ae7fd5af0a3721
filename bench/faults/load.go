package faults

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"dreadlock/bench"
)

// load is what other clients of the daemon do while a fault happens. Every answer of theirs is checked, and none of them may
// notice the fault.
type load struct {
	cancel   context.CancelFunc
	running  sync.WaitGroup
	stopping sync.Once

	answered atomic.Int64
	worst    atomic.Int64 // the slowest answer, in ns
}

// startLoad begins a load of a kind at a rate of commands a second, 0 for as many as there can be. It comes by the daemon's
// Unix socket. It ends with stop, or with the case.
func (l *lab) startLoad(w bench.Workload) *load {
	target, err := bench.ParseTarget("dreadlock+unix://" + l.daemon.lock)
	l.t.must(err)
	ctx, cancel := context.WithCancel(l.t.ctx)
	ld := &load{cancel: cancel}
	l.load = ld
	ld.running.Go(func() {
		for ctx.Err() == nil {
			// A run is not cut short: its commands would be neither answered nor unanswered.
			result, err := bench.Run(context.WithoutCancel(ctx), target, w, bench.Options{Patience: patience})
			var violation *bench.Violation
			switch {
			case errors.As(err, &violation):
				l.t.violate("another client: %v", err)
			case err != nil:
				l.t.stop(fmt.Errorf("the load of other clients: %w", err))
			default:
				ld.answered.Add(result.Answered)
				if result.Latency != nil && int64(result.Latency.Max) > ld.worst.Load() {
					ld.worst.Store(int64(result.Latency.Max))
				}
				continue
			}
			l.unrecorded = true // nobody knows how many were answered
			return
		}
	})
	return ld
}

// bystanders returns a modest load of locks that wait, are granted, time out and are refused.
func bystanders() bench.Workload {
	w := bench.Default(bench.Mixed)
	w.Connections, w.Keys, w.Rate, w.Warmup, w.Window = 20, 10, 2000, 0, 500*time.Millisecond
	return w
}

// stop ends the load when its latest round is complete. A nil load has ended.
func (ld *load) stop() {
	if ld == nil {
		return
	}
	ld.stopping.Do(ld.cancel)
	ld.running.Wait()
}

// commands returns how many commands were answered. A nil load has none.
func (ld *load) commands() int64 {
	if ld == nil {
		return 0
	}
	return ld.answered.Load()
}
