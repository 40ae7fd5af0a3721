package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// dialers is the number of connections that are made at the same time.
const dialers = 8

// generator has the event loops that generate the load of one run.
type generator struct {
	target   *Target
	patience time.Duration // a reply that takes longer is lost
	base     time.Time     // origin of now
	loops    []*loop
	conns    []*conn // of the run, by id

	recording atomic.Bool   // latencies go into the histograms
	ending    atomic.Bool   // connections may close
	dry       chan struct{} // receives when a loop has stopped and finished its last job

	failing sync.Once
	failed  chan struct{} // closed when err is set
	err     error
}

// newGenerator starts n event loops.
func newGenerator(target *Target, n int, patience time.Duration) (*generator, error) {
	raiseProcs(n + 1) // the loops, and the pacer
	g := &generator{
		target:   target,
		patience: patience,
		base:     time.Now(),
		dry:      make(chan struct{}, n),
		failed:   make(chan struct{}),
	}
	for range n {
		l := &loop{gen: g, latency: newHistogram(), lateness: newHistogram()}
		client, err := gnet.NewClient(l, gnet.WithNumEventLoop(1), gnet.WithLogger(quiet{}))
		if err == nil {
			err = client.Start()
		}
		if err != nil {
			g.close()
			return nil, fmt.Errorf("start the generator: %w", err)
		}
		l.client = client
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// now returns the nanoseconds since the generator began.
func (g *generator) now() int64 { return int64(time.Since(g.base)) }

// add creates n connections, spread over all loops. They are not connected yet.
func (g *generator) add(n int, s script) []*conn {
	from := len(g.conns)
	for range n {
		id := len(g.conns)
		g.conns = append(g.conns, &conn{loop: g.loops[id%len(g.loops)], id: id, script: s})
	}
	return g.conns[from:]
}

// connect connects connections, several at the same time.
func (g *generator) connect(ctx context.Context, conns []*conn) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(dialers, len(conns)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(conns) || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := g.dial(ctx, conns[i]); err != nil {
					return fmt.Errorf("connection %d of %d: %w", i+1, len(conns), err)
				}
			}
		})
	}
	return group.Wait()
}

// dial connects one connection and hands it to its loop.
func (g *generator) dial(ctx context.Context, c *conn) error {
	sock, secured, err := g.target.of(c.id).dial(ctx)
	if err != nil {
		return advise(err)
	}
	c.tls = secured
	_, err = c.loop.client.EnrollContext(sock, c) // it duplicates sock and closes it
	return err
}

// advise adds to an error of dial what to check.
func advise(err error) error {
	for _, known := range []struct {
		is     error
		advice string
	}{
		{unix.ECONNREFUSED, "is the server running?"},
		{unix.EMFILE, "raise the limit of open files: ulimit -n"},
		{unix.EADDRNOTAVAIL, "no local port is free: wait a minute or use fewer connections"},
		{os.ErrDeadlineExceeded, "is there a server at that address?"},
	} {
		if errors.Is(err, known.is) {
			return fmt.Errorf("%w; %s", err, known.advice)
		}
	}
	return err
}

// start begins the load: an open loop if perSecond, the rate of jobs over all connections, is not 0. The function that it
// returns ends the pacing of an open loop.
func (g *generator) start(conns []*conn, perSecond float64) (stopPacing func()) {
	begin := time.Duration(g.now())
	var paced []*loop
	for l, own := range byLoop(conns) {
		var s *schedule
		if perSecond > 0 {
			s = newSchedule(begin, perSecond*float64(len(own))/float64(len(conns)), pace)
			paced = append(paced, l)
		}
		l.do(func() { l.start(own, s) })
	}
	if paced == nil {
		return func() {}
	}
	return startPacer(paced)
}

// once lets each of the connections do one job and waits for all of them. No other job may be running.
func (g *generator) once(ctx context.Context, conns []*conn) error {
	loops := byLoop(conns)
	for l, own := range loops {
		l.do(func() {
			l.start(own, nil)
			l.stop()
		})
	}
	return g.awaitDry(ctx, len(loops))
}

// runDry stops the load and waits for the last reply on each connection.
func (g *generator) runDry(ctx context.Context) error {
	waiting := 0
	for _, l := range g.loops {
		if l.events.Load() != nil {
			waiting++
			l.do(l.stop)
		}
	}
	return g.awaitDry(ctx, waiting)
}

// awaitDry waits until the given number of loops have finished all their jobs.
func (g *generator) awaitDry(ctx context.Context, loops int) error {
	timeout := time.NewTimer(g.patience)
	defer timeout.Stop()
	for range loops {
		select {
		case <-g.dry:
		case <-g.failed:
			return g.err
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return g.lost()
		}
	}
	return nil
}

func byLoop(conns []*conn) map[*loop][]*conn {
	loops := make(map[*loop][]*conn)
	for _, c := range conns {
		loops[c.loop] = append(loops[c.loop], c)
	}
	return loops
}

// lost returns a violation about the first connection that still waits for a reply.
func (g *generator) lost() error {
	var first *Violation
	g.onEach(func(l *loop) {
		for _, c := range g.conns {
			if c.loop == l && c.exchange != nil && (first == nil || c.id < first.Connection) {
				first = c.violation(c.id, fmt.Sprintf("no reply within %s", g.patience), nil)
			}
		}
	})
	if first == nil {
		return fmt.Errorf("bench: jobs did not end within %s", g.patience)
	}
	return first
}

// fail ends the run with an error. Only the first one counts. It is safe from any goroutine.
func (g *generator) fail(err error) {
	g.failing.Do(func() {
		g.err = err
		close(g.failed)
	})
}

// wait lets the load run for a time and calls each now and then. It returns early with an error if the run has failed.
func (g *generator) wait(ctx context.Context, d time.Duration, each func()) error {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-g.failed:
			return g.err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if each != nil {
				each()
			}
		}
	}
}

// operations returns the number of completed operations.
func (g *generator) operations() int64 {
	var n int64
	for _, l := range g.loops {
		n += l.published.Load()
	}
	return n
}

// close ends all connections and the loops.
func (g *generator) close() {
	g.ending.Store(true)
	for _, l := range g.loops {
		_ = l.client.Stop() // it returns the reason for which the loop ended
	}
}

// merged returns the sum of the histograms of all loops.
func (g *generator) merged(of func(l *loop) *hdrhistogram.Histogram) *hdrhistogram.Histogram {
	sum := newHistogram()
	g.onEach(func(l *loop) { sum.Merge(of(l)) })
	return sum
}

// quiet drops what gnet logs: the generator sees every error that matters itself.
type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}
