package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/rs/zerolog"

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
	// standTime is how long the clients may have to wait until the commit.
	standTime = 4 * time.Second
	// ackTime is how long a successor may take from the commit to the ack, for which it has nothing to do.
	ackTime = 500 * time.Millisecond
	// quietTime is how long it may take until nothing is under way between loops, and quietPause how long they go on for that.
	quietTime  = 250 * time.Millisecond
	quietPause = 50 * time.Microsecond
	// leaseReserve is what must be left of a lease in a fleet when the successor begins.
	leaseReserve = 300 * time.Millisecond
	// standTries is the number of times that the loops are asked to come to rest, and standPause how long they go on in between.
	standTries = 3
	standPause = 100 * time.Millisecond
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

// rest has everything stand still, and returns the context until whose end it may. Loops that do not come to rest go on for a while,
// and are asked again.
func (h *handover) rest(ctx context.Context) (bounded context.Context, cancel func(), err error) {
	for try := 1; ; try++ {
		bounded, cancel, err = h.suspend(ctx)
		if err == nil {
			err = h.stand(bounded)
		}
		if err == nil {
			h.loops, err = h.leaveLoops()
		}
		if err == nil {
			return bounded, cancel, nil
		}
		cancel()
		if !errors.Is(err, errBusy) || try == standTries {
			return nil, nil, err
		}
		h.letGo()
		if !pause(ctx, standPause) {
			return nil, nil, ctx.Err()
		}
	}
}

// suspend suspends the fleet. The context that it returns is done when the takeover has taken too long, for the clients or for the lease.
func (h *handover) suspend(ctx context.Context) (bounded context.Context, cancel func(), err error) {
	bounded, cancel = context.WithTimeout(ctx, standTime)
	left, err := h.suspendFleet(bounded)
	if err != nil {
		return bounded, cancel, err
	}
	h.suspended = true
	if left > 0 {
		cancel()
		bounded, cancel = context.WithTimeout(ctx, min(left-leaseReserve, standTime))
	}
	return bounded, cancel, nil
}

// stand has everything else stand still.
func (h *handover) stand(ctx context.Context) error {
	h.since = time.Now()
	if err := h.reactor.PauseAccepting(ctx); err != nil {
		return err
	}
	h.paused, h.held = true, true
	if _, missing := eachShard(ctx, h.Server, h.shards, func(sh *shard, _ *struct{}) bool {
		sh.hold()
		return false
	}); missing > 0 {
		return fmt.Errorf("%w: %d do not answer", errBusy, missing)
	}
	h.catchUpEvents(ctx)
	return h.standQuietly(ctx)
}

// catchUpEvents logs the events of before, which are not handed over.
func (h *handover) catchUpEvents(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	_ = h.eventLog.catchUp(ctx) // what it cannot get now is in no log
}

// standQuietly has the loops stand still at a moment at which nothing is under way between them. Each time they go on a little, what
// is under way arrives.
func (h *handover) standQuietly(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	patience := time.Now().Add(quietTime)
	for {
		s, err := h.reactor.StandStill(ctx, time.Until(deadline))
		if err != nil {
			return err
		}
		if h.settled(s) {
			h.standstill = s
			return nil
		}
		s.Release()
		if time.Now().After(patience) || !pause(ctx, quietPause) {
			return fmt.Errorf("%w: they are busy with each other", errBusy)
		}
	}
}

// settled reports whether nothing is under way that would be lost with the loops.
func (srv *Server) settled(s *reactor.Standstill) bool {
	open := make([]bool, len(srv.shards))
	err := s.Each(func(l *reactor.Loop) { open[l.Index()] = !srv.shards[l.Index()].settled() })
	return err == nil && !slices.Contains(open, true) && s.Quiet(matters)
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

// leaveLoops returns what the loops hand over.
func (h *handover) leaveLoops() ([]*loopEstate, error) {
	loops, errs := make([]*loopEstate, len(h.shards)), make([]error, len(h.shards))
	if err := h.standstill.Each(func(l *reactor.Loop) {
		loops[l.Index()], errs[l.Index()] = h.shards[l.Index()].leave()
	}); err != nil {
		return nil, err
	}
	return loops, errors.Join(errs...)
}

// letGo has everything go on that was stopped.
func (h *handover) letGo() {
	defer func() {
		h.since, h.suspended, h.paused, h.held, h.standstill = time.Time{}, false, false, false, nil
	}()
	if h.standstill != nil {
		h.standstill.Release()
	}
	if h.held {
		h.send(func() {
			for _, sh := range h.shards {
				t := &loopTask{step: func() bool { sh.goOn(); return false }, done: func() {}}
				t.message.Body = t
				sh.loop.Send(&t.message)
			}
		})
	}
	if h.paused {
		h.reactor.ResumeAccepting()
	}
	if h.suspended {
		h.resumeFleet()
	}
	if !h.since.IsZero() {
		h.cfg.Log.Warn().Stringer("pause", time.Since(h.since).Round(time.Microsecond)).Msg("the loops stood still for nothing")
	}
}

// finish is the end of the server: the successor serves. What the loops have is left as it is, for ever.
func (h *handover) finish(by string) *api.Takeover {
	t := h.report()
	h.turnover.handOver()
	_ = h.standstill.Each(func(l *reactor.Loop) { h.shards[l.Index()].roster.farewell() }) // they stand for good
	h.yieldFleet()
	for _, e := range h.entrances {
		if l, ok := e.listener.(*unixsock.Listener); ok {
			l.Leave()
		}
	}
	h.warnings.Flush()
	h.logTakeover(t).Str("by", by).Int("pid", t.PID).Str("version", t.Version).Msg("dreadlock has handed over: the new process serves")
	if h.cfg.HandedOver != nil {
		h.cfg.HandedOver(t, h.successor)
	}
	h.successor.Leave()
	return t
}

// logTakeover returns a line about a takeover, for either side of it.
func (srv *Server) logTakeover(t *api.Takeover) *zerolog.Event {
	level := zerolog.InfoLevel
	if t.Closed > 0 {
		level = zerolog.WarnLevel
	}
	return srv.cfg.Log.WithLevel(level).
		Int("connections", t.Connections).
		Int("held_keys", t.HeldKeys).
		Int("waiters", t.Waiters).
		Int("closed", t.Closed).
		Float64("pause_seconds", t.PauseSeconds)
}

// farewell tells the clients of the sessions that are not carried that their connections end. The loop stands still, for good.
func (ro *roster) farewell() {
	for _, s := range ro.sessions.members {
		if s.conn.Encrypted() {
			s.sock.Farewell()
		}
	}
}

// report says what was handed over.
func (h *handover) report() *api.Takeover {
	return &api.Takeover{
		At: time.Now(), Count: h.takeovers() + 1,
		FromPID: os.Getpid(), FromVersion: h.cfg.Version, PID: h.successor.PID(), Version: h.prepared.Version,
		PauseSeconds: time.Since(h.since).Seconds(),
		Connections:  h.carried, HeldKeys: h.size.Keys, Waiters: h.size.Waiters, Closed: h.encrypted,
	}
}

// takeovers returns the number of those since the server started with nothing.
func (srv *Server) takeovers() uint64 {
	if srv.takeover == nil {
		return 0
	}
	return srv.takeover.Count
}
