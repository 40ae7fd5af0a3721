package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dreadlock/server/fleet"
)

// errSuspended ends what Run does, since a takeover is under way.
var errSuspended = errors.New("a takeover is under way")

// suspension is what Suspend and Run share.
type suspension struct {
	session *session      // set before stands is closed; nil without one
	stands  chan struct{} // closed by Run, which does nothing any more
	over    chan struct{} // closed when the takeover is over
	yielded bool          // set before over is closed
}

// stand has Run do nothing until the takeover is over, and reports whether the session is the successor's then.
func (p *suspension) stand(se *session) bool {
	p.session = se
	close(p.stands)
	<-p.over
	return p.yielded
}

// suspended returns the suspension that is under way, nil if there is none.
func (s *Store) suspended() *suspension {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspension
}

// turn returns a context for what Run does until it is suspended.
func (s *Store) turn(ctx context.Context) (turn context.Context, end func()) {
	turn, interrupt := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = interrupt
	if s.suspension != nil {
		interrupt(errSuspended)
	}
	return turn, func() { interrupt(nil) }
}

// Suspend has Run stand still: see [fleet.Handover].
func (s *Store) Suspend(ctx context.Context) (until time.Duration, err error) {
	p := &suspension{stands: make(chan struct{}), over: make(chan struct{})}
	s.mu.Lock()
	if s.suspension != nil {
		s.mu.Unlock()
		return 0, errSuspended
	}
	s.suspension = p
	if s.interrupt != nil {
		s.interrupt(errSuspended)
	}
	s.mu.Unlock()
	select {
	case <-p.stands:
	case <-ctx.Done():
		s.endSuspension(false)
		return 0, fmt.Errorf("the store of the fleet does not come to rest: %w", context.Cause(ctx))
	}
	if !p.inTouch() {
		return 0, nil
	}
	return p.session.Until(), nil
}

// inTouch reports whether a suspended store has a session that the member knows.
func (p *suspension) inTouch() bool { return p.session != nil && p.session.found }

// Resume has Run go on: see [fleet.Handover].
func (s *Store) Resume() { s.endSuspension(false) }

// Yield ends Run, which leaves the session to the successor: see [fleet.Handover].
func (s *Store) Yield() { s.endSuspension(true) }

func (s *Store) endSuspension(yield bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.suspension
	if p == nil {
		return
	}
	s.suspension = nil
	if p.yielded = yield; yield && s.session != nil {
		s.session.until.Store(0)
	}
	close(p.over)
}

// storeName is the kind of the store.
const storeName = "etcd"

// Greeting says what a successor has to know: see [fleet.Handover].
func (s *Store) Greeting() fleet.Greeting {
	s.mu.Lock()
	se := s.session
	s.mu.Unlock()
	g := fleet.Greeting{Store: storeName, Name: s.cfg.Prefix}
	if se != nil && se.left() > 0 {
		g.Space = s.Space()
	}
	return g
}

// Prepare says why the session of a predecessor cannot be gone on with: see [fleet.Handover].
func (s *Store) Prepare(ctx context.Context, g fleet.Greeting) error {
	if err := s.fits(&g); err != nil || g.Space == 0 {
		return err
	}
	if err := s.health.demand(ctx); err != nil {
		return err
	}
	var text string
	err := s.endpoints.try(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Get(ctx, s.names.space)
		if err == nil && len(answer.Kvs) > 0 {
			text = string(answer.Kvs[0].Value)
		}
		return err
	})
	if err != nil {
		return s.cannot("ask for the lock space", err)
	}
	if want := spaceText(g.Space); text != want {
		return fmt.Errorf("--fleet: etcd has the lock space %q, and the daemon that runs is one of %s", text, want)
	}
	return nil
}

// fits says why the fleet of a predecessor is another one.
func (s *Store) fits(g *fleet.Greeting) error {
	switch {
	case g.Store != storeName:
		return fmt.Errorf("--fleet: the daemon that runs has its fleet on another store: %q", g.Store)
	case g.Name != s.cfg.Prefix:
		return fmt.Errorf("--fleet-prefix: %s is not the fleet of the daemon that runs, which is %s", s.cfg.Prefix, g.Name)
	}
	return nil
}
