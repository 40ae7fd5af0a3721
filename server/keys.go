package server

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

const (
	// bucketsPerStep is how many buckets of the index of keys are read in one turn, with one key each on average. A table with
	// a million keys takes about two thousand turns.
	bucketsPerStep = 512
	// bytesPerStep is the length of all keys that are searched after which a turn ends: keys may be long.
	bytesPerStep = 256 << 10
	// bucketsPerLook is how many buckets are read between two looks at that.
	bucketsPerLook = 16
)

// keyRow is a row of a page of keys.
type keyRow struct {
	at  rank
	key api.Key
}

func (r keyRow) rank() rank { return r.at }

// Keys returns a page of the keys that are held or rest.
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
	end, err := srv.beginWalk(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	type walk struct {
		page   page[keyRow]
		ages   api.Histogram
		cursor uint64
		begun  bool
	}
	found, err := queryAll(ctx, srv, func(sh *shard, w *walk) (more bool) {
		if !w.begun {
			w.begun, w.page, w.ages = true, page[keyRow]{limit: limit, after: after}, newAges()
		}
		w.cursor = sh.walkKeys(w.cursor, &q, func(h lockmgr.Holding) {
			addAge(&w.ages, sh.heldSeconds(h))
			if n := number(h); w.page.wants(n, h.Key) {
				k := sh.describe(h)
				w.page.add(keyRow{rank{n, k.Key}, k})
			}
		})
		return w.cursor != 0
	})
	if err != nil {
		return nil, err
	}
	pages, ages := make([]*page[keyRow], 0, len(found)), newAges()
	for _, w := range found {
		pages = append(pages, &w.page)
		ages.Sum += w.ages.Sum
		for i, n := range w.ages.Counts {
			ages.Counts[i] += n
		}
	}
	all := page[keyRow]{limit: limit}
	rows, next := all.merge(string(q.Order), pages)
	keys := make([]api.Key, 0, len(rows))
	for _, r := range rows {
		keys = append(keys, r.key)
	}
	return &api.KeyPage{Keys: keys, Matching: all.matching, Ages: &ages, Next: next}, nil
}

// walkKeys visits the keys after a cursor that match a query, as many as fit into a turn, and returns the cursor of the next
// turn, 0 after the last.
func (sh *shard) walkKeys(cursor uint64, q *api.KeyQuery, visit func(lockmgr.Holding)) (next uint64) {
	searched := 0
	for range bucketsPerStep / bucketsPerLook {
		cursor = sh.table.Walk(cursor, bucketsPerLook, func(h lockmgr.Holding) {
			if q.Contains != "" {
				searched += len(h.Key)
			}
			if hasPrefix(h.Key, q.Prefix) && hasPart(h.Key, q.Contains) && isClient(holderOf(h), q.Client) {
				visit(h)
			}
		})
		if cursor == 0 || searched >= bytesPerStep {
			break
		}
	}
	return cursor
}

func newAges() api.Histogram {
	return api.Histogram{Bounds: api.AgeBounds, Counts: make([]uint64, len(api.AgeBounds)+1)}
}

// addAge counts a key by the time for which it has been held.
func addAge(ages *api.Histogram, seconds float64) {
	i, _ := slices.BinarySearch(ages.Bounds, seconds)
	ages.Counts[i]++
	ages.Sum += seconds
}

// keyNumbers return the number by which each order sorts, the greatest first.
var keyNumbers = map[api.KeyOrder]func(lockmgr.Holding) int64{
	api.ByKey:     func(lockmgr.Holding) int64 { return 0 },
	api.ByWaiters: func(h lockmgr.Holding) int64 { return int64(h.Waiters) },
	api.ByAge:     func(h lockmgr.Holding) int64 { return -int64(h.Since) },
	api.ByWait: func(h lockmgr.Holding) int64 {
		if h.First == nil {
			return math.MinInt64
		}
		return -int64(sinceOf(h.First))
	},
}

func hasPrefix(key []byte, prefix string) bool {
	return len(key) >= len(prefix) && string(key[:len(prefix)]) == prefix
}

