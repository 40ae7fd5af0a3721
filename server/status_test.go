package server

import (
	"context"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// After a scripted session every counter has the value that follows from the script.
func TestCounters(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxConnections = loops, 4 })
			began := d.status()
			a, b := d.dial(), d.dial()
			for loop := range loops {
				key := d.keysOf(loop, 1)[0]
				a.Do("unlock "+key, "e not locked")
				b.Do("fence "+key, "e not locked")
				a.Do("owner me", "o owned")
				a.Do("lock "+key+" 300000", "l locked")
				a.Send("fence " + key)
				if _, err := a.ReadReply(); err != nil {
					t.Fatal(err)
				}
				b.Do("fence "+key, "e not owner")
				a.Do("lock "+key+" 0", "e already locked")
				b.Do("unlock "+key, "e not owner")
				b.Do("unlock "+key, "e not owner")
				b.Do("lock "+key+" 0", "t timeout")
				b.Do("lock "+key+" 20", "t timeout")
				b.Send("lock " + key + " 300000")
				d.awaitWaiters(1)
				a.Do("unlock "+key, "u unlocked")
				b.Expect("l locked")
			}
			n := uint64(loops)

			// c waits for one of the keys, d for another one's sake, and one is too many.
			key := d.keysOf(0, 1)[0]
			c, e := d.dial(), d.dial()
			id := d.idOf(e)
			e.Do("lock x 0", "l locked")
			c.Send("lock " + key + " 300000")
			d.awaitWaiters(1)
			refused := d.dial()
			refused.Expect("e too many connections")
			refused.ExpectEnd()

			st := d.status()
			if st.Version != "test" || st.Address != d.address || st.Loops != loops || st.Connections != 4 || st.MaxConnections != 4 ||
				st.HeldKeys != loops+1 || st.Waiters != 1 || st.Deadlocks != 0 || !st.Started.Equal(began.Started) ||
				st.UptimeSeconds < began.UptimeSeconds {
				t.Errorf("status: %+v", st)
			}

			c.Reset() // leaves its queue, which is neither a grant nor a timeout
			d.awaitWaiters(0)
			if err := d.server.Kick(context.Background(), id, "a test"); err != nil {
				t.Fatal(err)
			}
			e.ExpectEnd()
			b.CloseWrite()
			b.ExpectEnd()
			a.Write([]byte("lock !"))
			a.ExpectEnd()
			d.awaitLeft(0)
			eventually(t, func() error {
				if st = d.status(); st.HeldKeys != 0 || st.Connections != 0 || st.Waiters != 0 {
					return fmt.Errorf("%+v", st)
				}
				return nil
			})

			if got, want := commandCounts(st), (map[string]uint64{
				"lock locked": 2*n + 1, "lock timeout": 2 * n, "lock already_locked": n, "lock deadlock": 0, "lock kicked": 0,
				"lock too_many_keys": 0, "lock out_of_memory": 0,
				"unlock unlocked": n, "unlock not_locked": n, "unlock not_owner": 2 * n,
				"fence token": n, "fence not_locked": n, "fence not_owner": n, "name named": 0, "owner owned": n,
			}); !maps.Equal(got, want) {
				t.Errorf("commands:\n got %v\nwant %v", got, want)
			}
			got := st.Counters
			wantOutcomes(t, &got, map[string]uint64{api.WaitLocked: n, api.WaitTimedOut: n, api.WaitLost: 1})
			// Each key was held by a, then by b until its end; x until e was kicked.
			if held := sumOf(got.Holds); held != 2*n+1 {
				t.Errorf("%d holds are counted, want %d", held, 2*n+1)
			}
			waits := got.Waits
			sum := uint64(0)
			for i, count := range waits.Counts {
				sum += count
				if i < len(waits.Bounds) && waits.Bounds[i] < 0.01 && count > n {
					t.Errorf("%d waits were shorter than %g s, and one of %d took 20 ms", count, waits.Bounds[i], n)
				}
			}
			if sum != 2*n || waits.Sum < 0.02*float64(n) || len(waits.Counts) != len(waits.Bounds)+1 || !slices.IsSorted(waits.Bounds) {
				t.Errorf("waits: %+v, want %d", waits, 2*n)
			}
			if loops == 1 && (got.Messages != 0 || got.WakeUps != 0 || got.Moves != 0) {
				t.Errorf("one loop, and %d messages, %d wake-ups, %d moves", got.Messages, got.WakeUps, got.Moves)
			}
			got.WaitsByOutcome, got.Holds = nil, api.Histogram{}
			got.Commands, got.Waits, got.Messages, got.WakeUps, got.Moves = nil, api.Histogram{}, 0, 0, 0
			want := api.Counters{
				Accepted: 4,
				Grants:   n,
				Timeouts: n,
				Disconnects: map[string]uint64{
					api.ClientClosed: 1, api.Broken: 1, api.SyntaxError: 1, api.Kicked: 1, api.TooMuch: 0, api.IdleTimeout: 0, api.Drained: 0,
					api.OutOfTouch: 0, api.NotCarried: 0,
				},
				Refused: map[string]uint64{
					api.RefusedMaxConnections: 1, api.RefusedMaxPerAddress: 0, api.RefusedNotAllowed: 0, api.RefusedNotProxy: 0,
					api.RefusedProxyHeader: 0, api.RefusedTLSHandshake: 0, api.RefusedLost: 0, api.RefusedMaxMemory: 0,
				},
				AcceptErrors: map[string]uint64{},
				LimitHits: map[string]uint64{
					api.LimitConnections: 1, api.LimitPipeline: 0, api.LimitOutput: 0, api.LimitKeys: 0, api.LimitKeyBytes: 0, api.LimitMemory: 0,
				},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("counters:\n got %+v\nwant %+v", got, want)
			}
		})
	}
}

