package etcd

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/bench/fleet/etcdtest"
	"dreadlock/proto/prototest"
	"dreadlock/server/fleet/fleettest"
)

// conformWorld is a fleet on an etcd that the checks share: each has a prefix of its own.
type conformWorld struct {
	*world
	since time.Time // of the last step in which something has happened
}

func TestConformance(t *testing.T) {
	w := startWorld(t, etcdtest.Options{})
	checks := 0
	fleettest.Conform(t, func(t *testing.T, members []*fleettest.Recorder) fleettest.World {
		checks++
		one := &conformWorld{world: &world{tb: t, cluster: w.cluster, client: w.client, ctx: context.Background()}, since: time.Now()}
		for _, r := range members {
			cfg := one.config()
			cfg.Prefix = fmt.Sprintf("/check%d", checks)
			one.join(cfg, r)
		}
		return one
	})
}

func (w *conformWorld) Step() {
	began := time.Now()
	w.step()
	if time.Since(began) < 20*time.Millisecond {
		w.since = time.Now()
	}
	if time.Since(w.since) > prototest.Patience {
		w.tb.Fatal("nothing happens any more")
	}
}

func (w *conformWorld) Revoke(lease int64) {
	if _, err := w.client.Revoke(w.ctx, clientv3.LeaseID(lease)); err != nil {
		w.tb.Error(err)
	}
}

func (w *conformWorld) Leave(member int) { w.members[member].leave() }

func (w *conformWorld) Compact() {
	answer, err := w.client.Get(w.ctx, "x")
	if err == nil {
		_, err = w.client.Compact(w.ctx, answer.Header.Revision)
	}
	if err != nil {
		w.tb.Error(err)
	}
}

func (w *conformWorld) Suspend(member int) time.Duration { return w.suspend(w.members[member]) }

func (w *conformWorld) Resume(member int) { w.members[member].store.Resume() }

func (w *conformWorld) Bequeaths(member int) bool {
	_, err := w.members[member].store.Legacy()
	return err == nil
}

func (w *conformWorld) TakeOver(member int) { w.takeOver(w.members[member]) }
