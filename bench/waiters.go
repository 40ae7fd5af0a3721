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
	// waveSize is the number of waiters that ask for the key at a time.
	waveSize = 25
	// probes is the number of connections that show when a wave has arrived. Each tries to get the key without waiting;
	// when it is refused, the loop of the server that serves it has most likely read what was sent before. This paces the
	// waves. It confirms nothing.
	probes = 16
	// confirmations bounds how often the order is confirmed while a line fills.
	confirmations = 16
)

// line is the script of waiters for one key: the line fills, in waves, then every waiter gets the key once.
//
// The order in which requests were sent is not the order in which the server got them: they travel on different
// connections. So the line fills in groups of waves, and after each group the server is asked how many connections wait
// for the key. Once it counts all that were sent, every later request comes after them, and none of the next group may
// get the key before one of this. Within a group any order is right. A server that does not tell is not checked.
type line struct {
	lock, unlock exchange
	checked      bool         // groups were confirmed
	left         atomic.Int64 // waiters that have not given the key back
	last         atomic.Int64 // the latest group that was granted
	passed       chan struct{}
}

func (s *line) begin(c *conn, since int64) {
	c.stage = locking
	c.send(&s.lock, since)
}

func (s *line) replied(c *conn, _ int, now int64) {
	if c.stage == locking {
		last := s.last.Load()
		if s.checked && c.group < last {
			c.loop.gen.fail(&Violation{
				Connection: c.id,
				What:       fmt.Sprintf("granted out of order: it waited before any of group %d, one of which got the key before", last),
				Sent:       string(s.lock.request),
				Came:       string(s.lock.accept[granted]),
			})
			return
		}
		s.last.Store(c.group) // it has the key: nobody else does this now
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
		lock:    d.lock(key, holdTimeout).only(granted),
		unlock:  d.unlock(key).only(0),
		checked: r.target.waiters != nil,
		passed:  make(chan struct{}, 1),
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
	l := &lineRun{runner: r, line: s, key: key, holder: holder[0], probing: probing, pool: waiting, turn: len(waiting)}
	var all lineCosts
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
	key     string
	holder  *conn
	probing []*conn
	pool    []*conn // those that wait in turns, shuffled when all have had theirs
	turn    int     // the first of the pool that has not had its turn
}

// lineCosts is what cycles cost.
type lineCosts struct {
	cycles   int
	waiters  int64  // of all cycles
	probing  sample // the probes alone
	enqueue  sample // probes included
	handOver sample
}

func (t *lineCosts) add(o lineCosts) {
	t.cycles += o.cycles
	t.waiters += o.waiters
	t.probing.add(o.probing)
	t.enqueue.add(o.enqueue)
	t.handOver.add(o.handOver)
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
		c.group = int64(i / l.groupSize(n))
	}
	return waiting
}

// groupSize is the number of waiters in a group, a multiple of waveSize.
func (l *lineRun) groupSize(waiters int) int {
	waves := (waiters + waveSize - 1) / waveSize
	return waveSize * ((waves + confirmations - 1) / confirmations)
}

// cycle fills the line and empties it. Before that it probes as often as it does while the line fills, so that the cost
// of the probes is known and can be subtracted.
func (l *lineRun) cycle(ctx context.Context) (t lineCosts, err error) {
	waiting := l.next()
	t.cycles, t.waiters = 1, int64(len(waiting))
	if err := l.once(ctx, []*conn{l.holder}); err != nil {
		return t, err
	}
	if t.probing, err = l.spent(func() error {
		for range slices.Chunk(waiting, waveSize) {
			if err := l.once(ctx, l.probing); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return t, err
	}
	sent := 0
	for group := range slices.Chunk(waiting, l.groupSize(len(waiting))) {
		cost, err := l.spent(func() error { return l.enqueue(ctx, group) })
		if err != nil {
			return t, err
		}
		t.enqueue.add(cost)
		sent += len(group)
		if err := l.confirm(ctx, sent); err != nil {
			return t, err
		}
	}
	t.handOver, err = l.spent(func() error { return l.handOver(ctx, len(waiting)) })
	return t, err
}

// enqueue sends the requests of a group, wave by wave.
func (l *lineRun) enqueue(ctx context.Context, group []*conn) error {
	for wave := range slices.Chunk(group, waveSize) {
		l.onEach(func(own *loop) {
			for _, c := range wave {
				if c.loop == own {
					c.script.begin(c, l.now())
				}
			}
		})
		if err := l.once(ctx, l.probing); err != nil {
			return err
		}
	}
	return nil
}

// confirm returns when the server says that so many connections wait for the key, at once if it does not tell. What
// that costs is not measured.
func (l *lineRun) confirm(ctx context.Context, waiters int) error {
	if !l.line.checked {
		return nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(l.patience); ; {
		n, err := l.target.waiters(ctx, l.key)
		if err != nil || n >= waiters {
			return err
		}
		if time.Now().After(deadline) {
			return &Violation{Connection: -1, What: fmt.Sprintf("%d connections have asked for a key, and %d wait for it", waiters, n)}
		}
		select {
		case <-tick.C:
		case <-l.failed:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
	timeout := time.NewTimer(l.patience + time.Duration(waiters)*time.Millisecond)
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
func (l *lineRun) report(t *lineCosts) {
	result := l.result
	result.Operations = t.waiters
	result.Elapsed = t.handOver.at
	result.Throughput = float64(t.waiters) / t.handOver.at.Seconds()
	result.GeneratorCPU = newCPU(t.handOver.generator, t.waiters)
	result.Waiters = &WaitersResult{
		Cycles:       t.cycles,
		OrderChecked: l.line.checked,
		EnqueueRate:  float64(t.waiters) / t.enqueue.at.Seconds(),
		HandOverRate: result.Throughput,
	}
	if l.target.PID != 0 {
		result.Waiters.Enqueue = newCPU(t.enqueue.server-t.probing.server, t.waiters)
		result.Waiters.HandOver = newCPU(t.handOver.server, t.waiters)
		result.ServerCPU = result.Waiters.HandOver
	}
}
