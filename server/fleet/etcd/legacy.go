package etcd

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"dreadlock/server/fleet"
)

// Legacy returns the session of a store that is suspended: see [fleet.Handover].
func (s *Store) Legacy() (*fleet.Legacy, error) {
	p := s.suspended()
	if p == nil {
		return nil, errors.New("the store of the fleet is not suspended")
	}
	l := &fleet.Legacy{Greeting: fleet.Greeting{Store: storeName, Name: s.cfg.Prefix, Space: s.Space()}, Counters: make(map[string]uint64)}
	s.mu.Lock()
	l.Since, l.Reason, l.Revision = s.since, s.reason, uint64(s.revision)
	for reason, n := range s.lost {
		l.Counters[lostName+reason] = n
	}
	s.mu.Unlock()
	for name, n := range s.counters.all() {
		l.Counters[name] = n.Load()
	}
	if !p.inTouch() {
		return l, nil
	}
	if p.session.left() <= 0 {
		return nil, errors.New("the daemon has lost touch with its fleet")
	}
	p.session.bequeath(l)
	return l, nil
}

// lostName is what the names of the counters of lost sessions begin with.
const lostName = "lost "

// all returns the counters by name.
func (c *counters) all() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{
		"transactions": &c.transactions, "operations": &c.operations, "repeats": &c.repeats, "watch restarts": &c.watchRestarts,
		"lists": &c.lists,
	}
}

// bequeath adds a session that does not run.
func (se *session) bequeath(l *fleet.Legacy) {
	n := &se.store.names
	l.Lease, l.TTL, l.Rest, l.Until, l.Since, l.Seq = se.lease, se.ttl, se.rest, se.Until(), se.began, se.seq.Load()
	for _, o := range se.writer.queued() {
		if asked, ok := n.asked(&o); ok {
			l.Queue = append(l.Queue, asked)
		}
	}
	for _, j := range se.joins.sorted() {
		if asked, ok := n.asked(&j.operation); ok {
			l.Unseen = append(l.Unseen, fleet.Unseen{Operation: asked, Revision: uint64(j.revision)})
		}
	}
	se.mu.Lock()
	defer se.mu.Unlock()
	v := se.view
	l.Revision, l.Listed, l.Beat = uint64(v.revision), uint64(v.listed), se.beat.number
	l.Relist = se.watcher.needsList()
	for _, p := range v.places {
		l.Places = append(l.Places, p.change)
	}
	slices.SortFunc(l.Places, compare)
	now := time.Now()
	for lease, d := range v.daemons {
		l.Daemons = append(l.Daemons, fleet.Daemon{
			Lease: lease, Address: d.Address, Version: d.Version, Space: d.Space, Beat: d.Beat, Age: now.Sub(d.seen),
		})
	}
	slices.SortFunc(l.Daemons, func(a, b fleet.Daemon) int { return cmp.Compare(a.Lease, b.Lease) })
}

// Inherit has Run go on with the session of a predecessor: see [fleet.Handover].
func (s *Store) Inherit(l *fleet.Legacy) (fleet.Session, error) {
	if err := s.fits(&l.Greeting); err != nil {
		return nil, err
	}
	s.space.Store(l.Greeting.Space)
	for name, n := range s.counters.all() {
		n.Store(l.Counters[name])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range l.Counters {
		if reason, ok := strings.CutPrefix(name, lostName); ok {
			s.lost[reason] = n
		}
	}
	s.since, s.reason = l.Since, l.Reason
	if l.Lease == 0 {
		s.revision = int64(l.Revision)
		return nil, nil
	}
	se := makeSession(s, l.Lease, l.TTL, l.Rest)
	se.inherit(l)
	s.session, s.inherited = se, se
	return se, nil
}

// inherit takes over a session, which the member knows.
func (se *session) inherit(l *fleet.Legacy) {
	n := &se.store.names
	se.found, se.began = true, l.Since
	se.until.Store(int64(l.Until))
	se.seq.Store(l.Seq)
	for _, u := range l.Unseen {
		o := n.operation(&u.Operation, se.lease)
		se.joins.all[o.name] = &join{operation: o, revision: int64(u.Revision)}
	}
	for i := range l.Queue {
		se.writer.add(n.operation(&l.Queue[i], se.lease))
	}
	se.beat.number = l.Beat
	v := se.view
	v.revision, v.listed = int64(l.Revision), int64(l.Listed)
	if !l.Relist {
		se.watcher.next = v.revision + 1
	}
	for _, c := range l.Places {
		v.places[n.place(c.Key, c.Place)] = &seenPlace{change: c}
	}
	now := time.Now()
	for _, d := range l.Daemons {
		v.daemons[d.Lease] = &seenDaemon{
			daemonValue: daemonValue{Address: d.Address, Version: d.Version, Space: d.Space, Beat: d.Beat},
			seen:        now.Add(-d.Age), places: v.placesOf(d.Lease),
		}
	}
}
