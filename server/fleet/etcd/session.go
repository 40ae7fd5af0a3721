package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

const (
	// margin is how long before the end of the lease nothing may be told any more: what was told is on its way, and may be believed, for
	// some time.
	margin = 2 * time.Second
	// beatTime is the time from one sign of life of this daemon to the next.
	beatTime = 2 * time.Second
	// watchPatience is how long after it was written a sign of life may be on its way.
	watchPatience = 4 * time.Second
	// countBeats is after how many signs of life the places are counted, to find out whether events were lost.
	countBeats = 5
	// lookTime is how often the clocks are looked at: a suspended machine stops timers.
	lookTime = 250 * time.Millisecond
)

// endError says why the session ended, by one of [api.LossReasons].
type endError struct {
	reason string
	text   string
}

func (e *endError) Error() string { return e.text }

// session is a lease, and what was seen since it was granted.
type session struct {
	store *Store
	log   zerolog.Logger
	lease int64
	rest  time.Duration // that the lease lasts longer than ttl
	ttl   time.Duration
	began time.Time

	// Safe from any goroutine.
	until  atomic.Int64 // nanoseconds on CLOCK_BOOTTIME, 0 once the session is lost
	seq    atomic.Uint64
	writer *writer
	joins  *joins
	end    chan struct{} // closed by the first call of lose

	endOnce sync.Once
	cause   *endError // set before end is closed

	// Of session.run.
	found   bool          // the member was told of the session
	renewAt time.Duration // from the beginning of run: when the lease is renewed for the first time
	beats   bool          // the first sign of life was asked for
	watcher *watcher
	shown   chan shown   // from the watcher
	counted chan counted // from counting places

	mu   sync.Mutex
	view *view
	beat beat
}

// beat is the last sign of life of this daemon. The mutex of the session guards it.
type beat struct {
	number  uint64
	asked   time.Time
	written time.Time     // zero until an answer has come
	seen    bool          // by the watch
	lag     time.Duration // of the last that was seen
}

// shown is what the watcher has seen.
type shown struct {
	listed   bool
	list     []*clientKV
	events   []*clientEvent
	revision int64
}

// counted is the number of places that there were when a view had others.
type counted struct {
	revision   int64
	want, have int64
}

func newSession(s *Store, g *clientv3.LeaseGrantResponse, sent, rest time.Duration) *session {
	ttl := time.Duration(g.TTL)*time.Second - rest
	se := makeSession(s, int64(g.ID), ttl, rest)
	se.until.Store(int64(sent + ttl - margin))
	se.renewAt = se.renewTime()
	return se
}

// makeSession makes a session of a lease of which nothing is known yet.
func makeSession(s *Store, lease int64, ttl, rest time.Duration) *session {
	se := &session{
		store: s, log: s.cfg.Log.With().Str("lease", leaseText(lease)).Logger(), lease: lease, rest: rest, ttl: ttl, began: time.Now(),
		joins: newJoins(), end: make(chan struct{}), shown: make(chan shown), counted: make(chan counted, 1),
	}
	se.view = newView(&s.names, lease, se.joins)
	se.watcher = &watcher{session: se}
	se.writer = &writer{
		lease: clientv3.LeaseID(lease), endpoints: s.endpoints, counters: &s.counters, log: se.log, wake: make(chan struct{}, 1),
		written: se.written, gone: se.leaseGone,
	}
	return se
}

// Lease returns the lease: see [fleet.Session].
func (se *session) Lease() int64 { return se.lease }

// Until returns up to when a grant may be told: see [fleet.Session].
func (se *session) Until() time.Duration { return time.Duration(se.until.Load()) }

// Join asks for a place: see [fleet.Session].
func (se *session) Join(key []byte, try bool) (seq uint64) {
	seq = se.seq.Add(1)
	if se.Until() == 0 {
		return seq
	}
	o := operation{name: se.store.names.place(key, fleet.Place{Lease: se.lease, Seq: seq}), put: true, seq: seq}
	if try {
		o.value = tryValue
	}
	se.joins.add(o)
	se.writer.add(o)
	return seq
}

// Leave gives up a place: see [fleet.Session].
func (se *session) Leave(key []byte, seq uint64) {
	if se.Until() != 0 {
		se.writer.add(operation{name: se.store.names.place(key, fleet.Place{Lease: se.lease, Seq: seq})})
	}
}

// Refuse takes away a try of another daemon: see [fleet.Session].
func (se *session) Refuse(key []byte, try fleet.Place, seq uint64) {
	if se.Until() != 0 {
		n := &se.store.names
		se.writer.add(operation{name: n.place(key, try), while: n.place(key, fleet.Place{Lease: se.lease, Seq: seq})})
	}
}

// Lose says that a place is gone that was not left: see [fleet.Session].
func (se *session) Lose() {
	se.lose(api.LostPlace,
		"a place was taken away that this daemon had not left: the lease was revoked, or somebody deletes what is the fleet's")
	se.until.Store(0)
}

func (se *session) leaseGone() {
	se.lose(api.LostLease, "the lease does not exist any more: it was revoked, or has expired")
}

// lose has the session end. Safe from any goroutine; only the first call counts.
func (se *session) lose(reason, text string) {
	se.endOnce.Do(func() {
		se.cause = &endError{reason, text}
		close(se.end)
	})
}

