package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// fill has a client lock a number of keys, named by a prefix and 0, 1 and so on, and returns it.
func (d *daemon) fill(prefix string, keys int) *prototest.Client {
	d.tb.Helper()
	c := d.dial()
	text := make([]byte, 0, 64<<10)
	var sender sync.WaitGroup
	sender.Go(func() {
		for i := range keys {
			text = fmt.Appendf(text, "lock %s%d 0\r\n", prefix, i)
			if len(text) > 60<<10 || i == keys-1 {
				if _, err := c.Conn().Write(text); err != nil {
					d.tb.Error(err)
					return
				}
				text = text[:0]
			}
		}
	})
	answers := strings.Repeat("l locked\r\n", 1000)
	got := make([]byte, len(answers))
	_ = c.Conn().SetReadDeadline(time.Now().Add(2 * prototest.Patience))
	for left := keys; left > 0; left -= 1000 {
		want := answers[:min(left, 1000)*len("l locked\r\n")]
		if _, err := io.ReadFull(c.Conn(), got[:len(want)]); err != nil || string(got[:len(want)]) != want {
			d.tb.Fatalf("%d keys are left to lock: %v", left, err)
		}
	}
	sender.Wait()
	return c
}

// patiently repeats a query while the loops are too busy to answer it, as they may be on a busy machine.
func patiently[T any](query func() (T, error)) (answer T, err error) {
	for deadline := time.Now().Add(prototest.Patience); ; {
		answer, err = query()
		if !errors.Is(err, api.ErrUnavailable) || time.Now().After(deadline) {
			return answer, err
		}
	}
}

// A walk over many keys is done in turns of a bounded length, and clients have theirs in between.
func TestKeysOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a table")
	}
	const keys = 100_000
	// A loop that walks never sleeps. Where it has all processors of this process, the client waits for Go's scheduler.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2 + runtime.NumCPU()))
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 1 })
	d.fill("k", keys)

	// The turns of a walk, as Keys does it.
	type walk struct {
		cursor            uint64
		turns, seen, most int
	}
	walks, missing := eachShard(t.Context(), d.server, d.server.shards, func(sh *shard, w *walk) (more bool) {
		n := 0
		w.cursor = sh.table.Walk(w.cursor, bucketsPerStep, func(lockmgr.Holding) { n++ })
		w.turns++
		w.seen += n
		w.most = max(w.most, n)
		return w.cursor != 0
	})
	if missing > 0 {
		t.Fatalf("%d loops are missing", missing)
	}
	seen := 0
	for _, w := range walks {
		seen += w.seen
		t.Logf("%d keys in %d turns, at most %d in one", w.seen, w.turns, w.most)
		if w.turns < w.seen/(2*bucketsPerStep) || w.turns > 2*w.seen/bucketsPerStep+1 || w.most > 4*bucketsPerStep {
			t.Errorf("want turns of about %d keys", bucketsPerStep)
		}
	}
	if seen != keys {
		t.Errorf("%d keys, want %d", seen, keys)
	}

	// A client goes on while page after page is asked for.
	ctx, cancel := context.WithCancel(t.Context())
	var operator sync.WaitGroup
	pages := 0
	operator.Go(func() {
		defer cancel()
		for _, order := range []api.KeyOrder{api.ByKey, api.ByAge} {
			q := api.KeyQuery{Order: order, Limit: api.MaxLimit}
			for range 2 {
				p, err := patiently(func() (*api.KeyPage, error) { return d.server.Keys(t.Context(), q) })
				if err != nil {
					t.Errorf("%+v: %v", q, err)
					return
				}
				if p.Matching != keys || len(p.Keys) != q.Limit {
					t.Errorf("%+v: %d of %d keys", q, len(p.Keys), p.Matching)
					return
				}
				q.Cursor = p.Next
				pages++
			}
		}
	})
	other := d.dial()
	own := d.keysOf(0, 1)[0] + "own"
	var times []time.Duration
	for ctx.Err() == nil {
		start := time.Now()
		other.Do("unlock "+own, "e not locked")
		times = append(times, time.Since(start))
	}
	operator.Wait()
	slices.Sort(times)
	t.Logf("%d pages; %d round trips meanwhile: median %s, 99%% %s, longest %s", pages, len(times),
		times[len(times)/2], times[len(times)*99/100], times[len(times)-1])
}

func BenchmarkKeys(b *testing.B) {
	const keys = 100_000
	d := startDaemon(b, func(cfg *Config) { cfg.Loops = 2 })
	d.fill("k", keys)
	for _, order := range []api.KeyOrder{api.ByKey, api.ByAge} {
		b.Run(string(order), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := d.server.Keys(b.Context(), api.KeyQuery{Order: order})
				if err != nil || p.Matching < keys {
					b.Fatalf("%d keys, %v", p.Matching, err)
				}
			}
		})
	}
}

// A query leaves a loop alone after each step, for longer than the step has taken.
func TestQueryRests(t *testing.T) {
	d := startDaemon(t, nil)
	const busy = time.Millisecond
	rests := make(chan time.Duration, 100)
	rest := func(pause time.Duration, sh *shard, task *loopTask) {
		rests <- pause
		d.server.rest(0, sh, task)
	}
	const steps = 5
	done, missing := runTasks(t.Context(), d.server, d.server.shards[:1], rest, func(_ *shard, n *int) (more bool) {
		for began := time.Now(); time.Since(began) < busy; {
		}
		*n++
		return *n < steps
	})
	if missing > 0 || *done[0] != steps {
		t.Fatalf("%d steps, want %d", *done[0], steps)
	}
	if len(rests) != steps-1 {
		t.Errorf("%d rests between %d steps", len(rests), steps)
	}
	for range len(rests) {
		if pause := <-rests; pause < restPerStep*busy {
			t.Errorf("a rest of %v after a step of %v", pause, busy)
		}
	}
}
