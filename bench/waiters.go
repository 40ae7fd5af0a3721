package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// waveSize is how many waiters ask at a time, before the server is known to have put all of them into the line.
	waveSize = 25
	// probes is how many connections find that out. Each asks for the key without waiting for it; when it is refused,
	// the server's loop that has the connection has dealt with what its other connections asked before. There are so
	// many of them that each loop of the server has one.
	probes = 16
)

// line is the script of waiters for one key: the line fills, in waves, then the key goes through all hands.
//
// Order is checked between waves. Within a wave the requests are on their way at the same time, and any order is right.
// Since it is just possible that a loop of the server has no probe, a grant counts as out of order if it comes behind
// that of a waiter that asked two or more waves later.
type line struct {
	lock, unlock exchange
	left         atomic.Int64 // waiters that have not given the key back
	last         atomic.Int64 // the latest wave that was granted
	passed       chan struct{}
}

func (s *line) begin(c *conn, since int64) {
	c.stage = locking
	c.send(&s.lock, since)
}

func (s *line) replied(c *conn, _ int, now int64) {
	if c.stage == locking {
		wave := int64(c.rank / waveSize)
		if last := s.last.Load(); wave+1 < last {
			c.loop.gen.fail(&Violation{
				Connection: c.id,
				What: fmt.Sprintf("granted out of order: it asked in wave %d of %d waiters, and one of wave %d was granted before",
					wave, waveSize, last),
				Sent: string(s.lock.request),
				Came: string(s.lock.accept[granted]),
			})
			return
		} else if wave > last {
			s.last.Store(wave) // the key is here: nobody else does that now
		}
		c.stage = unlocking
		c.send(&s.unlock, now)
		return
	}
	c.loop.count(1, c.since, now)
	if s.left.Add(-1) == 0 {
		s.passed <- struct{}{}
	}
}

// waiters measures Waiters.
func (r *runner) waiters(ctx context.Context) error {
	d, key := r.target.Dialect, r.prefix+"line"
	s := &line{
		lock:   d.lock(key, holdTimeout).only(granted),
		unlock: d.unlock(key).only(0),
		passed: make(chan struct{}, 1),
	}
	holder := r.add(1, holdScript{})
	holder[0].lock = s.lock
	probing := r.add(probes, holdScript{})
	for _, c := range probing {
		c.lock = d.lock(key, 0).only(refused)
	}
	waiting := r.add(r.workload.Connections, s)
	if err := r.connect(ctx, r.conns); err != nil {
		return err
	}
	l := &lineRun{runner: r, line: s, holder: holder[0], probing: probing, pool: waiting, turn: len(waiting)}
	var all lineTimes
	warm := time.Duration(r.now()) + r.workload.Warmup
	for end := warm + r.workload.Window; ; {
		cycle, err := l.cycle(ctx)
		if err != nil {
			return err
		}
		if now := time.Duration(r.now()); now > warm { // of a long line the first cycle counts, too
			all.add(cycle)
			if now > end {
				break
			}
		}
		r.progress.update(r.operations())
	}
	l.report(&all)
	return nil
}

// lineRun is the run of a line.
type lineRun struct {
	*runner
	line    *line
	holder  *conn
	probing []*conn
	pool    []*conn // those that wait in turns, shuffled when all have had theirs
	turn    int     // the first of the pool that has not had its turn
}

// lineTimes is what cycles took.
type lineTimes struct {
	cycles      int
	waiters     int64         // that were in the line, of all cycles
	enqueue     time.Duration // of the clock, probes included
	handOver    time.Duration // of the clock
	enqueueCPU  time.Duration // processor time of the server, without the probes
	handOverCPU time.Duration // processor time of the server
	generator   time.Duration // processor time of the generator for hand-overs
}

