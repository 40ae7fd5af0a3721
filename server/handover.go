package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/takeover"
	"dreadlock/server/unixsock"
)

// How a server hands over to a successor: see package takeover for what the two processes say to each other.
//
//	start the successor ──► greet ──► suspend the fleet ──► pause accepting ──► hold ──► stand still, until it is quiet
//	──► estate ──► commit ──► end
//
// Until greet has returned the clients notice nothing. If anything fails later, everything is let go again, in the other order.

const (
	// startTime is how long a successor may take to start and to prepare. This process serves meanwhile.
	startTime = 15 * time.Second
	// ackTime is how long a successor may take from the commit to the ack, for which it has nothing to do.
	ackTime = 500 * time.Millisecond
	// handTries is the number of successors that are started while the number of connections grows beyond what they are prepared for.
	handTries = 3
)

// errRoom says that connections have come for which the successor has no room.
var errRoom = errors.New("more connections have come than the new process has prepared for")

// handover is a try to hand over.
type handover struct {
	*Server
	successor *takeover.Successor
	prepared  *takeover.Prepared
	room      int // connections that were announced

	since      time.Time           // when clients began to wait; zero if they have not
	suspended  bool                // the fleet
	paused     bool                // accepting
	held       bool                // sessions
	standstill *reactor.Standstill // nil if the loops go on

	loops     []*loopEstate // what they hand over
	size      estateSize    // of that
	carried   int           // connections
	encrypted int           // connections that are not
}

// TakeOver starts a process that takes over everything and returns when that serves; then this server never serves again, and
// its process is to end: see [Config.HandedOver]. Otherwise it serves on, and the error, which wraps [api.ErrTakeover], says why. What is
// logged says who has asked for it. It does not depend on ctx once it has begun. Safe from any goroutine.
func (srv *Server) TakeOver(_ context.Context, by string) (*api.Takeover, error) {
	t, err := srv.handOver(by)
	if errors.Is(err, errHanded) { // that was one
		return nil, fmt.Errorf("%w: %w", api.ErrTakeover, err)
	}
	if err != nil {
		srv.takeoversFailed.Add(1)
		srv.cfg.Log.Error().Str("by", by).Str("reason", err.Error()).Msg("no takeover: this process serves on")
		return nil, fmt.Errorf("%w: %w", api.ErrTakeover, err)
	}
	return t, nil
}

func (srv *Server) handOver(by string) (*api.Takeover, error) {
	switch {
	case !srv.serves():
		return nil, errors.New("the daemon does not serve yet, or not any more")
	case srv.cfg.Successor == nil:
		return nil, errors.New("this process cannot start another one")
	case srv.cfg.Predecessor != nil && !isClosed(srv.cfg.Predecessor.Left()):
		return nil, errUnderWay
	}
	ctx, end, err := srv.turnover.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	room := int(srv.connections.Load())
	for try := 1; ; try++ {
		h := &handover{Server: srv, room: room}
		err := h.run(ctx, by)
		if err == nil {
			return h.finish(by), nil
		}
		if h.successor != nil {
			h.successor.Abort(err)
		}
		h.letGo()
		if h.successor != nil {
			h.successor.End()
		}
		if !errors.Is(err, errRoom) || try == handTries {
			return nil, err
		}
		room = 2 * max(h.room, int(srv.connections.Load()))
	}
}

// run does everything up to the ack. After an error the rest is the caller's.
func (h *handover) run(ctx context.Context, by string) (err error) {
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()
	if h.successor, err = h.cfg.Successor(); err != nil {
		return err
	}
	h.cfg.Log.Info().Str("by", by).Int("pid", h.successor.PID()).Msg("dreadlock starts a process that is to take over")
	if err := h.greet(ctx); err != nil {
		return err
	}
	defer pauseCollector()()
	bounded, cancel, err := h.rest(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := h.leave(bounded); err != nil {
		return err
	}
	if !h.standstill.Commit() {
		return errors.New("it has taken too long, and the loops went on")
	}
	// From here on only the successor decides.
	acked, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackTime)
	defer cancel()
	return h.successor.Commit(acked)
}

// pauseCollector has the runtime collect no garbage until resume is called, unless the limit on memory is reached: it would take the
// processors while all clients wait.
func pauseCollector() (resume func()) {
	percent := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(percent) }
}

// greet waits until the successor is prepared.
func (h *handover) greet(ctx context.Context) error {
	listeners, err := h.passedOn()
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	h.prepared, err = h.successor.Greet(ctx, takeover.Hello{
		Version:     h.cfg.Version,
		Start:       h.reactor.Started(),
		KeepAlive:   h.cfg.KeepAlive,
		Loops:       h.cfg.Loops,
		Connections: h.room,
		Fleet:       h.greetFleet(),
	}, listeners)
	return err
}

// passedOn returns the listeners that go to the successor.
func (h *handover) passedOn() (listeners []*takeover.Listener, err error) {
	for _, e := range h.entrances {
		var lock *os.File
		if l, ok := e.listener.(*unixsock.Listener); ok {
			lock = l.Lock()
		}
		l, err := takeover.NewListener(e.key, e.listener, lock)
		if err != nil {
			return listeners, fmt.Errorf("pass on %s: %w", e.url, err)
		}
		listeners = append(listeners, l)
	}
	if h.cfg.AlsoPassed == nil {
		return listeners, nil
	}
	more, err := h.cfg.AlsoPassed()
	return append(listeners, more...), err
}

// leave sends what there is, and compares what the successor has made of it.
func (h *handover) leave(ctx context.Context) error {
	legacy, err := h.fleetLegacy()
	if err != nil {
		return err
	}
	e := h.newEstate(h.loops, legacy)
	var sockets []int
	for _, l := range h.loops {
		sockets = append(sockets, l.sockets...)
		h.encrypted += l.encrypted
	}
	h.size, h.carried = e.Size, len(sockets)
	if h.carried > h.prepared.Room {
		h.room = h.carried
		return errRoom
	}
	memory, err := takeover.NewMemory()
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }() // the successor has it
	if err := e.write(memory); err != nil {
		return err
	}
	announced := takeover.Estate{Since: h.since.Sub(reactor.StartedAt(h.reactor.Started())), Closed: h.encrypted}
	got, err := h.successor.HandOver(ctx, announced, memory, sockets)
	if err != nil {
		return err
	}
	if want := estateDigest(h.loops); !bytes.Equal(got, want.bytes()) {
		return errors.New("the new process has not got what this one has: the digests differ")
	}
	return nil
}
