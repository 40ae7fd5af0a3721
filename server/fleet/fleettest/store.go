package fleettest

import (
	"context"
	"strconv"
	"sync"
	"time"

	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

// Fleet is a [Log] that real servers share, in real time: what one writes all see soon.
type Fleet struct {
	Space uint64 // see [fleet.Store]

	mu  sync.Mutex
	log *Log
}

// NewFleet returns a store whose leases last for that long.
func NewFleet(ttl time.Duration) *Fleet {
	return &Fleet{Space: 0xf1ee7, log: NewLog(ttl, ttl/5, fleet.Now)}
}

// Revoke ends the lease of a server by hand.
func (f *Fleet) Revoke(s *Store) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.link.Connected() {
		f.log.Revoke(s.link.Lease())
	}
}

// Places returns the number of places that exist.
func (f *Fleet) Places() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Places()
}

// Store returns what a server of the fleet is given.
func (f *Fleet) Store() *Store { return &Store{fleet: f, link: &Link{Log: f.log}} }

// Store is the fleet as one server sees it.
type Store struct {
	fleet   *Fleet
	link    *Link
	renewed time.Time
}

var _ fleet.Store = (*Store)(nil)

// storeStep is the time between two looks at what is to be written and seen.
const storeStep = 200 * time.Microsecond

// Run keeps the server in touch: see [fleet.Store].
func (s *Store) Run(ctx context.Context, m fleet.Member) {
	s.link.Member = m
	ticker := time.NewTicker(storeStep)
	defer ticker.Stop()
	for {
		s.step()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			s.fleet.mu.Lock()
			defer s.fleet.mu.Unlock()
			s.link.Lose(true)
			return
		}
	}
}

func (s *Store) step() {
	f, k := s.fleet, s.link
	f.mu.Lock()
	defer f.mu.Unlock()
	if !k.Connected() {
		k.Connect()
	}
	if now := time.Now(); now.Sub(s.renewed) > f.log.TTL/100 {
		s.renewed = now
		f.log.Expire()
		k.Renew(0)
	}
	if k.MustLose() || !f.log.Lives(k.Lease()) {
		k.Lose(true)
		return
	}
	if k.Queued() > 0 {
		k.Write(128, false)
	}
	if k.Unseen() > 0 {
		k.Watch(k.Unseen())
	}
}

// Status says whether the server is in touch.
func (s *Store) Status() *api.Fleet {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	return &api.Fleet{Store: "memory", InTouch: s.link.Connected(), AllPlaces: s.fleet.log.Places()}
}

// Space names the lock space.
func (s *Store) Space() uint64 { return s.fleet.Space }

// Address returns an address that names the lease.
func (s *Store) Address(lease int64) string { return "daemon" + strconv.FormatInt(lease, 10) + ":6001" }
