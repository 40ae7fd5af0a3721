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

// run has a store run until the returned function is called.
func (w *fleetWorld) run(store *Store, m *Recorder) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { store.Run(ctx, m) })
	leave = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	w.t.Cleanup(leave)
	return leave
}

func TestFleetConformance(t *testing.T) {
	Conform(t, func(t *testing.T, members []*Recorder) World {
		w := &fleetWorld{t: t, fleet: NewFleet(time.Minute), members: members, since: time.Now()}
		for _, m := range members {
			store := w.fleet.Store()
			w.stores = append(w.stores, store)
			w.leave = append(w.leave, w.run(store, m))
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

func (w *fleetWorld) Compact() { w.fleet.Compact() }

func (w *fleetWorld) Suspend(member int) time.Duration {
	until, err := w.stores[member].Suspend(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return until
}

func (w *fleetWorld) Resume(member int) { w.stores[member].Resume() }

func (w *fleetWorld) Bequeaths(member int) bool {
	_, err := w.stores[member].Legacy()
	return err == nil
}

func (w *fleetWorld) TakeOver(member int) {
	before, next := w.stores[member], w.fleet.Store()
	w.members[member].GoOn(TakeOver(w.t, before, next))
	w.leave[member]() // it has yielded
	w.stores[member] = next
	w.leave[member] = w.run(next, w.members[member])
}
