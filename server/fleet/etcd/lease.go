package etcd

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/server/fleet"
)

// renew renews the lease until ctx is done, for the first time after some time. Its calls are made within calls. If a takeover ends it, the
// lease is renewed once more: nobody does it until that is over.
func (se *session) renew(ctx, calls context.Context, first time.Duration) {
	every := se.renewTime()
	next := time.NewTimer(first)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSuspended) {
				_ = se.renewOnce(calls) // if that fails, less time is left
			}
			return
		}
		began := time.Now()
		for failures := 0; ; {
			err := se.renewOnce(calls)
			if err == nil || ctx.Err() != nil {
				break
			}
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				se.leaseGone()
				return
			}
			if failures++; failures%len(se.store.endpoints.all) == 0 && !pause(ctx, restTime) {
				break
			}
		}
		next.Reset(max(every-time.Since(began), 0))
	}
}

// renewTime is the time from one renewal to the next.
func (se *session) renewTime() time.Duration { return min(beatTime, se.ttl/5) }

// renewOnce asks one endpoint to renew the lease. What counts is when it was asked, so it is not left to the client of etcd, which asks
// again without a word.
func (se *session) renewOnce(ctx context.Context) error {
	return se.store.endpoints.once(ctx, func(ctx context.Context, client *clientv3.Client) error {
		stream, err := etcdserverpb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
		if err != nil {
			return rpctypes.Error(err)
		}
		sent := fleet.Now()
		if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: se.lease}); err != nil {
			return rpctypes.Error(err)
		}
		answer, err := stream.Recv()
		switch {
		case err != nil:
			return rpctypes.Error(err)
		case answer.TTL <= 0:
			return rpctypes.ErrLeaseNotFound
		}
		se.extend(sent + time.Duration(answer.TTL)*time.Second - se.rest - margin)
		return nil
	})
}

// extend lets grants be told for longer, unless it is too late.
func (se *session) extend(until time.Duration) {
	for {
		now := se.until.Load()
		if time.Duration(now) <= fleet.Now() || time.Duration(now) >= until {
			return
		}
		if se.until.CompareAndSwap(now, int64(until)) {
			return
		}
	}
}
