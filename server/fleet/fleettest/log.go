// Package fleettest is a store for a fleet in memory, of which a test decides what happens when: what is written, what of that is
// noticed, and which answers are lost.
package fleettest

import (
	"maps"
	"slices"
	"sync"
	"time"

	"dreadlock/server/fleet"
)

// Log is the store: the places in their order, and all changes since the beginning.
type Log struct {
	// TTL is the time after which a lease ends that is not renewed; Margin is how long before that nothing may be told.
	TTL, Margin time.Duration
	// Now is the time.
	Now func() time.Duration

	revision  uint64
	places    []record
	changes   []fleet.Change
	compacted int                     // of the changes: who has not been told these has to list the places
	leases    map[int64]time.Duration // when they end
	granted   int64                   // leases
}

// record is a place that exists.
type record struct {
	key      string
	place    fleet.Place
	try      bool
	revision uint64
}

func (r *record) change(gone bool) fleet.Change {
	return fleet.Change{Key: []byte(r.key), Place: r.place, Try: r.try, Gone: gone, Revision: r.revision}
}

// NewLog returns an empty store.
func NewLog(ttl, margin time.Duration, now func() time.Duration) *Log {
	return &Log{TTL: ttl, Margin: margin, Now: now, leases: make(map[int64]time.Duration)}
}

// Expire ends the leases whose time has come.
func (l *Log) Expire() {
	for _, lease := range slices.Sorted(maps.Keys(l.leases)) {
		if l.Now() >= l.leases[lease] {
			l.Revoke(lease)
		}
	}
}

// Revoke ends a lease, and with it its places.
func (l *Log) Revoke(lease int64) {
	delete(l.leases, lease)
	l.remove(func(r *record) bool { return r.place.Lease == lease })
}

// RevokeAllBut ends all leases but some.
func (l *Log) RevokeAllBut(some ...int64) {
	for _, lease := range slices.Sorted(maps.Keys(l.leases)) {
		if !slices.Contains(some, lease) {
			l.Revoke(lease)
		}
	}
}

// Lives reports whether a lease has not ended.
func (l *Log) Lives(lease int64) bool {
	_, ok := l.leases[lease]
	return ok
}

// Leases returns the number of leases that have not ended.
func (l *Log) Leases() int { return len(l.leases) }

// Line returns the places for a key, in their order.
func (l *Log) Line(key string) (all []fleet.Place) {
	for _, r := range l.places {
		if r.key == key {
			all = append(all, r.place)
		}
	}
	return all
}

// Places returns the number of places that exist.
func (l *Log) Places() int { return len(l.places) }

// Compact forgets the history, as far as those are concerned who have not been told it.
func (l *Log) Compact() { l.compacted = len(l.changes) }

// History returns all changes of a key.
func (l *Log) History(key string) []fleet.Change {
	return slices.DeleteFunc(slices.Clone(l.changes), func(c fleet.Change) bool { return string(c.Key) != key })
}

func (l *Log) remove(which func(*record) bool) {
	l.places = slices.DeleteFunc(l.places, func(r record) bool {
		if !which(&r) {
			return false
		}
		l.changes = append(l.changes, r.change(true))
		return true
	})
}

func (l *Log) has(key string, p fleet.Place) bool {
	return slices.ContainsFunc(l.places, func(r record) bool { return r.key == key && r.place == p })
}

// write applies a transaction of a daemon, as a whole.
func (l *Log) write(lease int64, all []fleet.Operation) {
	l.revision++
	for _, o := range all {
		key := string(o.Key)
		switch {
		case o.Join:
			if l.Lives(lease) && !l.has(key, o.Place) {
				r := record{key, o.Place, o.Try, l.revision}
				l.places = append(l.places, r)
				l.changes = append(l.changes, r.change(false))
			}
		case o.While == 0 || l.has(key, fleet.Place{Lease: lease, Seq: o.While}):
			l.remove(func(r *record) bool { return r.key == key && r.place == o.Place })
		}
	}
}

// Link is a daemon's connection to the store.
type Link struct {
	Log    *Log
	Member fleet.Member

	session *session
	seen    int // of the changes
}

// session is what the daemon sees of it.
type session struct {
	link  *Link
	lease int64
	late  [][]fleet.Operation // transactions whose answers were lost, and which may arrive once more

	mu    sync.Mutex
	seq   uint64
	until time.Duration
	ended bool
	lose  bool
	queue []fleet.Operation
}

