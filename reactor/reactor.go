package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// ErrEnded is returned by [Run] when the loops ended without being asked to. gnet does that when a connection cannot be
// accepted for want of descriptors or memory.
var ErrEnded = errors.New("reactor: the event loops ended unexpectedly")

// MaxLoops is the largest number of loops that gnet can run.
const MaxLoops = 256

// keepAliveProbes is the number of unanswered probes after which a silent peer is taken for lost.
const keepAliveProbes = 3

// startTimeout bounds the time until every loop has answered.
const startTimeout = 10 * time.Second

// Config says what to run.
type Config struct {
	// Listener is the address to serve, already guarded: see [Listen].
	Listener *Listener
	// Loops is the number of event loops, from 1 to [MaxLoops].
	Loops int
	// Tick is the unit of the timing wheels: a timer is up to one tick late.
	Tick time.Duration
	// KeepAlive is the silence after which a peer is probed. Three probes a third of that apart go unanswered before
	// the connection ends; data that is not acknowledged ends it after the same time. Whole seconds, at least one.
	KeepAlive time.Duration
	// Linger is how long a peer that has ended its side, or whose connection is about to be closed, may take to read the
	// next of its output. One that is served may take for ever, as long as its host answers.
	Linger time.Duration
	// Log gets what gnet has to say.
	Log zerolog.Logger

	// NewHandler makes the handler of a loop. It is called for every loop before the first client is served, not on the
	// loop itself.
	NewHandler func(l *Loop) Handler
	// Ready is called when all loops serve.
	Ready func()
	// Stopping is called when the context of Run is done, while the loops still serve. They end when it returns.
	Stopping func()
	// Ending is called when the loops are about to end, for whatever reason. When it has returned, nobody may send them
	// anything any more.
	Ending func()
}

// Reactor runs the loops. It lives as long as [Run] does.
type Reactor struct {
	cfg      Config
	start    time.Time     // tick 0
	interval time.Duration // between the probes of a silent peer
	silence  time.Duration // after which a peer that does not answer is lost
	log      gnetLog
	ticker   ticker
	loops    []*Loop
	engine   gnet.Engine // set by OnBoot
	outputs  *outputWatcher
	ended    chan struct{} // closed when the loops begin to end

	movable     atomic.Bool    // all loops run, so that connections can go from one to another
	moving      atomic.Int32   // connections on their way
	transfers   sync.WaitGroup // the goroutines that bring them
	transferred chan struct{}  // one token: a connection is not on its way any more

	mu     sync.Mutex
	byGnet map[gnet.EventLoop]*Loop // filled while the loops start
	early  []gnet.Conn              // accepted by loops that had not started; their input stays in gnet
}

// Run serves until ctx is done, or until the loops cannot go on. It closes the listener.
func Run(ctx context.Context, cfg Config) error {
	defer cfg.Listener.Close()
	interval := max(cfg.KeepAlive/keepAliveProbes, time.Second).Truncate(time.Second)
	r := &Reactor{
		cfg:         cfg,
		start:       time.Now(),
		interval:    interval,
		silence:     cfg.KeepAlive + keepAliveProbes*interval,
		log:         gnetLog{log: cfg.Log},
		ticker:      ticker{early: make(chan struct{}, 1)},
		ended:       make(chan struct{}),
		transferred: make(chan struct{}, 1),
		byGnet:      make(map[gnet.EventLoop]*Loop),
	}
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
	defer watcher.Wait() // it wakes loops, as the transfers do
	defer r.outputs.close()
	defer r.transfers.Wait()
	err = gnet.Run(&events{Reactor: r, ctx: ctx, wakeUps: wakeUps}, "tcp://"+cfg.Listener.address,
		gnet.WithNumEventLoop(cfg.Loops),
		// Each loop accepts one connection at a time and opens it at once, so that a limit holds. In gnet's other mode
		// the acceptor runs ahead of the loops until descriptors run out, which ends the engine.
		gnet.WithReusePort(true),
		gnet.WithReuseAddr(true),
		gnet.WithLoadBalancing(gnet.RoundRobin), // enroll relies on it
		gnet.WithTicker(true),
		gnet.WithTCPKeepAlive(cfg.KeepAlive),
		gnet.WithTCPKeepInterval(interval),
		gnet.WithTCPKeepCount(keepAliveProbes),
		gnet.WithLogger(&r.log),
	)
	switch {
	case err != nil:
		return fmt.Errorf("listen %s: %w", cfg.Listener.address, err)
	case ctx.Err() == nil:
		return fmt.Errorf("%w: %s", ErrEnded, r.log.firstError())
	}
	return nil
}

