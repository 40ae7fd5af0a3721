package bench

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// heldKeys is the number of keys that the waits of Timeouts are for.
	heldKeys = 64
	// sideConnections is the number of connections of the side load.
	sideConnections = 50
	// longestWait bounds the waits, so that many of them time out in a window.
	longestWait = 2 * time.Second
	// For mostTime, after warmTime, the most that the server can do of the side load is measured.
	mostTime = 300 * time.Millisecond
	warmTime = 100 * time.Millisecond
)

// waitScript waits for keys that never become free, one wait after another.
type waitScript struct{ waits []wait }

// wait is a request that must time out.
type wait struct {
	exchange
	lasts int64 // ns
}

// newWaitScript makes waits for held keys. Their lengths are spread evenly from a quarter of the longest to the longest.
func newWaitScript(d *Dialect, keys []string, longest time.Duration) *waitScript {
	s := &waitScript{waits: make([]wait, 16*len(keys))}
	shortest := longest / 4
	for i := range s.waits {
		// Neighbours in the table differ much in length: 389 and the length of the table have no common factor.
		step := time.Duration(i * 389 % len(s.waits))
		lasts := (shortest + (longest-shortest)*step/time.Duration(len(s.waits))).Truncate(time.Millisecond)
		lasts = max(lasts, time.Millisecond)
		s.waits[i] = wait{exchange: d.lock(keys[i%len(keys)], lasts).only(refused), lasts: int64(lasts)}
	}
	return s
}

func (s *waitScript) begin(c *conn, _ int64) {
	c.cursor = (c.cursor + 1) % len(s.waits)
	w := &s.waits[c.cursor]
	c.wait = w.lasts
	c.send(&w.exchange, c.loop.gen.now()) // exactly: thousands may begin in one turn
}

func (s *waitScript) replied(c *conn, _ int, now int64) {
	if l := c.loop; l.gen.recording.Load() {
		if late := now - c.since - c.wait; late < 0 {
			l.early++
		} else {
			observe(l.lateness, late)
		}
		l.waits.Add(1)
	}
	s.begin(c, now)
}

// timeouts measures Timeouts.
func (r *runner) timeouts(ctx context.Context) error {
	d, w, result := r.target.Dialect, r.workload, &TimeoutsResult{InFlight: r.workload.Connections}
	side := r.add(sideConnections, pairScript{})
	ownKeys(d, r.prefix, side)
	if err := r.connect(ctx, side); err != nil {
		return err
	}
	var err error
	if result.Most, err = r.most(ctx, side); err != nil {
		return err
	}
	result.Offered = result.Most * w.Share

	var keys []string
	var locks []exchange
	for i := range heldKeys {
		keys = append(keys, r.prefix+"held"+strconv.Itoa(i))
		locks = append(locks, d.lock(keys[i], holdTimeout))
	}
	if err := r.hold(ctx, join(locks...)); err != nil {
		return err
	}
	s := newWaitScript(d, keys, min(w.Window, longestWait))
	waiting := r.add(w.Connections, s)
	for i, c := range waiting {
		c.cursor = i % len(s.waits)
	}
	if err := r.connect(ctx, waiting); err != nil {
		return err
	}
	stopPacing := func() {}
	if result.Offered > 0 {
		stopPacing = r.start(side, result.Offered/2)
	}
	r.onEach(func(l *loop) {
		for _, c := range waiting {
			if c.loop == l {
				s.begin(c, 0)
			}
		}
	})
	err = r.window(ctx, r.waits)
	stopPacing()
	if err != nil {
		return err
	}
	if err := r.runDry(ctx); err != nil {
		return err
	}
	if err := r.awaitDue(ctx, waiting); err != nil {
		return err
	}
	r.onEach(func(l *loop) { result.Early += l.early })
	result.Late = NewLatency(r.merged(func(l *loop) *hdrhistogram.Histogram { return l.lateness }))
	r.reportWaits(result)
	return nil
}

// reportWaits makes the waits the operations of the result. Processor time is omitted: what the waits and what the side
// load used cannot be separated.
func (r *runner) reportWaits(t *TimeoutsResult) {
	result := r.result
	result.Timeouts = t
	result.ServerCPU, result.GeneratorCPU = nil, nil
	result.Operations = t.Early
	if t.Late != nil {
		result.Operations += t.Late.Count
	}
	result.Throughput = float64(result.Operations) / result.Elapsed.Seconds()
}

// most returns the commands per second that the server does in a closed loop.
func (r *runner) most(ctx context.Context, side []*conn) (float64, error) {
	r.start(side, 0)
	if err := r.wait(ctx, warmTime, nil); err != nil {
		return 0, err
	}
	from, began := r.operations(), r.now()
	if err := r.wait(ctx, mostTime, nil); err != nil {
		return 0, err
	}
	perSecond := float64(r.operations()-from) / time.Duration(r.now()-began).Seconds()
	return perSecond, r.runDry(ctx)
}

// awaitDue waits for the replies to all waits that should have ended by now. It returns a violation if one does not come.
func (r *runner) awaitDue(ctx context.Context, waiting []*conn) error {
	for now := r.now(); ; {
		switch oldest, lost := r.oldestDue(waiting, now); {
		case oldest == 0:
			return nil
		case oldest > r.patience:
			return lost
		}
		if err := r.wait(ctx, time.Millisecond, nil); err != nil {
			return err
		}
	}
}

// oldestDue returns how late the oldest wait is of those that should have ended by a given time, and a violation about
// it. It returns 0 if there is none.
func (r *runner) oldestDue(waiting []*conn, by int64) (oldest time.Duration, lost *Violation) {
	r.onEach(func(l *loop) {
		for _, c := range waiting {
			if c.loop != l || c.since+c.wait > by { // what it waits for belongs to its own loop
				continue
			}
			if late := time.Duration(l.gen.now() - c.since - c.wait); late > oldest {
				oldest = late
				lost = c.violation(c.id, fmt.Sprintf("a wait should have ended %s ago, and there is no reply", late), nil)
			}
		}
	})
	return oldest, lost
}

// waits returns the number of waits that have ended since the measurement began.
func (r *runner) waits() (n int64) {
	for _, l := range r.loops {
		n += l.waits.Load()
	}
	return n
}
