package etcd

import (
	"cmp"
	"slices"
	"time"

	"dreadlock/server/api"
)

// Status returns what is known: see [fleet.Store].
func (s *Store) Status() *api.Fleet {
	st := &api.Fleet{
		Store: "etcd", Prefix: s.cfg.Prefix, TTLSeconds: s.cfg.TTL.Seconds(),
		Transactions: s.counters.transactions.Load(), Operations: s.counters.operations.Load(), Repeats: s.counters.repeats.Load(),
		WatchRestarts: s.counters.watchRestarts.Load(), Lists: s.counters.lists.Load(),
		Daemons: []api.FleetDaemon{}, Lost: make(map[string]uint64),
	}
	if space := s.Space(); space != 0 {
		st.Space = spaceText(space)
	}
	s.health.mu.Lock()
	st.Members = append([]api.StoreMember{}, s.health.members...)
	st.Warnings = slices.Clone(s.health.warnings)
	s.health.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Since, st.Reason = s.since, s.reason
	for _, reason := range api.LossReasons {
		st.Lost[reason] = s.lost[reason]
	}
	if s.session != nil {
		s.session.status(st)
	}
	return st
}

// status adds what a session knows.
func (se *session) status(st *api.Fleet) {
	if refusal := se.writer.refused(); refusal != "" {
		st.Warnings = append(st.Warnings, refusal)
	}
	left := se.left()
	st.InTouch = left > 0
	st.Lease = leaseText(se.lease)
	st.TTLSeconds, st.LeaseLeftSeconds = se.ttl.Seconds(), max(left.Seconds(), 0)
	if !st.InTouch {
		st.Reason = "etcd did not renew the lease in time"
	}
	se.mu.Lock()
	defer se.mu.Unlock()
	now := time.Now()
	lag := se.beat.lag
	if !se.beat.seen && !se.beat.written.IsZero() {
		lag = max(lag, now.Sub(se.beat.written))
	}
	st.WatchLagSeconds = lag.Seconds()
	st.AllPlaces = len(se.view.places)
	for lease, d := range se.view.daemons {
		st.Daemons = append(st.Daemons, api.FleetDaemon{
			Lease: leaseText(lease), Address: d.Address, Version: d.Version, Space: d.Space, Self: lease == se.lease,
			SeenSeconds: now.Sub(d.seen).Seconds(), Places: d.places,
		})
		if lease == se.lease {
			st.Places = d.places
		}
	}
	slices.SortFunc(st.Daemons, func(a, b api.FleetDaemon) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Lease, b.Lease))
	})
}

// Address returns where a daemon of the fleet is reached: see [fleet.Store].
func (s *Store) Address(lease int64) string {
	s.mu.Lock()
	se := s.session
	s.mu.Unlock()
	if se == nil {
		return ""
	}
	se.mu.Lock()
	defer se.mu.Unlock()
	if d := se.view.daemons[lease]; d != nil {
		return d.Address
	}
	return ""
}
