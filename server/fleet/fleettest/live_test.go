package fleettest

import (
	"context"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// liveWorld is a [Live]: what happens there happens by itself.
type liveWorld struct {
	t       *testing.T
	live    *Live
	members []*Recorder
	leave   []func()
	since   time.Time // of the last step in which something has happened
}

func TestLiveConformance(t *testing.T) {
	Conform(t, func(t *testing.T, members []*Recorder) World {
		w := &liveWorld{t: t, live: NewLive(7), members: members, since: time.Now()}
		for _, m := range members {
			ctx, cancel := context.WithCancel(context.Background())
			store := w.live.Store()
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

func (w *liveWorld) Step() {
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

func (w *liveWorld) Revoke(lease int64) {
	w.live.mu.Lock()
	defer w.live.mu.Unlock()
	w.live.log.Revoke(lease)
	w.live.notify()
}

func (w *liveWorld) Leave(member int) { w.leave[member]() }
