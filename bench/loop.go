package bench

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/panjf2000/gnet/v2"
)

// The range of the histograms, in nanoseconds, and their precision in decimal digits.
const (
	shortest  = 1_000
	longest   = 100_000_000_000
	precision = 3
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(shortest, longest, precision) }

// loop is one event loop of the generator with its connections. It is the event handler of a gnet client that has no
// other loop. All fields belong to the loop, except the atomic ones.
type loop struct {
	gnet.BuiltinEventEngine
	gen    *generator
	client *gnet.Client
	events atomic.Pointer[gnet.EventLoop] // nil before the first connection is opened

	operations int64
	published  atomic.Int64 // operations, for other goroutines
	latency    *hdrhistogram.Histogram
	lateness   *hdrhistogram.Histogram // of waits that timed out
	early      int64                   // waits that timed out before their time
	waits      atomic.Int64            // that timed out, early or late

	active   int       // running jobs
	stopping bool      // no new job begins
	schedule *schedule // nil for a closed loop
	free     fifo      // connections of an open loop without a job
	ticking  atomic.Bool

	plain [plainSize]byte // what arrives with TLS, before it is taken
}

// do runs f on the loop, later. It is safe from any goroutine once there is a connection.
func (l *loop) do(f func()) {
	run := gnet.RunnableFunc(func(context.Context) error {
		f()
		return nil
	})
	if err := (*l.events.Load()).Execute(context.Background(), run); err != nil {
		l.gen.fail(fmt.Errorf("bench: reach an event loop of the generator: %w", err))
	}
}

// onEach runs f on one loop after another and waits for it.
func (g *generator) onEach(f func(l *loop)) {
	done := make(chan struct{})
	for _, l := range g.loops {
		if l.events.Load() == nil {
			continue // it has no connections
		}
		l.do(func() {
			f(l)
			close(done)
		})
		select {
		case <-done:
			done = make(chan struct{})
		case <-g.failed:
			return
		}
	}
}

// OnOpen runs when a connection has been enrolled.
func (l *loop) OnOpen(sock gnet.Conn) ([]byte, gnet.Action) {
	c := sock.Context().(*conn)
	if l.events.Load() == nil {
		events := sock.EventLoop()
		l.events.Store(&events)
	}
	c.sock, c.open = sock, true
	if c.tls != nil {
		c.tls.carrier.enrolled = sock
	}
	if c.closed != nil { // a connection of Churn begins at once
		c.script.begin(c, c.since)
	}
	return nil, gnet.None
}

// OnTraffic runs when bytes have arrived.
func (l *loop) OnTraffic(sock gnet.Conn) gnet.Action {
	c := sock.Context().(*conn)
	data, _ := sock.Next(-1)
	if len(data) > 0 && c.open {
		c.arrived(data)
	}
	if c.closing {
		if c.tls != nil && c.open {
			_ = c.tls.CloseWrite() // as a client does that is not in a benchmark
		}
		return gnet.Close
	}
	return gnet.None
}

// OnClose runs when a connection has ended, whoever closed it, possibly inside a write to it.
func (l *loop) OnClose(sock gnet.Conn, err error) gnet.Action {
	c := sock.Context().(*conn)
	c.open = false
	if !c.closing && !l.gen.ending.Load() {
		what := "the server closed the connection"
		if err != nil {
			what += " (" + err.Error() + ")"
		}
		if c.exchange != nil {
			what += " before its reply"
		}
		c.fail(what, nil)
	}
	if c.closed != nil {
		c.closed <- struct{}{}
	}
	return gnet.None
}

// start begins the load on connections of the loop.
func (l *loop) start(conns []*conn, s *schedule) {
	l.schedule, l.stopping = s, false
	if s != nil {
		l.free.fill(conns)
		return
	}
	now := l.gen.now()
	for _, c := range conns {
		l.active++
		c.script.begin(c, now)
	}
}

// tick begins the jobs of an open loop that are due, as long as there are free connections. The others begin when a
// connection finishes its job.
func (l *loop) tick() {
	l.ticking.Store(false)
	now := l.gen.now()
	for !l.stopping && l.free.n > 0 {
		wanted, due := l.schedule.take(now)
		if !due {
			return
		}
		c := l.free.pop()
		l.active++
		c.script.begin(c, wanted)
	}
}

// finished ends the job of a connection and begins its next one.
func (l *loop) finished(c *conn, now int64) {
	if !l.stopping {
		if l.schedule == nil {
			c.script.begin(c, now)
			return
		}
		if wanted, due := l.schedule.take(now); due {
			c.script.begin(c, wanted)
			return
		}
		l.free.push(c)
	}
	l.active--
	if l.stopping && l.active == 0 {
		l.gen.dry <- struct{}{}
	}
}

// stop lets running jobs end and begins no more.
func (l *loop) stop() {
	l.stopping = true
	if l.active == 0 {
		l.gen.dry <- struct{}{}
	}
}

// count counts operations that were answered together, and records their latency once.
func (l *loop) count(operations, since, now int64) {
	l.operations += operations
	l.published.Store(l.operations)
	if l.gen.recording.Load() {
		observe(l.latency, now-since)
	}
}

// observe records a time in nanoseconds.
func observe(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, shortest), longest)) // it fails only out of range
}

// fifo is a queue of connections, with room for all of a loop.
type fifo struct {
	conns   []*conn
	head, n int
}

func (f *fifo) fill(conns []*conn) {
	f.conns = append([]*conn(nil), conns...)
	f.head, f.n = 0, len(conns)
}

func (f *fifo) pop() *conn {
	c := f.conns[f.head]
	f.head = (f.head + 1) % len(f.conns)
	f.n--
	return c
}

func (f *fifo) push(c *conn) {
	f.conns[(f.head+f.n)%len(f.conns)] = c
	f.n++
}
