package fleettest

import (
	"context"
	"fmt"
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

// Compact forgets the history, as far as it was not told.
func (f *Fleet) Compact() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Compact()
}

// Places returns the number of places that exist.
func (f *Fleet) Places() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Places()
}

// Store returns what a server of the fleet is given.
func (f *Fleet) Store() *Store {
	return &Store{fleet: f, link: &Link{Log: f.log}, yielded: make(chan struct{})}
}

// Store is the fleet as one server sees it.
type Store struct {
	fleet   *Fleet
	link    *Link
	renewed time.Time

	// The mutex of the fleet guards them.
	suspended bool
	yielded   chan struct{} // closed when the session is a successor's
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
		case <-s.yielded:
			return
		case <-ctx.Done():
			if s.end() {
				return
			}
			<-ticker.C // a takeover is under way
		}
	}
}

// end ends the session, unless a takeover is under way.
func (s *Store) end() (ended bool) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if s.suspended {
		return false
	}
	if s.link.Connected() {
		s.link.Lose(true)
	}
	return true
}

func (s *Store) step() {
	f, k := s.fleet, s.link
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.suspended {
		return
	}
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

// Greeting says what a successor has to know: see [fleet.Handover].
func (s *Store) Greeting() fleet.Greeting {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	return s.greeting()
}

func (s *Store) greeting() fleet.Greeting {
	g := fleet.Greeting{Store: storeName}
	if s.link.Connected() {
		g.Space = s.fleet.Space
	}
	return g
}

// Prepare says whether it is the same fleet: see [fleet.Handover].
func (s *Store) Prepare(_ context.Context, g fleet.Greeting) error {
	if g.Store != storeName || g.Space != 0 && g.Space != s.fleet.Space {
		return fmt.Errorf("--fleet: the fleet is not that of the daemon that runs: %q, %x", g.Store, g.Space)
	}
	return nil
}

// Suspend has the store stand still: see [fleet.Handover].
func (s *Store) Suspend(context.Context) (until time.Duration, err error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.suspended = true
	if s.link.Connected() {
		until = s.link.Until()
	}
	return until, nil
}

// Legacy returns the session: see [fleet.Handover].
func (s *Store) Legacy() (*fleet.Legacy, error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	l, err := s.link.Legacy()
	if err == nil {
		l.Greeting = s.greeting()
	}
	return l, err
}

// Resume has the store go on: see [fleet.Handover].
func (s *Store) Resume() {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.suspended = false
}

// Yield ends Run: see [fleet.Handover].
func (s *Store) Yield() {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.link.Yield(&Link{})
	close(s.yielded)
}

// Inherit has Run go on with a session: see [fleet.Handover].
func (s *Store) Inherit(l *fleet.Legacy) (fleet.Session, error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	if se := s.link.Inherit(l); se != nil {
		return se, nil
	}
	return nil, nil
}
