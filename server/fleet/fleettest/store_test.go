package fleettest

import (
	"context"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// fleetWorld is a [Fleet]: what happens there happens by itself.
type fleetWorld struct {
	t       *testing.T
	fleet   *Fleet
	stores  []*Store
	members []*Recorder
	leave   []func()
	since   time.Time // of the last step in which something has happened
}

func TestFleetConformance(t *testing.T) {
	Conform(t, func(t *testing.T, members []*Recorder) World {
		w := &fleetWorld{t: t, fleet: NewFleet(time.Minute), members: members, since: time.Now()}
		for _, m := range members {
			ctx, cancel := context.WithCancel(context.Background())
			store := w.fleet.Store()
			w.stores = append(w.stores, store)
			var running sync.WaitGroup
			running.Go(func() { store.Run(ctx, m) })
			w.leave = append(w.leave, sync.OnceFunc(func() {
				cancel()
				running.Wait()
			}))
			t.Cleanup(w.leave[len(w.leave)-1])
		}
		return w
	})
}

func (w *fleetWorld) Step() {
	next := make(chan struct{}, len(w.members))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	for _, m := range w.members {
		changed := m.Next()
		go func() {
			select {
			case <-changed:
				next <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-next:
		w.since = time.Now()
	case <-ctx.Done():
	}
	if time.Since(w.since) > prototest.Patience {
		w.t.Fatal("nothing happens any more")
	}
}

func (w *fleetWorld) Revoke(lease int64) {
	for i, m := range w.members {
		if s := m.Session(); s != nil && s.Lease() == lease {
			w.fleet.Revoke(w.stores[i])
		}
	}
}

func (w *fleetWorld) Leave(member int) { w.leave[member]() }
