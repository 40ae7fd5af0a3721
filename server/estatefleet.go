package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dreadlock/server/fleet"
)

// How a server that is one of a fleet takes part in a takeover. Without a fleet nothing here does anything.

// greetFleet returns what a successor has to know of the fleet; nil if the server is one of none.
func (srv *Server) greetFleet() *fleet.Greeting {
	if srv.cfg.Fleet == nil {
		return nil
	}
	g := srv.cfg.Fleet.Greeting()
	g.LockDelay = srv.cfg.LockDelay
	return &g
}

// prepareFleet returns why a successor cannot go on as a daemon of the fleet that the predecessor has greeted with; nil if
// it can.
func (srv *Server) prepareFleet(ctx context.Context, g *fleet.Greeting) error {
	store := srv.cfg.Fleet
	switch {
	case store == nil && g == nil:
		return nil
	case store == nil:
		return errors.New("--fleet: the daemon that runs is one of a fleet, and the new one is to be alone: stop it and start the new one")
	case g == nil:
		return errors.New("--fleet: the daemon that runs is alone, and the new one is to be one of a fleet: stop it and start the new one")
	case g.LockDelay != srv.cfg.LockDelay:
		return fmt.Errorf("--lock-delay: %s: the lease in the fleet goes by that of the daemon that runs, %s", srv.cfg.LockDelay, g.LockDelay)
	}
	return store.Prepare(ctx, *g)
}

// suspendFleet has the store stand still: see [fleet.Handover]. It returns for how long the takeover may take at most, 0 if that does not
// matter to the fleet.
func (srv *Server) suspendFleet(ctx context.Context) (left time.Duration, err error) {
	if srv.cfg.Fleet == nil {
		return 0, nil
	}
	until, err := srv.cfg.Fleet.Suspend(ctx)
	if err != nil || until == 0 {
		return 0, err
	}
	if left = until - fleet.Now(); left < minTakeoverTime {
		srv.cfg.Fleet.Resume()
		return 0, fmt.Errorf("the lease of the daemon in its fleet was not renewed, and lasts for %s", left)
	}
	return left, nil
}

// minTakeoverTime is what is left of a lease that was renewed some seconds ago.
const minTakeoverTime = time.Second

// resumeFleet has a store that is suspended go on.
func (srv *Server) resumeFleet() {
	if srv.cfg.Fleet != nil {
		srv.cfg.Fleet.Resume()
	}
}

// yieldFleet leaves the session with the store to the successor.
func (srv *Server) yieldFleet() {
	if srv.cfg.Fleet != nil {
		srv.cfg.Fleet.Yield()
	}
}

// fleetLegacy returns what the store hands over, nil without a fleet. The loops stand still.
func (srv *Server) fleetLegacy() (*fleet.Legacy, error) {
	if srv.cfg.Fleet == nil {
		return nil, nil
	}
	return srv.cfg.Fleet.Legacy()
}

// inheritFleet goes on with what a predecessor's store has handed over, and returns the session; nil if there is none.
func (srv *Server) inheritFleet(l *fleet.Legacy) (fleet.Session, error) {
	switch {
	case (l == nil) != (srv.cfg.Fleet == nil):
		return nil, errors.New("one of the two daemons is one of a fleet, and the other is not")
	case l == nil:
		return nil, nil
	}
	return srv.cfg.Fleet.Inherit(l)
}
