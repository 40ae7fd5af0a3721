package server

import (
	"context"
	"fmt"
	"math"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// bucketsPerStep is how much of the index of keys is looked at in one turn: a key a bucket, on average. A table with a
// million keys is walked in some thousand steps.
const bucketsPerStep = 512

// Keys returns a page of the held keys.
func (srv *Server) Keys(ctx context.Context, q api.KeyQuery) (*api.KeyPage, error) {
	if q.Order == "" {
		q.Order = api.ByKey
	}
	number, ok := keyNumbers[q.Order]
	if !ok {
		return nil, fmt.Errorf("%w: order %.64q: want key, waiters, age or wait", api.ErrQuery, q.Order)
	}
	limit, err := parseLimit(q.Limit)
	if err != nil {
		return nil, err
	}
	after, err := parseCursor(string(q.Order), q.Cursor)
	if err != nil {
		return nil, err
	}
	type walk struct {
		page   page[api.Key]
		cursor uint64
		begun  bool
	}
	found, err := ask(ctx, srv, func(sh *shard, w *walk) (more bool) {
		if !w.begun {
			w.begun, w.page = true, page[api.Key]{limit: limit, after: after}
		}
		w.cursor = sh.table.Walk(w.cursor, bucketsPerStep, func(h lockmgr.Holding) {
			if !hasPrefix(h.Key, q.Prefix) {
				return
			}
			if n := number(h); wants(&w.page, n, h.Key) {
				k := sh.describe(h)
				w.page.add(rank{n, k.Key}, k)
			}
		})
		return w.cursor != 0
	})
	if err != nil {
		return nil, err
	}
	pages := make([]*page[api.Key], 0, len(found))
	for _, w := range found {
		pages = append(pages, &w.page)
	}
	all := page[api.Key]{limit: limit}
	keys, next := all.merge(string(q.Order), pages)
	return &api.KeyPage{Keys: keys, Matching: all.matching, Next: next}, nil
}

// keyNumbers give the number by which each order sorts, the highest first.
var keyNumbers = map[api.KeyOrder]func(lockmgr.Holding) int64{
	api.ByKey:     func(lockmgr.Holding) int64 { return 0 },
	api.ByWaiters: func(h lockmgr.Holding) int64 { return int64(h.Waiters) },
	api.ByAge:     func(h lockmgr.Holding) int64 { return -int64(h.Since) },
	api.ByWait: func(h lockmgr.Holding) int64 {
		if h.First == nil {
			return math.MinInt64
		}
		return -int64(h.First.Tag.(*request).since)
	},
}

func hasPrefix(key []byte, prefix string) bool {
	return len(key) >= len(prefix) && string(key[:len(prefix)]) == prefix
}

// describe returns what is to be said of a held key.
func (sh *shard) describe(h lockmgr.Holding) api.Key {
	k := api.Key{
		Key:         string(h.Key),
		Holder:      h.Owner.Tag.(holder).peer(),
		Since:       sh.loop.Time(h.Since),
		Token:       h.Token,
		HeldSeconds: sh.secondsSince(h.Since),
		Waiters:     h.Waiters,
	}
	if h.First != nil {
		k.LongestWaitSeconds = sh.secondsSince(h.First.Tag.(*request).since)
	}
	return k
}

// secondsSince returns how long ago something was, in seconds.
func (sh *shard) secondsSince(t time.Duration) float64 { return max(sh.loop.Now()-t, 0).Seconds() }

// peer says who is at the other end of the connection.
func (s *session) peer() api.Peer {
	p := api.Peer{Connection: s.id, Address: s.address.String()}
	if who := s.identity.Load(); who != nil {
		p.Name, p.Owner = who.name, who.owner
	}
	return p
}

// Key returns a held key with its queue, at most so many waiters of it.
func (srv *Server) Key(ctx context.Context, key string, queue int) (*api.Key, error) {
	limit, err := parseLimit(queue)
	if err != nil {
		return nil, err
	}
	name := []byte(key)
	hash := srv.seed.Hash(name)
	if !srv.Ready() { // before that there may be no shards
		return nil, errNotServing
	}
	owner := srv.shardOf(hash)
	found, err := askSome(ctx, srv, srv.shards[owner:owner+1], func(sh *shard, k *api.Key) (more bool) {
		h := sh.table.Find(hash, name)
		if h.Owner == nil {
			return false
		}
		*k = sh.describe(h)
		for w := h.First; w != nil && len(k.Queue) < limit; w = w.Next() {
			r := w.Tag.(*request)
			k.Queue = append(k.Queue, api.Waiter{
				Peer:           r.session.peer(),
				Since:          sh.loop.Time(r.since),
				WaitedSeconds:  sh.secondsSince(r.since),
				TimeoutSeconds: r.timeout.Seconds(),
			})
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	if k := found[0]; k.Key != "" {
		return k, nil
	}
	return nil, fmt.Errorf("%w: nobody holds the key %.64q", api.ErrNotFound, key)
}
