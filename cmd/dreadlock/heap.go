package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Commands allocate nothing, so what the collector has to do comes from new connections. What it leaves lying about is most of
// what an idle connection costs beyond its own size, so a large heap is collected often, and once more when a burst of
// connections is over. A small one is left to grow: there is nothing to save, and to collect it for every few hundred
// connections that come and go takes an eighth of their time.
const (
	// gcPercent is the GOGC of a large heap.
	gcPercent = 25
	// leastHeap is the size, in bytes, up to which a small heap is left to grow.
	leastHeap = 8 << 20

	// calmTime is the time in which hardly anything must be allocated for a burst to be over, and calmBytes how much that is.
	calmTime  = 150 * time.Millisecond
	calmBytes = 64 << 10
	// leastGarbage is the number of bytes for which a collection is worth it when a burst is over.
	leastGarbage = 1 << 20
)

// The metrics of the runtime that the collector is tuned by, in the order in which they are read.
const (
	allocated = iota // bytes, ever
	inUse            // bytes, with what the next collection will find to be garbage
	live             // bytes that the last collection has found in use
	gogc             // the GOGC that holds; negative if the collector is off, as while a takeover has the clients wait
)

// heap is what the collector is tuned by.
type heap struct {
	samples   []metrics.Sample
	collected chan struct{} // has a token after a collection
}

// tuneCollector sets GOGC after every collection, and collects when a burst is over, until ctx is done. If the environment sets
// GOGC, nothing is done.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	h := newHeap()
	runtime.GC() // without one it is not known what is live
	h.tune(struct{}{})
	newHeap().collectAfterBursts(ctx, h.collected)
}

func newHeap() *heap {
	return &heap{
		samples: []metrics.Sample{
			allocated: {Name: "/gc/heap/allocs:bytes"},
			inUse:     {Name: "/memory/classes/heap/objects:bytes"},
			live:      {Name: "/gc/heap/live:bytes"},
			gogc:      {Name: "/gc/gogc:percent"},
		},
		collected: make(chan struct{}, 1),
	}
}

// read returns the value of one of the metrics.
func (h *heap) read(metric int) int64 {
	sample := h.samples[metric : metric+1]
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// tune is called after a collection, and sees to it that it is called after the next.
func (h *heap) tune(struct{}) {
	h.adjust()
	runtime.AddCleanup(new(garbage), h.tune, struct{}{})
	select {
	case h.collected <- struct{}{}:
	default:
	}
}

// adjust sets GOGC, unless somebody has turned the collector off for a while.
func (h *heap) adjust() {
	if now, want := h.read(gogc), gcPercentFor(h.read(live)); now >= 0 && now != int64(want) {
		debug.SetGCPercent(want)
	}
}

// garbage is what the next collection finds. With a pointer it is an object of its own for the allocator.
type garbage struct{ _ *byte }

// gcPercentFor returns the GOGC for a heap of which a collection has found that many bytes in use.
func gcPercentFor(live int64) int {
	const (
		runtimeLeast = 4 << 20 // up to which the runtime collects nothing with a GOGC of 100, and in proportion
		most         = 100 * leastHeap / runtimeLeast
		step         = 25 // few changes: each stops the loops for a moment
	)
	percent := 100 * (leastHeap - live) / max(live, 1)
	return int(min(max(percent/step*step, gcPercent), most))
}

// collectAfterBursts runs until ctx is done. A collection means that much was allocated lately. When that is over, what lies about
// is collected and goes back to the system.
func (h *heap) collectAfterBursts(ctx context.Context, collected <-chan struct{}) {
	for {
		select {
		case <-collected:
		case <-ctx.Done():
			return
		}
		if !h.awaitCalm(ctx) {
			return
		}
		if h.read(inUse)-h.read(live) >= leastGarbage {
			debug.FreeOSMemory()
		}
	}
}

// awaitCalm waits until hardly anything is allocated any more. It returns false when ctx is done.
func (h *heap) awaitCalm(ctx context.Context) bool {
	ticker := time.NewTicker(calmTime)
	defer ticker.Stop()
	for before := h.read(allocated); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
		now := h.read(allocated)
		if now-before <= calmBytes {
			return true
		}
		before = now
	}
}