func (t *lineTimes) add(o lineTimes) {
	t.cycles += o.cycles
	t.waiters += o.waiters
	t.enqueue += o.enqueue
	t.handOver += o.handOver
	t.enqueueCPU += o.enqueueCPU
	t.handOverCPU += o.handOverCPU
	t.generator += o.generator
}

// next returns the connections that wait next, in the order in which they will ask.
func (l *lineRun) next() []*conn {
	n := l.workload.Line
	if n == 0 {
		n = len(l.pool)
	}
	if l.turn+n > len(l.pool) {
		rand.Shuffle(len(l.pool), func(i, j int) { l.pool[i], l.pool[j] = l.pool[j], l.pool[i] })
		l.turn = 0
	}
	waiting := l.pool[l.turn : l.turn+n]
	l.turn += n
	for i, c := range waiting {
		c.rank = i
	}
	return waiting
}

// cycle fills the line and empties it. Before that, it probes as often as it will while the line fills, so that what
// the probes cost is known under the same conditions.
func (l *lineRun) cycle(ctx context.Context) (t lineTimes, err error) {
	waiting := l.next()
	if err := l.once(ctx, []*conn{l.holder}); err != nil {
		return t, err
	}
	var samples [4]sample
	if samples[0], err = l.sample(); err != nil {
		return t, err
	}
	for range slices.Chunk(waiting, waveSize) {
		if err := l.once(ctx, l.probing); err != nil {
			return t, err
		}
	}
	if samples[1], err = l.sample(); err != nil {
		return t, err
	}
	for wave := range slices.Chunk(waiting, waveSize) {
		l.onEach(func(own *loop) {
			for _, c := range wave {
				if c.loop == own {
					c.script.begin(c, l.now())
				}
			}
		})
		if err := l.once(ctx, l.probing); err != nil {
			return t, err
		}
	}
	if samples[2], err = l.sample(); err != nil {
		return t, err
	}
	if err := l.handOver(ctx, len(waiting)); err != nil {
		return t, err
	}
	if samples[3], err = l.sample(); err != nil {
		return t, err
	}
	probed, full, empty := samples[1], samples[2], samples[3]
	return lineTimes{
		cycles:      1,
		waiters:     int64(len(waiting)),
		enqueue:     full.at - probed.at,
		handOver:    empty.at - full.at,
		enqueueCPU:  (full.server - probed.server) - (probed.server - samples[0].server),
		handOverCPU: empty.server - full.server,
		generator:   empty.generator - full.generator,
	}, nil
}

// handOver gives the key away and waits until all waiters have had it.
func (l *lineRun) handOver(ctx context.Context, waiters int) error {
	l.line.last.Store(0)
	l.line.left.Store(int64(waiters) + 1) // and the holder
	l.holder.loop.do(func() {
		c := l.holder
		c.script = l.line // for one unlock
		c.stage = unlocking
		c.send(&l.line.unlock, l.now())
	})
	timeout := time.NewTimer(dryTime + time.Duration(waiters)*time.Millisecond)
	defer timeout.Stop()
	select {
	case <-l.line.passed:
	case <-l.failed:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return l.lost()
	}
	l.holder.loop.do(func() { l.holder.script = holdScript{} })
	return nil
}

// report fills in the result.
func (l *lineRun) report(t *lineTimes) {
	result := l.result
	result.Operations = t.waiters
	result.Elapsed = t.handOver
	result.Throughput = float64(t.waiters) / t.handOver.Seconds()
	result.GeneratorCPU = newCPU(t.generator, t.waiters)
	result.Waiters = &WaitersResult{
		Cycles:       t.cycles,
		EnqueueRate:  float64(t.waiters) / t.enqueue.Seconds(),
		HandOverRate: result.Throughput,
	}
	if l.target.PID != 0 {
		result.Waiters.Enqueue = newCPU(t.enqueueCPU, t.waiters)
		result.Waiters.HandOver = newCPU(t.handOverCPU, t.waiters)
		result.ServerCPU = result.Waiters.HandOver
	}
}