func sumOf(h api.Histogram) (n uint64) {
	for _, count := range h.Counts {
		n += count
	}
	return n
}

// wantOutcomes checks how many waits have ended in which way; those that are not given have not.
func wantOutcomes(t *testing.T, c *api.Counters, want map[string]uint64) {
	t.Helper()
	if len(c.WaitsByOutcome) != len(api.WaitOutcomes) {
		t.Errorf("waits end in %d ways, want %d", len(c.WaitsByOutcome), len(api.WaitOutcomes))
	}
	for _, how := range api.WaitOutcomes {
		h := c.WaitsByOutcome[how]
		if n := sumOf(h); n != want[how] || len(h.Counts) != len(h.Bounds)+1 {
			t.Errorf("%d waits have ended by %s, want %d: %+v", n, how, want[how], h)
		}
	}
}

// A client that uses the keys of one loop and then those of another crosses over, and moves.
func TestTraffic(t *testing.T) {
	d := startDaemon(t, nil)
	c := d.dial()
	keys := append(d.keysOf(0, 1), d.keysOf(1, 1)...)
	eventually(t, func() error {
		for _, key := range keys {
			c.Do("lock "+key+" 0", "l locked")
			c.Do("unlock "+key, "u unlocked")
		}
		if n := d.status().Counters; n.Messages < 2 || n.WakeUps < 1 || n.Moves < 1 {
			return fmt.Errorf("%d messages, %d wake-ups, %d moves", n.Messages, n.WakeUps, n.Moves)
		}
		return nil
	})
	if n := d.status().Counters; n.WakeUps > n.Messages {
		t.Errorf("%d messages, and %d wake-ups", n.Messages, n.WakeUps)
	}
}

// wantHits waits until the limit has been hit the given number of times.
func (d *daemon) wantHits(limit string, times uint64) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if hits := d.status().Counters.LimitHits; hits[limit] != times {
			return fmt.Errorf("%v, want %d of %s", hits, times, limit)
		}
		return nil
	})
}

// A client that sends on while it waits is counted once, whatever it goes on sending.
func TestPipelineLimitHit(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline = 4 << 10 })
	holder, waiter := d.dial(), d.dialOn(0)
	keys := d.keysOf(0, 2) // of the waiter's own loop: it waits for nothing else
	key, other := keys[0], keys[1]
	for round := range uint64(3) {
		holder.Do("lock "+key+" 0", "l locked")
		waiter.Send("lock " + key + " 300000")
		d.awaitWaiters(1)
		const n = 2000
		waiter.Write([]byte(strings.Repeat("unlock "+other+"\r\n", n)))
		d.wantHits(api.LimitPipeline, round+1)
		holder.Do("unlock "+key, "u unlocked")
		waiter.Expect("l locked")
		for range n {
			waiter.Expect("e not locked")
		}
		waiter.Do("unlock "+key, "u unlocked")
		d.wantHits(api.LimitPipeline, round+1)
	}
	d.wantHits(api.LimitOutput, 0)
}