func hasPart(key []byte, part string) bool {
	return part == "" || bytes.Contains(key, []byte(part))
}

// isClient reports whether a part of what is known of a client is the text.
func isClient(h interface{ peer() api.Peer }, text string) bool {
	if text == "" {
		return true
	}
	p := h.peer()
	return slices.ContainsFunc([]string{p.Name, p.Address, p.Identity, p.Owner}, func(s string) bool { return strings.Contains(s, text) })
}

// holderOf returns the holder of a key, the former one if the key rests.
func holderOf(h lockmgr.Holding) holder { return h.Owner.Tag.(holder) }

// sinceOf returns since when a waiter waits.
func sinceOf(w *lockmgr.Waiter) time.Duration {
	since, _ := w.Tag.(queued).wait()
	return since
}

// minRest is what is said of how long a key rests that is about to go on.
const minRest = time.Millisecond

// describe describes a key that is held or rests, without its queue.
func (sh *shard) describe(h lockmgr.Holding) api.Key {
	k := api.Key{
		Key:         string(h.Key),
		Holder:      holderOf(h).peer(),
		Since:       sh.loop.Time(h.Since),
		Token:       h.Token,
		HeldSeconds: sh.heldSeconds(h),
		Waiters:     h.Waiters,
	}
	if h.Closed {
		k.FreesInSeconds = max(h.Until-sh.loop.Now(), minRest).Seconds()
	}
	if h.First != nil {
		k.LongestWaitSeconds = sh.secondsSince(sinceOf(h.First))
	}
	return k
}

// heldSeconds returns for how long a key has been held, or had been until it began to rest.
func (sh *shard) heldSeconds(h lockmgr.Holding) float64 {
	if h.Closed {
		return max(h.Until-sh.server.cfg.LockDelay-h.Since, 0).Seconds()
	}
	return sh.secondsSince(h.Since)
}

// secondsSince returns how long ago t was, in seconds.
func (sh *shard) secondsSince(t time.Duration) float64 { return max(sh.loop.Now()-t, 0).Seconds() }

// secondsSinceOldest is secondsSince, if there is anything old at all.
func (sh *shard) secondsSinceOldest(t time.Duration, ok bool) float64 {
	if !ok {
		return 0
	}
	return sh.secondsSince(t)
}

// peer returns who is at the other end of the connection. Safe from any goroutine.
func (s *session) peer() api.Peer { return s.known().peer() }

// peer returns who has the identity.
func (i *identity) peer() api.Peer {
	a := i.more()
	return api.Peer{Connection: i.connection, Address: i.address.String(), Identity: a.proven, Name: a.name, Owner: a.owner}
}

// Key returns a key that is held or rests, with the first waiters of its queue, at most as many as queue says: 0, which is none, to
// [api.MaxLimit].
func (srv *Server) Key(ctx context.Context, key string, queue int) (*api.Key, error) {
	if queue < 0 || queue > api.MaxLimit {
		return nil, fmt.Errorf("%w: queue %d: want 0 to %d", api.ErrQuery, queue, api.MaxLimit)
	}
	name := []byte(key)
	hash := srv.seed.Hash(name)
	if !srv.serves() { // there may be no shards yet
		return nil, errNotServing
	}
	owner := srv.shardOf(hash)
	found, err := query(ctx, srv, srv.shards[owner:owner+1], func(sh *shard, k *api.Key) (more bool) {
		h := sh.table.Find(hash, name)
		if h.Owner == nil {
			return false
		}
		*k = sh.describe(h)
		for w := h.First; w != nil && len(k.Queue) < queue; w = w.Next() {
			since, timeout := w.Tag.(queued).wait()
			k.Queue = append(k.Queue, api.Waiter{
				Peer:           w.Tag.(queued).peer(),
				Since:          sh.loop.Time(since),
				WaitedSeconds:  sh.secondsSince(since),
				TimeoutSeconds: timeout.Seconds(),
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
	return nil, notHeld(key)
}

func notHeld(key string) error {
	return fmt.Errorf("%w: nobody holds the key %.64q", api.ErrNotFound, key)
}
