package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	takeovers = 5 // of a run
	// Of the connections of Takeover, in percent: those that hold a key, and those that each wait for one of these keys. The others are
	// silent.
	takeoverHolds, takeoverWaits = 40, 40
	// takeoverHold is the timeout of these waits, which must not run out.
	takeoverHold = time.Hour
	// takeoverTail is how long the answers after a takeover still count for it.
	takeoverTail = 200 * time.Millisecond
	// takeoverLimit bounds a takeover.
	takeoverLimit = time.Minute
)

// queuedScript sends a lock that waits, and counts its grant.
type queuedScript struct {
	left    atomic.Int64
	granted chan struct{} // closed when none is left
}

func (s *queuedScript) begin(c *conn, since int64) { c.send(&c.lock, since) }

func (s *queuedScript) replied(*conn, int, int64) {
	if s.left.Add(-1) == 0 {
		close(s.granted)
	}
}

// takeovers measures Takeover.
func (r *runner) takeovers(ctx context.Context) error {
	n := r.workload.Connections
	holders, waiters := max(1, n*takeoverHolds/100), max(1, n*takeoverWaits/100)
	wait := &queuedScript{granted: make(chan struct{})}
	wait.left.Store(int64(waiters))
	holding := r.add(holders, holdScript{})
	ownKeys(r.target.Dialect, r.prefix, holding)
	waiting := r.add(waiters, wait)
	for i, c := range waiting {
		c.lock = r.target.Dialect.lock(fmt.Sprintf("%sown%d", r.prefix, holding[i%holders].id), takeoverHold).only(granted)
	}
	r.add(max(0, n-holders-waiters), holdScript{})
	probing := r.add(1, pairScript{})
	ownKeys(r.target.Dialect, r.prefix, probing)
	if err := r.connect(ctx, r.conns); err != nil {
		return err
	}
	if err := r.once(ctx, holding); err != nil {
		return err
	}
	r.onEach(func(own *loop) {
		for _, c := range waiting {
			if c.loop == own {
				c.script.begin(c, r.now())
			}
		}
	})
	if err := r.awaitWaiters(ctx, waiters); err != nil {
		return err
	}
	r.start(probing, 0)
	result := &TakeoverResult{}
	r.result.Takeover = result
	for range takeovers {
		if err := r.wait(ctx, r.workload.Window/takeovers, func() { r.progress.update(r.operations()) }); err != nil {
			return err
		}
		one, err := r.takeOver(ctx)
		if err != nil {
			return err
		}
		result.add(one)
		r.result.Elapsed += one.Took
	}
	r.result.Operations = takeovers
	r.result.Throughput = takeovers / r.result.Elapsed.Seconds()
	if err := r.runDry(ctx); err != nil {
		return err
	}
	return r.handBack(ctx, holding, wait)
}

// takeOver makes one takeover.
func (r *runner) takeOver(ctx context.Context) (one TakenOver, err error) {
	r.onEach(func(l *loop) { l.latency.Reset() })
	r.recording.Store(true)
	began := r.now()
	if one, err = r.target.takeOver(ctx); err != nil {
		return one, err
	}
	one.Took = time.Duration(r.now() - began)
	if err := r.wait(ctx, takeoverTail, nil); err != nil {
		return one, err
	}
	r.recording.Store(false)
	one.Answer = time.Duration(r.merged(func(l *loop) *hdrhistogram.Histogram { return l.latency }).Max())
	return one, nil
}

// awaitWaiters returns when the server says that as many wait.
func (r *runner) awaitWaiters(ctx context.Context, n int) error {
	for deadline := time.Now().Add(r.patience); ; {
		var status struct {
			Waiters int `json:"waiters"`
		}
		err := askDaemon(ctx, http.MethodGet, r.target.admin, "/api/v1/status", &status)
		if err != nil || status.Waiters >= n {
			return err
		}
		if time.Now().After(deadline) {
			return &Violation{Connection: -1, What: fmt.Sprintf("%d connections have requested a key, and only %d wait", n, status.Waiters)}
		}
		if err := r.wait(ctx, time.Millisecond, nil); err != nil {
			return err
		}
	}
}

// handBack has all holders give their keys back. Every waiter must get its key then: nothing was lost.
func (r *runner) handBack(ctx context.Context, holding []*conn, wait *queuedScript) error {
	for _, c := range holding {
		c.lock = c.unlock
	}
	if err := r.once(ctx, holding); err != nil {
		return err
	}
	late := time.NewTimer(r.patience)
	defer late.Stop()
	select {
	case <-wait.granted:
		return nil
	case <-r.failed:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-late.C:
		return &Violation{Connection: -1, What: fmt.Sprintf("all keys were given back, and %d waiters got none", wait.left.Load())}
	}
}

// takeOver has another process take over from the daemon, and returns when it has.
func (t *Target) takeOver(ctx context.Context) (one TakenOver, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverLimit)
	defer cancel()
	var done struct {
		PID          int     `json:"pid"`
		PauseSeconds float64 `json:"pause_seconds"`
	}
	adminClient.CloseIdleConnections() // those of a process before
	if err := askDaemon(ctx, http.MethodPost, t.admin, "/api/v1/takeover", &done); err != nil {
		return one, err
	}
	if t.PID != 0 {
		t.PID = done.PID
	}
	one.Stood = time.Duration(done.PauseSeconds * float64(time.Second))
	return one, nil
}

// askDaemon asks the admin interface of a daemon.
func askDaemon(ctx context.Context, method, admin, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+admin+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := adminClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("ask the daemon: %w", err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("ask the daemon for %s: %s: %s", path, response.Status, strings.TrimSpace(string(text)))
	}
	return json.Unmarshal(text, answer)
}

// TakeoverResult has the figures of Takeover alone: of several takeovers, in order. No connection was lost, or there were no result.
type TakeoverResult struct {
	Takeovers []TakenOver `json:"takeovers"`
	// Answer is the longest answer that a client saw in a takeover, and Stood how long the daemon says that its loops stood: the median of
	// the takeovers, and the worst.
	Answer      time.Duration `json:"answer_ns"`
	WorstAnswer time.Duration `json:"worst_answer_ns"`
	Stood       time.Duration `json:"stood_ns"`
	WorstStood  time.Duration `json:"worst_stood_ns"`
}

// TakenOver is one takeover.
type TakenOver struct {
	Answer time.Duration `json:"answer_ns"` // the longest that a client saw
	Stood  time.Duration `json:"stood_ns"`  // as the daemon says
	Took   time.Duration `json:"took_ns"`   // all in all, with the start of the other process
}

func (r *TakeoverResult) add(one TakenOver) {
	r.Takeovers = append(r.Takeovers, one)
	middle := func(of func(TakenOver) time.Duration) (median, worst time.Duration) {
		sorted := slices.SortedFunc(slices.Values(r.Takeovers), func(a, b TakenOver) int { return cmp.Compare(of(a), of(b)) })
		return of(sorted[len(sorted)/2]), of(sorted[len(sorted)-1])
	}
	r.Answer, r.WorstAnswer = middle(func(t TakenOver) time.Duration { return t.Answer })
	r.Stood, r.WorstStood = middle(func(t TakenOver) time.Duration { return t.Stood })
}