// makeLoops makes the loops with their handlers, and for each a pair of connected sockets: a byte written into the one
// makes the loop that gets the other, its wake-up connection, run a turn. So messages can be posted to a loop before it
// runs.
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
		l.alarm.Store(int64(Never))
		r.loops = append(r.loops, l)
	}
	for _, l := range r.loops {
		l.handler = r.cfg.NewHandler(l)
	}
	return wakeUps, nil
}

func (r *Reactor) closeWakers(wakeUps []net.Conn) {
	for _, l := range r.loops {
		_ = unix.Close(l.waker)
	}
	for _, wakeUp := range wakeUps {
		_ = wakeUp.Close() // gnet has its own descriptor, and closed this one if it got so far
	}
}

// closeHalfClosed closes the connections that gnet does not know any more, when the loops have ended.
func (r *Reactor) closeHalfClosed() {
	for _, l := range r.loops {
		for c := range l.halfClosed {
			_ = unix.Close(c.fd)
		}
	}
}

func socketPair() (waker int, wakeUp net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[1]), "waker")
	defer file.Close() //nolint:errcheck // the connection has a descriptor of its own
	wakeUp, err = net.FileConn(file)
	if err != nil {
		_ = unix.Close(fds[0])
		return -1, nil, err
	}
	return fds[0], wakeUp, nil
}

// enroll gives every loop its wake-up connection, which makes it known. Only then can its connections be served: gnet has no list of
// its loops, but hands out connections to them in turn.
func (r *Reactor) enroll(wakeUps []net.Conn) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	for i, wakeUp := range wakeUps {
		ctx := gnet.NewContext(gnet.NewNetConnContext(context.Background(), wakeUp), r.loops[i])
		result, err := r.engine.Register(ctx)
		if err != nil {
			return err
		}
		select {
		case res := <-result:
			if res.Err != nil {
				return res.Err
			}
		case <-r.ended:
			return ErrEnded
		case <-timeout.C:
			return fmt.Errorf("loop %d of %d has not started within %s", i+1, len(wakeUps), startTimeout)
		}
	}
	return nil
}

// started makes l the loop that c, its wake-up connection, was opened on, and serves the connections that came before. It runs on that
// loop.
func (r *Reactor) started(l *Loop, c gnet.Conn) {
	l.events = c.EventLoop()
	epoll, err := findEpoll(c.Fd())
	if err != nil {
		r.cfg.Log.Warn().Err(err).Msg("clients cannot be held back by TCP: those that send or leave unread too much are dropped")
	}
	l.epoll = epoll

	r.mu.Lock()
	r.byGnet[l.events] = l
	var early, others []gnet.Conn
	for _, c := range r.early {
		if c.EventLoop() == l.events {
			early = append(early, c)
		} else {
			others = append(others, c)
		}
	}
	r.early = others
	r.mu.Unlock()

	for _, sock := range early {
		if c := l.accept(sock); c.IsOpen() {
			c.data()
		}
	}
}

// loopOf returns the loop of a connection, or keeps the connection for later if its loop has not started.
func (r *Reactor) loopOf(c gnet.Conn) *Loop {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.byGnet[c.EventLoop()]
	if l == nil {
		r.early = append(r.early, c)
	}
	return l
}

// forget drops a connection that ended before its loop started.
func (r *Reactor) forget(c gnet.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.early = slices.DeleteFunc(r.early, func(e gnet.Conn) bool { return e == c })
}