// A client that does not read is counted once, as long as commands of it have to wait for that.
func TestOutputLimitHit(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxPipeline, cfg.MaxOutput = 2<<20, 4<<10 })
	holder, deaf := d.dial(), d.dialNarrowOn(0)
	key := d.keysOf(0, 1)[0]
	holder.Do("lock "+key+" 0", "l locked")
	fmt.Fprintf(deaf, "lock %s 300000\r\n", key)
	d.awaitWaiters(1)
	text := makeCycle(0, d.keysOf(0, 2)[1])
	const cycles = 14000 // 750 KB of answers
	if err := text.flood(deaf, cycles); err != nil {
		t.Fatal(err)
	}
	d.wantRead(deaf)
	d.wantHits(api.LimitOutput, 0)
	holder.Do("unlock "+key, "u unlocked")
	d.wantHits(api.LimitOutput, 1)
	eventually(t, func() error { // the kernel may take a little more, and the session goes on for a while
		page, err := d.server.Connections(context.Background(), api.ConnectionQuery{Address: deaf.LocalAddr().String()})
		if err == nil && (len(page.Connections) != 1 || page.Connections[0].State != api.Lagging) {
			err = fmt.Errorf("got %+v, want it %s", page, api.Lagging)
		}
		return err
	})
	first := make([]byte, len("l locked\r\n"))
	if _, err := io.ReadFull(deaf, first); err != nil || string(first) != "l locked\r\n" {
		t.Fatalf("got %q, %v", first, err)
	}
	if err := text.wantAnswers(deaf, cycles); err != nil {
		t.Fatal(err)
	}
	d.wantHits(api.LimitOutput, 1)
	d.wantHits(api.LimitPipeline, 0)
}

// Every word of the API has its counter.
func TestCounterWords(t *testing.T) {
	w := (&counters{}).words(new(Server).refused())
	if got := slices.Sorted(maps.Keys(w.Refused)); !slices.Equal(got, slices.Sorted(slices.Values(api.RefusalReasons))) {
		t.Errorf("refused: %v, want %v", got, api.RefusalReasons)
	}
	if got := slices.Sorted(maps.Keys(w.Disconnects)); !slices.Equal(got, slices.Sorted(slices.Values(api.DisconnectReasons))) {
		t.Errorf("disconnects: %v, want %v", got, api.DisconnectReasons)
	}
	if got := slices.Sorted(maps.Keys(w.LimitHits)); !slices.Equal(got, slices.Sorted(slices.Values(api.Limits))) {
		t.Errorf("limit hits: %v, want %v", got, api.Limits)
	}
}

// Counters of several shards add up: each field, and each bucket.
func TestCountersAdd(t *testing.T) {
	var one, sum counters
	h := &one.waits[waitDeadlock]
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Hour, time.Hour + 1} {
		h.add(d)
	}
	if b := h.buckets; b[0] != 2 || b[1] != 1 || b[len(b)-2] != 1 || b[len(b)-1] != 1 {
		t.Errorf("waits by bucket: %v", b)
	}
	if want := 2*time.Hour + 2*time.Millisecond + 2; h.sum != want {
		t.Errorf("all waits took %s, want %s", h.sum, want)
	}
	one.holds.add(time.Minute)
	one.accepted, one.moves, one.grants, one.timeouts, one.paused, one.stalled = 1, 3, 4, 5, 6, 7
	for i := range one.disconnects {
		one.disconnects[i] = uint64(10 + i)
	}
	for i := range one.commands {
		for j := range one.commands[i] {
			one.commands[i][j] = uint64(100*i + j)
		}
	}
	sum.add(&one)
	if sum != one {
		t.Errorf("0 + %+v = %+v", one, sum)
	}
	sum.add(&one)
	if sum.stalled != 14 || sum.waits[waitDeadlock].sum != 2*h.sum || sum.holds.sum != 2*time.Minute || sum.disconnects[kicked] != 2*one.disconnects[kicked] {
		t.Errorf("the sum of two is %+v", sum)
	}
}
