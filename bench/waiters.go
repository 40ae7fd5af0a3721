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
	// probes is the number of connections that pace the waves. Each tries to lock the key without waiting. When it is
	// refused, its loop of the server has most likely read what was sent before. That confirms nothing.
	probes = 16
	// confirmations bounds how often the order is confirmed while the queue fills.
	confirmations = 16
)

// queueScript is the script of waiters for one key: the queue fills, in waves, then every waiter gets the key once.
//
// Requests on different connections need not arrive in the order in which they were sent. So the queue fills in groups of
// waves, and after each group the server is asked how many connections wait for the key. Once it counts all that were
// sent, every later request comes after them: no waiter of a later group may get the key before one of this group. Within
// a group any order is right. If the server does not report its waiters, the order is not checked.
type queueScript struct {
	lock, unlock exchange
	checked      bool         // groups are confirmed
	left         atomic.Int64 // waiters that have not given the key back
	last         atomic.Int64 // the latest group that was granted
	passed       chan struct{}
}

func (s *queueScript) begin(c *conn, since int64) {
	c.stage = locking
	c.send(&s.lock, since)
}

func (s *queueScript) replied(c *conn, _ int, now int64) {
	if c.stage == locking {
		last := s.last.Load()
		if s.checked && c.group < last {
			c.loop.gen.fail(&Violation{
				Connection: c.id,
				What:       fmt.Sprintf("granted out of order: it was in the queue before all of group %d, one of which got the key first", last),
				Sent:       string(s.lock.request),
				Came:       string(s.lock.accept[granted]),
			})
			return
		}
		s.last.Store(c.group) // only the holder of the key does this
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
	d, key := r.target.Dialect, r.prefix+"queue"
	s := &queueScript{
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
	l := &queueRun{runner: r, script: s, key: key, holder: holder[0], probing: probing, pool: waiting, turn: len(waiting)}
	var all queueCosts
	warm := time.Duration(r.now()) + r.workload.Warmup
	for end := warm + r.workload.Window; ; {
		cycle, err := l.cycle(ctx)
		if err != nil {
			return err
		}
		if now := time.Duration(r.now()); now > warm { // the first cycle of a long queue counts as well
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

// queueRun is a run of Waiters.
type queueRun struct {
	*runner
	script  *queueScript
	key     string
	holder  *conn
	probing []*conn
	pool    []*conn // take turns in the queue; shuffled when all have had theirs
	turn    int     // index in pool of the next one
}

// queueCosts is the cost of cycles.
type queueCosts struct {
	cycles   int
	waiters  int64  // in total
	probing  sample // of the probes alone
	enqueue  sample // including the probes
	handOver sample
}

func (t *queueCosts) add(o queueCosts) {
	t.cycles += o.cycles
	t.waiters += o.waiters
	t.probing.add(o.probing)
	t.enqueue.add(o.enqueue)
	t.handOver.add(o.handOver)
}

// next returns the connections that wait next, in the order in which they will send their requests.
func (l *queueRun) next() []*conn {
	n := l.workload.Queue
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
func (l *queueRun) groupSize(waiters int) int {
	waves := (waiters + waveSize - 1) / waveSize
	return waveSize * ((waves + confirmations - 1) / confirmations)
}

// cycle fills the queue and empties it. Before that it sends as many probes as while the queue fills, so that their cost is
// known and can be subtracted.
func (l *queueRun) cycle(ctx context.Context) (t queueCosts, err error) {
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
func (l *queueRun) enqueue(ctx context.Context, group []*conn) error {
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

// confirm returns when the server reports that the given number of connections wait for the key; at once if it does not
// report that. Its cost is not measured.
func (l *queueRun) confirm(ctx context.Context, waiters int) error {
	if !l.script.checked {
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
			return &Violation{Connection: -1, What: fmt.Sprintf("%d connections have requested the key, and only %d wait for it", waiters, n)}
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

// handOver releases the key and waits until all waiters have had it.
func (l *queueRun) handOver(ctx context.Context, waiters int) error {
	l.script.last.Store(0)
	l.script.left.Store(int64(waiters) + 1) // plus the holder
	l.holder.loop.do(func() {
		c := l.holder
		c.script = l.script // for one unlock
		c.stage = unlocking
		c.send(&l.script.unlock, l.now())
	})
	timeout := time.NewTimer(l.patience + time.Duration(waiters)*time.Millisecond)
	defer timeout.Stop()
	select {
	case <-l.script.passed:
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
func (l *queueRun) report(t *queueCosts) {
	result := l.result
	result.Operations = t.waiters
	result.Elapsed = t.handOver.at
	result.Throughput = float64(t.waiters) / t.handOver.at.Seconds()
	result.GeneratorCPU = newCPU(t.handOver.generator, t.waiters)
	result.Waiters = &WaitersResult{
		Cycles:       t.cycles,
		OrderChecked: l.script.checked,
		EnqueueRate:  float64(t.waiters) / t.enqueue.at.Seconds(),
		HandOverRate: result.Throughput,
	}
	if l.target.PID != 0 {
		result.Waiters.Enqueue = newCPU(t.enqueue.server-t.probing.server, t.waiters)
		result.Waiters.HandOver = newCPU(t.handOver.server, t.waiters)
		result.ServerCPU = result.Waiters.HandOver
	}
}
