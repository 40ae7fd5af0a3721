package fleettest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dreadlock/server/api"
	"dreadlock/server/fleet"
)

const (
	// liveTTL and liveMargin are those of a [Live], long enough for a machine that is busy.
	liveTTL, liveMargin = time.Minute, 2 * time.Second
	// liveRenewal is the time between two renewals of a lease.
	liveRenewal = time.Second
)

// Live is a store in memory in which everything happens by itself, and at once: for tests of real servers in one process. Its
// methods are safe from any goroutine.
type Live struct {
	space uint64

	mu      sync.Mutex
	log     *Log
	members map[*liveMember]bool
}

// NewLive returns an empty store, with the name of its lock space.
func NewLive(space uint64) *Live {
	return &Live{space: space, log: NewLog(liveTTL, liveMargin, fleet.Now), members: make(map[*liveMember]bool)}
}

// Store returns what one server gets to join.
func (l *Live) Store() fleet.Store { return &liveStore{live: l} }

// Revoke ends the lease of a server by hand: of one that Store has returned.
func (l *Live) Revoke(s fleet.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := s.(*liveStore).link; k != nil && k.Connected() {
		l.log.Revoke(k.Lease())
		l.notify()
	}
}

// Places returns the number of places that exist.
func (l *Live) Places() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Places()
}

// notify lets all members see what has changed. Under the mutex.
func (l *Live) notify() {
	for m := range l.members {
		select {
		case m.news <- struct{}{}:
		default:
		}
	}
}

// liveStore is [Live] for one server.
type liveStore struct {
	live *Live
	link *Link // nil before it runs
}

// Run is that of [fleet.Store].
func (s *liveStore) Run(ctx context.Context, member fleet.Member) {
	l := s.live
	m := &liveMember{Member: member, live: l, news: make(chan struct{}, 1)}
	link := &Link{Log: l.log, Member: m}
	renewal := time.NewTicker(liveRenewal)
	defer renewal.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.link = link
	l.members[m] = true
	for ctx.Err() == nil {
		if !link.Connected() {
			link.Connect()
		}
		link.Write(link.Queued(), false)
		link.Renew(0)
		if link.Unseen() > 0 {
			l.notify()
			link.Watch(link.Unseen())
		}
		if link.MustLose() || !l.log.Lives(link.Lease()) {
			link.Lose(true)
			l.notify()
			continue
		}
		l.mu.Unlock()
		select {
		case <-m.news:
		case <-renewal.C:
		case <-ctx.Done():
		}
		l.mu.Lock()
	}
	if link.Connected() {
		link.Lose(true)
	}
	delete(l.members, m)
	l.notify()
}

// Status is that of [fleet.Store].
func (s *liveStore) Status() *api.Fleet {
	return &api.Fleet{Store: "memory", Space: fmt.Sprintf("%016x", s.live.space), InTouch: true}
}

// Space is that of [fleet.Store].
func (s *liveStore) Space() uint64 { return s.live.space }

// Address is that of [fleet.Store]: it names the lease.
func (s *liveStore) Address(lease int64) string { return fmt.Sprintf("daemon%d:6001", lease) }

// liveMember is the server, called under the mutex. Its sessions take the mutex.
type liveMember struct {
	fleet.Member
	live    *Live
	news    chan struct{} // has a token if there may be something to do
	session fleet.Session
}

func (m *liveMember) Found(s fleet.Session) {
	m.session = &liveSession{s, m.live}
	m.Member.Found(m.session)
}

func (m *liveMember) Changed(_ fleet.Session, changes []fleet.Change) {
	m.Member.Changed(m.session, changes)
}

// Lost waits for the loops of the server, which may be about to call the session.
func (m *liveMember) Lost(_ fleet.Session, reason error) (rests bool) {
	m.live.mu.Unlock()
	defer m.live.mu.Lock()
	return m.Member.Lost(m.session, reason)
}

// liveSession is a session that any goroutine may call.
type liveSession struct {
	session fleet.Session
	live    *Live
}

func (s *liveSession) lock() (unlock func()) {
	s.live.mu.Lock()
	return func() {
		s.live.notify()
		s.live.mu.Unlock()
	}
}

func (s *liveSession) Lease() int64 { return s.session.Lease() }

func (s *liveSession) Join(key []byte, try bool) uint64 {
	defer s.lock()()
	return s.session.Join(key, try)
}

func (s *liveSession) Leave(key []byte, seq uint64) {
	defer s.lock()()
	s.session.Leave(key, seq)
}

func (s *liveSession) Refuse(key []byte, try fleet.Place, seq uint64) {
	defer s.lock()()
	s.session.Refuse(key, try, seq)
}

func (s *liveSession) Lose() {
	defer s.lock()()
	s.session.Lose()
}

func (s *liveSession) Until() time.Duration {
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	return s.session.Until()
}
