package reactor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ErrEnded is returned by [Run] when a loop has ended without being asked to.
var ErrEnded = errors.New("reactor: an event loop ended unexpectedly")

// MaxLoops is the largest number of loops that gnet can run.
const MaxLoops = 256

// drainTime bounds how long the end waits for connections on their way to a loop, which take as long as the turn of that loop,
// or as their [Listener.Prepare] needs to give up.
const drainTime = 5 * time.Second

const (
	// stopPause is the time after which loops that have not ended are woken once more.
	stopPause = 100 * time.Millisecond
	// failedStartTime is how long a start that has failed waits for the loops to end. One that gnet could not wake never does, and
	// by then it is not known how else to.
	failedStartTime = time.Second
)

// Config says what to run.
type Config struct {
	// Listeners are the ways in. One that is closed is not accepted from any more; the loops go on. Run closes them.
	Listeners []*Listener
	// Loops is the number of event loops, from 1 to [MaxLoops].
	Loops int
	// Tick is the unit of the timing wheels: a timer is up to one tick late.
	Tick time.Duration
	// Start is when the time began that [Loop.Now] tells, with its reading of the monotonic clock; zero is now. A process that takes
	// over another's connections has its start: see [StartedAt].
	Start time.Time
	// KeepAlive is the silence after which a peer is probed, once a second. When it has been silent for twice that, its
	// connection ends, at most two seconds later, whatever was written to it meanwhile. Whole seconds, at least one.
	KeepAlive time.Duration
	// Linger is how long a peer that has ended its side, or whose connection is about to be closed, may take to read the
	// next of its output. One that is served may take for ever, as long as its host answers.
	Linger time.Duration
	// Log gets what gnet has to say, and that connections cannot be accepted: once a second for a listener.
	Log zerolog.Logger

	// NewHandler makes the handler of a loop. It is called for every loop before the first client is served, not on the
	// loop itself.
	NewHandler func(l *Loop) Handler
	// Inherit, if set, takes over the connections of another process. It is called when the loops run, before anything is accepted
	// and before Ready, with a context that is done when that of Run is, or when a loop has ended. After an error Run ends
	// with that, without Stopping.
	Inherit func(ctx context.Context, h *Heir) error
	// Ready is called when all loops serve.
	Ready func()
	// Abandoned, if set, is told of every connection that was admitted and does not get to a loop, from any goroutine.
	Abandoned func(info any, err error)
	// AcceptFailed, if set, is told of every connection that could not be accepted, by the name of the errno such as
	// EMFILE, from any goroutine.
	AcceptFailed func(reason string)
	// Stopping is called when the context of Run is done, while the loops still serve. They end when it returns.
	Stopping func()
	// Ending is called when the loops are about to end, for whatever reason. When it has returned, nobody may send them
	// anything any more.
	Ending func()
}

// Reactor runs the loops. It lives as long as [Run] does.
type Reactor struct {
	cfg     Config
	start   time.Time // tick 0
	silence silence
	log     gnetLog
	ticker  ticker
	loops   []*Loop
	client  *gnet.Client
	outputs *outputWatcher
	broken  chan struct{} // closed when a loop ends by itself
	ended   chan struct{} // closed when the loops are about to end

	transit  transit
	gate     gate
	arrivals chan *enrollment // to the carriers
	moving   atomic.Int32     // connections on their way from loop to loop

	standstill atomic.Pointer[Standstill] // nil while the loops go on

	breaking sync.Once
}

// Run serves until ctx is done, or until the loops cannot go on.
func Run(ctx context.Context, cfg Config) error {
	r := &Reactor{
		cfg:      cfg,
		start:    cfg.Start,
		silence:  silenceOf(cfg.KeepAlive),
		ticker:   ticker{early: make(chan struct{}, 1)},
		broken:   make(chan struct{}),
		ended:    make(chan struct{}),
		arrivals: make(chan *enrollment),
	}
	if r.start.IsZero() {
		r.start = time.Now()
	}
	r.log = gnetLog{log: cfg.Log, failed: r.wakeGnet}
	defer r.closeListeners()
	wakeUps, err := r.makeLoops()
	if err != nil {
		return fmt.Errorf("start the event loops: %w", err)
	}
	defer r.closeWakers(wakeUps)
	if r.outputs, err = newOutputWatcher(); err != nil {
		return fmt.Errorf("start the event loops: %w", err)
	}
	var watcher sync.WaitGroup
	watcher.Go(r.outputs.run)
	defer r.closeHalfClosed()
	defer watcher.Wait() // it wakes loops
	defer r.outputs.close()
	if err := r.startLoops(wakeUps); err != nil {
		return fmt.Errorf("start the event loops: %w", err)
	}
	return r.serve(ctx)
}