// Connect begins a session: the daemon gets a lease, and a list of all places.
func (k *Link) Connect() {
	l := k.Log
	l.granted++
	s := &session{link: k, lease: l.granted, until: l.Now() + l.TTL - l.Margin}
	l.leases[s.lease] = l.Now() + l.TTL + k.Member.Rest()
	k.session, k.seen = s, len(l.changes)
	k.Member.Found(s)
	var all []fleet.Change
	for _, r := range l.places {
		all = append(all, r.change(false))
	}
	k.Member.Changed(s, all)
}

// Lease returns the lease of the session.
func (k *Link) Lease() int64 { return k.session.lease }

// Connected reports whether there is a session.
func (k *Link) Connected() bool { return k.session != nil }

// Renew renews the lease, unless it has ended. The answer takes some time.
func (k *Link) Renew(delay time.Duration) {
	s, l := k.session, k.Log
	if l.Lives(s.lease) && !k.TimeIsUp() {
		l.leases[s.lease] = l.Now() + l.TTL + k.Member.Rest()
		s.mu.Lock()
		s.until = max(s.until, l.Now()-delay+l.TTL-l.Margin)
		s.mu.Unlock()
	}
}

// Queued returns the number of operations that wait to be written.
func (k *Link) Queued() int {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// Write writes the first n operations, as one transaction. If its answer is lost, it may arrive once more, see [Link.Repeat].
func (k *Link) Write(n int, lost bool) {
	s := k.session
	s.mu.Lock()
	some := s.queue[:min(n, len(s.queue))]
	s.queue = s.queue[len(some):]
	s.mu.Unlock()
	k.Log.write(s.lease, some)
	if lost {
		s.late = append(s.late, some)
	}
}

// Repeat has a transaction whose answer was lost arrive once more, and reports whether there is one.
func (k *Link) Repeat() bool {
	s := k.session
	if len(s.late) == 0 {
		return false
	}
	k.Log.write(s.lease, s.late[0])
	s.late = s.late[1:]
	return true
}

// Unseen returns the number of changes that the daemon has not been told.
func (k *Link) Unseen() int { return len(k.Log.changes) - k.seen }

// Watch tells the daemon the next n changes. If the history was compacted, it tells what is different by now from what is known.
func (k *Link) Watch(n int) {
	if k.seen < k.Log.compacted {
		k.list()
		return
	}
	some := k.Log.changes[k.seen:min(k.seen+n, len(k.Log.changes))]
	k.seen += len(some)
	k.Member.Changed(k.session, slices.Clone(some))
}

// Until returns until when grants may be told, if there is a session.
func (k *Link) Until() time.Duration { return k.session.Until() }

// TimeIsUp reports whether nothing may be told any more.
func (k *Link) TimeIsUp() bool {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	return k.Log.Now() >= s.until
}

// MustLose reports whether the session has to end: its time is up, or the daemon has seen that its lease is gone.
func (k *Link) MustLose() bool {
	return k.session != nil && (k.session.isLost() || k.TimeIsUp())
}

// Lose ends the session. Its lease ends when that is noticed.
func (k *Link) Lose(revoke bool) {
	s := k.session
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	rests := k.Member.Lost(s, nil)
	k.session = nil
	if revoke && !rests {
		k.Log.Revoke(s.lease)
	}
}

func (s *session) Lease() int64 { return s.lease }

func (s *session) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lose
}

func (s *session) add(o fleet.Operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.queue = append(s.queue, o)
	}
}

func (s *session) Join(key []byte, try bool) uint64 {
	s.mu.Lock()
	s.seq++
	seq := s.seq
	s.mu.Unlock()
	s.add(fleet.Operation{Key: slices.Clone(key), Place: fleet.Place{Lease: s.lease, Seq: seq}, Join: true, Try: try})
	return seq
}

func (s *session) Leave(key []byte, seq uint64) {
	s.add(fleet.Operation{Key: slices.Clone(key), Place: fleet.Place{Lease: s.lease, Seq: seq}})
}

func (s *session) Refuse(key []byte, try fleet.Place, seq uint64) {
	s.add(fleet.Operation{Key: slices.Clone(key), Place: try, While: seq})
}

func (s *session) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = true
}

func (s *session) Until() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.lose {
		return 0
	}
	return s.until
}