// written takes note of what the writer has written.
func (se *session) written(group []operation, revision int64) {
	se.joins.written(group, revision)
	se.mu.Lock()
	defer se.mu.Unlock()
	own := se.store.names.daemon(se.lease)
	for i := range group {
		if group[i].name == own && se.beat.written.IsZero() {
			se.beat.written = time.Now()
		}
	}
	if se.view.listed >= revision { // before the answer came
		se.writer.add(se.joins.unseen(se.view.listed)...)
	}
}

// run serves a session until it is lost, and returns why, and whether its lease has to be left to expire. All the while it renews the
// lease, writes and watches. If ctx is done by [errSuspended] it returns no cause, and may be called again.
func (se *session) run(ctx context.Context, m fleet.Member) (cause *endError, rests bool) {
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() { se.renew(ctx, calls, se.renewAt) })
	helpers.Go(func() { se.writer.run(ctx, calls) })
	helpers.Go(func() { se.watcher.run(ctx) })
	if !se.beats {
		se.beats = true
		se.nextBeat()
	}
	cause = se.serve(ctx, &helpers, m)
	if cause == nil {
		helpers.Wait()
		se.renewAt = 0
		return nil, false
	}
	se.until.Store(0)
	cancel()
	cut()
	if se.found {
		rests = m.Lost(se, cause)
	}
	return cause, rests
}

// serve calls the member with what was seen, until the session is lost. It returns nil if it is suspended.
func (se *session) serve(ctx context.Context, helpers *sync.WaitGroup, m fleet.Member) *endError {
	look := time.NewTicker(lookTime)
	defer look.Stop()
	upTo := time.NewTimer(se.left())
	defer upTo.Stop()
	for {
		select {
		case s := <-se.shown:
			if !se.found {
				se.found = true
				m.Found(se)
				se.store.begun(se)
			}
			se.take(ctx, helpers, m, s)
		case c := <-se.counted:
			if c.want != c.have {
				se.watcher.again(fmt.Errorf("events were lost: there are %d places, and %d are known", c.have, c.want))
			}
		case <-se.end:
			return se.cause
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSuspended) {
				return nil
			}
			se.lose(api.LostStopped, "the daemon stops")
			return se.cause
		case <-upTo.C:
		case <-look.C:
			se.look()
		}
		left := se.left()
		if left <= 0 {
			se.lose(api.LostTime, fmt.Sprintf("etcd did not renew the lease in time: nothing may be told any more %s after it was renewed last",
				se.ttl-margin))
			return se.cause
		}
		upTo.Reset(left)
	}
}

// left returns for how long grants may be told.
func (se *session) left() time.Duration { return se.Until() - fleet.Now() }

// take tells the member what was seen.
func (se *session) take(ctx context.Context, helpers *sync.WaitGroup, m fleet.Member, s shown) {
	now := time.Now()
	se.mu.Lock()
	var f findings
	if s.listed {
		f = se.view.list(s.list, s.revision, now)
	} else {
		f = se.view.show(s.events, s.revision, now)
	}
	if f.beat == se.beat.number && f.beat > 0 && !se.beat.seen {
		se.beat.seen, se.beat.lag = true, now.Sub(se.beat.asked)
		if f.beat%countBeats == 0 {
			c := counted{revision: se.view.revision, want: int64(len(se.view.places))}
			helpers.Go(func() { se.count(ctx, c) })
		}
	}
	se.mu.Unlock()
	se.writer.add(f.again...)
	if len(f.changes) > 0 || s.listed {
		m.Changed(se, f.changes)
	}
	if f.dead {
		se.leaseGone()
	}
	if f.lost {
		se.watcher.again(errors.New("events were lost"))
	}
}

// look begins a new sign of life when it is time, and has the watch begun anew if the last one does not come, or will not.
func (se *session) look() {
	se.watcher.avoid()
	se.mu.Lock()
	b, now := se.beat, time.Now()
	se.mu.Unlock()
	switch {
	case b.seen && now.Sub(b.asked) >= beatTime:
		se.nextBeat()
	case !b.seen && !b.written.IsZero() && now.Sub(b.written) > watchPatience && se.watcher.stands() > watchPatience:
		se.watcher.again(fmt.Errorf("it hangs: what was written %s ago has not come", now.Sub(b.written).Round(time.Millisecond)))
	}
}

// nextBeat writes a sign of life. The one before was seen.
func (se *session) nextBeat() {
	se.mu.Lock()
	se.beat.number++
	se.beat.asked, se.beat.written, se.beat.seen = time.Now(), time.Time{}, false
	number := se.beat.number
	se.mu.Unlock()
	value, err := json.Marshal(&daemonValue{
		Address: se.store.cfg.Address(), Version: se.store.cfg.Version, Space: spaceText(se.store.Space()), Beat: number,
	})
	if err != nil {
		panic(err) // it is two texts and a number
	}
	se.writer.add(operation{name: se.store.names.daemon(se.lease), put: true, value: string(value)})
}

// count asks for the number of places at a revision.
func (se *session) count(ctx context.Context, c counted) {
	err := se.store.endpoints.once(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Get(ctx, se.store.names.places, clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(c.revision))
		if err == nil {
			c.have = answer.Count
		}
		return err
	})
	if err != nil {
		return // that revision is compacted, or nobody answers; it is counted again soon
	}
	select {
	case se.counted <- c:
	case <-ctx.Done():
	}
}