// startLoops starts gnet, without listeners, and gives every loop its wake-up connection. gnet has no list of its loops, but gives
// a connection to the loop with the fewest.
func (r *Reactor) startLoops(wakeUps []net.Conn) (err error) {
	r.client, err = gnet.NewClient(&events{Reactor: r},
		gnet.WithNumEventLoop(r.cfg.Loops),
		gnet.WithTCPNoDelay(gnet.TCPDelay), // set already: see Listen
		gnet.WithReadBufferCap(readPiece),
		gnet.WithLogger(&r.log))
	if err != nil {
		return err
	}
	if err := r.client.Start(); err != nil {
		return err
	}
	for i, conn := range wakeUps {
		w := &wakeUp{loop: r.loops[i]}
		_, err := r.client.EnrollContext(conn, w)
		if err = w.claim.settle(err, r.wakeGnet); err != nil {
			_ = r.stopLoops(failedStartTime) // the first error is the one to tell
			return err
		}
	}
	return nil
}

// stopLoops ends the loops, and waits for that at most for some time. It wakes them again and again, in case that gnet fails to.
func (r *Reactor) stopLoops(patience time.Duration) error {
	stopped := make(chan error, 1)
	go func() { stopped <- r.client.Stop() }()
	again := time.NewTicker(stopPause)
	defer again.Stop()
	timeout := time.After(patience)
	for {
		select {
		case err := <-stopped:
			return err
		case <-again.C:
			r.wakeGnet()
		case <-timeout:
			return fmt.Errorf("reactor: the loops have not ended within %s", patience)
		}
	}
}

// serve accepts connections until ctx is done or a loop has ended, and ends the loops.
func (r *Reactor) serve(ctx context.Context) error {
	accepting, stopAccepting := context.WithCancel(ctx)
	defer stopAccepting()
	r.transit.start()
	var ticking sync.WaitGroup
	defer ticking.Wait() // it wakes loops
	ticking.Go(func() { r.ticker.run(r) })
	failed := r.inherit(ctx)
	if failed == nil {
		r.startAccepting(accepting)
		r.cfg.Ready()
		select {
		case <-ctx.Done():
		case <-r.broken:
		}
	}
	stopAccepting()
	r.closeListeners()
	r.transit.end(drainTime)
	if ctx.Err() != nil && failed == nil {
		r.cfg.Stopping()
	}
	r.cfg.Ending()
	close(r.ended)
	err := r.stopLoops(math.MaxInt64)
	switch {
	case failed != nil:
		return failed
	case ctx.Err() == nil:
		return fmt.Errorf("%w: %s", ErrEnded, r.log.firstError())
	}
	return err
}

// inherit takes over connections, if that is wanted. After an error the loops do not stand still.
func (r *Reactor) inherit(ctx context.Context) error {
	if r.cfg.Inherit == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.broken:
			cancel()
		case <-ctx.Done():
		}
	}()
	h := &Heir{reactor: r}
	err := r.cfg.Inherit(ctx, h)
	if err != nil && h.standstill != nil {
		h.standstill.Release()
	}
	return err
}

func (r *Reactor) closeListeners() {
	for _, l := range r.cfg.Listeners {
		_ = l.Close() // may be closed already
	}
}

// makeLoops makes the loops with their handlers, and for each a waker and its wake-up connection. So messages can be posted to a
// loop before it runs.
func (r *Reactor) makeLoops() (wakeUps []net.Conn, err error) {
	for i := range r.cfg.Loops {
		waker, wakeUp, err := socketPair()
		if err != nil {
			r.closeWakers(wakeUps)
			return nil, err
		}
		wakeUps = append(wakeUps, wakeUp)
		l := &Loop{
			reactor:    r,
			index:      i,
			epoll:      -1,
			waker:      waker,
			wheel:      NewWheel(0),
			outbox:     make([]batch, r.cfg.Loops),
			halfClosed: make(map[*Conn]struct{}),
		}
		l.eventfd.Store(-1)
		l.alarm.Store(int64(Never))
		l.retry.Store(int64(Never))
		r.loops = append(r.loops, l)
	}
	for _, l := range r.loops {
		l.handler = r.cfg.NewHandler(l)
	}
	return wakeUps, nil
}

func (r *Reactor) closeWakers(wakeUps []net.Conn) {
	for _, l := range r.loops {
		_ = unix.Close(l.waker) // its loop has ended
		if eventfd := l.eventfd.Swap(-1); eventfd >= 0 {
			_ = unix.Close(int(eventfd)) // gnet had its own
		}
	}
	for _, wakeUp := range wakeUps {
		_ = wakeUp.Close() // gnet has its own descriptor, and closed this one if it got so far
	}
}

// closeHalfClosed closes the connections that gnet does not know any more, when the loops have ended.
func (r *Reactor) closeHalfClosed() {
	for _, l := range r.loops {
		for c := range l.halfClosed {
			_ = unix.Close(c.fd) // closed in any case; what was written is the kernel's to send
		}
	}
}
