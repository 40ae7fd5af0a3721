package server

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"dreadlock/proto/prototest"
)

var historySeed = flag.Uint64("history.seed", 0, "seed of the recorded histories; 0 for a new one")

// operation is one command as its client saw it, or the end of a connection that held or asked for the key.
//
// Nobody knows when the end of a connection takes effect: its interval is open. The same is true of a lock whose
// connection ended before the answer; it may have been granted, and released by the end.
type operation struct {
	session   int // a connection, never used again
	kind      string
	key       string
	reply     string // of a command; empty if the connection ended first
	held      bool   // of an end: it is certain that the connection held the key
	call, ret int64  // by a clock that all clients share; forever if there was no answer
	queued    int64  // when a lock was known to be executed, granted or in the queue; 0 if it never was
}

const forever = math.MaxInt64

func (o operation) String() string {
	reply := o.reply
	if o.ret == forever {
		reply = "?"
	}
	return fmt.Sprintf("s%d %s %s -> %s [%d,%d] queued %d", o.session, o.kind, o.key, reply, o.call, o.ret, o.queued)
}

const nobody = -1

// keyModel is the sequential specification of one key; the state is its holder. Each operation takes effect at once, at
// some moment of its interval: a granted lock when it is granted, one that times out when it asks, since somebody else
// holds the key then.
var keyModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{nobody} },
	Step: func(state, input, _ any) []any {
		holder, op := state.(int), input.(operation)
		foreign := holder != nobody && holder != op.session
		allowed, next := false, holder
		switch op.kind + "/" + op.reply {
		case "lock/l locked":
			allowed, next = holder == nobody, op.session
		case "lock/t timeout":
			allowed = foreign
		case "lock/e already locked":
			allowed = holder == op.session
		case "lock/":
			if holder == nobody {
				return []any{nobody, op.session}
			}
			allowed = true
		case "unlock/u unlocked":
			allowed, next = holder == op.session, nobody
		case "unlock/e not locked":
			allowed = holder == nobody
		case "unlock/e not owner":
			allowed = foreign
		case "end/":
			allowed = holder == op.session || !op.held
			if holder == op.session {
				next = nobody
			}
		}
		if !allowed {
			return nil
		}
		return []any{next}
	},
}).ToModel()

// checkLinearizable checks the operations of one key.
func checkLinearizable(ops []operation) porcupine.CheckResult {
	var history []porcupine.Operation
	for _, op := range ops {
		history = append(history, porcupine.Operation{ClientId: op.session, Input: op, Call: op.call, Return: op.ret})
	}
	return porcupine.CheckOperationsTimeout(keyModel, history, prototest.Patience)
}

// checkOrder looks for a waiter of one key that was overtaken: a second session asked when the first was known to be in
// the queue, and got the key while the first had not had it. It also returns the number of pairs it could judge.
//
// A session was served before another exactly if it was told so before the other began to give the key up.
func checkOrder(ops []operation) (pairs int, err error) {
	type wait struct {
		operation
		until int64 // when its session began to give the key up
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	var waits []wait
	for i, op := range ops {
		if op.kind != "lock" || op.reply != "l locked" {
			continue
		}
		w := wait{op, forever}
		for _, later := range ops[i+1:] {
			if later.session == op.session && (later.kind == "end" || later.reply == "u unlocked") {
				w.until = later.call
				break
			}
		}
		waits = append(waits, w)
	}
	for _, first := range waits {
		for _, second := range waits {
			if first.queued == 0 || first.queued >= second.call || second.call >= first.ret {
				continue
			}
			pairs++
			if second.ret < first.until {
				return pairs, fmt.Errorf("%v was overtaken by %v", first, second)
			}
		}
	}
	return pairs, nil
}

// historian runs clients against a daemon and records what they see.
type historian struct {
	*daemon
	clock    atomic.Int64
	sessions atomic.Int64
	keys     []string       // one on each loop
	quiet    []string       // another on each loop: never locked
	probes   map[int]*probe // by loop

	mu  sync.Mutex
	ops []operation
}

// probe is a connection to one loop. An answer on it says that everything the loop had posted before has arrived.
type probe struct {
	mu sync.Mutex
	*prototest.Client
}

func newHistorian(tb testing.TB, loops int) *historian {
	h := &historian{daemon: startDaemon(tb, func(c *Config) { c.Loops, c.Tick = loops, time.Millisecond }), probes: map[int]*probe{}}
	for loop := range loops {
		keys := h.keysOf(loop, 2)
		h.keys, h.quiet = append(h.keys, keys[0]), append(h.quiet, keys[1])
	}
	for len(h.probes) < loops {
		c := h.dial()
		c.Do("unlock "+h.quiet[0], "e not locked")
		h.probes[h.loopOfPort(portOf(c.Conn()))] = &probe{Client: c}
	}
	return h
}

// probeOf returns the probe of the loop that serves a client.
func (h *historian) probeOf(c *prototest.Client) *probe {
	return h.probes[h.loopOfPort(portOf(c.Conn()))]
}

func (h *historian) record(ops ...operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, ops...)
}

// actor is a client that does at random what clients do. It holds keys in the order of the keys, so that actors do
// not wait for each other in a circle.
type actor struct {
	*historian
	rng     *rand.Rand
	client  *prototest.Client
	session int
	holds   []bool // by key
}

func (w *actor) connect() {
	w.client = w.dial()
	w.session = int(w.sessions.Add(1))
	w.holds = make([]bool, len(w.keys))
}

// step does one thing.
func (w *actor) step() {
	k := w.rng.IntN(len(w.keys))
	switch n := w.rng.IntN(100); {
	case n < 3:
		w.end(nil)
		w.connect()
	case n < 8 && w.mayWait(k):
		lock := w.begin("lock", k)
		w.client.Send("lock " + w.keys[k] + " 600000")
		if w.rng.IntN(2) == 0 {
			w.barrier(k)
		}
		w.end(&lock)
		w.connect()
	case n < 30 && w.holds[k]: // the first waiter goes first
		unlock, lock := w.begin("unlock", k), w.begin("lock", k)
		timeout := w.rng.IntN(20)
		w.client.Send("unlock "+w.keys[k], "lock "+w.keys[k]+" "+strconv.Itoa(timeout))
		w.finish(unlock, k)
		w.finish(lock, k)
	case n < 70 && w.holds[k] || n < 10:
		op := w.begin("unlock", k)
		w.client.Send("unlock " + w.keys[k])
		w.finish(op, k)
	case n < 60 && w.mayWait(k): // for as long as it takes, and it is known when it is in the queue
		op := w.begin("lock", k)
		w.client.Send("unlock "+w.quiet[k], "lock "+w.keys[k]+" 600000")
		w.client.Expect("e not locked")
		w.barrier(k)
		op.queued = w.clock.Add(1)
		if reply := w.finish(op, k); reply == "t timeout" {
			w.tb.Errorf("a grant was lost: %v", op)
		}
	default:
		op := w.begin("lock", k)
		w.client.Send("lock " + w.keys[k] + " " + strconv.Itoa(max(0, w.rng.IntN(12)-4)))
		w.finish(op, k)
	}
}

func (w *actor) mayWait(k int) bool { return !slices.Contains(w.holds[k:], true) }

// barrier returns when a command for key k that the actor's loop has read has reached the loop of the key. As long as the
// command is not answered the session stays on its loop, whichever it has come to.
func (w *actor) barrier(k int) {
	p := w.probeOf(w.client)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Do("unlock "+w.quiet[k], "e not locked")
}

func (w *actor) begin(kind string, k int) operation {
	return operation{session: w.session, kind: kind, key: w.keys[k], call: w.clock.Add(1), ret: forever}
}

// finish reads the answer of an operation.
func (w *actor) finish(op operation, k int) string {
	reply, err := w.client.ReadReply()
	if err != nil {
		w.tb.Errorf("%v: %v", op, err)
		return ""
	}
	op.reply, op.ret = reply, w.clock.Add(1)
	switch reply {
	case "l locked":
		w.holds[k] = true
	case "u unlocked":
		w.holds[k] = false
	}
	w.record(op)
	return reply
}

// end ends the connection in one of the ways there are, with a command under way or not.
func (w *actor) end(under *operation) {
	for k, held := range w.holds {
		if held {
			op := w.begin("end", k)
			op.held = true
			w.record(op)
		}
	}
	if under != nil {
		maybe := *under
		maybe.kind, maybe.call = "end", w.clock.Add(1)
		w.record(maybe)
		defer func() { w.record(*under) }()
	}
	switch w.rng.IntN(3) {
	case 0:
		w.client.Close()
	case 1:
		w.client.Reset()
	case 2:
		w.client.CloseWrite()
		reply, err := w.client.ReadReply()
		if err == nil && under != nil {
			under.reply, under.ret = reply, w.clock.Add(1)
			reply, err = w.client.ReadReply()
		}
		if !errors.Is(err, io.EOF) {
			w.tb.Errorf("half-close: want the end, got %q, %v", reply, err)
		}
		w.client.Close()
	}
}

// run has the actors do a number of steps each, and returns the history by key.
func (h *historian) run(seed uint64, actors, steps int) map[string][]operation {
	var wg sync.WaitGroup
	for i := range actors {
		wg.Go(func() {
			w := &actor{historian: h, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
			w.connect()
			for range steps {
				if h.tb.Failed() {
					return
				}
				w.step()
			}
			w.end(nil)
		})
	}
	wg.Wait()
	last := h.dial()
	byKey := map[string][]operation{}
	for _, key := range h.keys {
		last.Do("lock "+key+" 600000", "l locked") // whatever the end of a connection left
	}
	for _, op := range h.ops {
		byKey[op.key] = append(byKey[op.key], op)
	}
	return byKey
}

// TestLinearizable records what clients see of one another, and looks for an order of events that explains it.
func TestLinearizable(t *testing.T) {
	seed, rounds := *historySeed, 5
	if seed != 0 {
		rounds = 1
	} else {
		seed = rand.Uint64()>>1 | 1
	}
	if testing.Short() {
		rounds = min(rounds, 2)
	}
	judged := 0
	for round := range rounds {
		for _, loops := range []int{2, 4} {
			seed := seed + uint64(round)
			t.Run(fmt.Sprintf("loops=%d/seed=%d", loops, seed), func(t *testing.T) {
				t.Logf("again: -run TestLinearizable -history.seed=%d", seed)
				for key, ops := range newHistorian(t, loops).run(seed, 6*loops, 80) {
					start := time.Now()
					result := checkLinearizable(ops)
					t.Logf("key %s: %d operations, %s after %s", key, len(ops), result, time.Since(start))
					if result != porcupine.Ok {
						t.Errorf("key %s: not linearizable: %s\n%s", key, result, describe(ops))
					}
					pairs, err := checkOrder(ops)
					if err != nil {
						t.Errorf("key %s: %v\n%s", key, err, describe(ops))
					}
					judged += pairs
				}
			})
		}
	}
	if t.Logf("%d pairs of waiters whose order is known", judged); judged == 0 {
		t.Error("no two waiters competed: the check of their order has checked nothing")
	}
}

func describe(ops []operation) string {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	var text strings.Builder
	for _, op := range ops {
		fmt.Fprintln(&text, op)
	}
	return text.String()
}

// TestCheckersFail feeds the checkers histories of a broken daemon, and the like of a sound one.
func TestCheckersFail(t *testing.T) {
	op := func(session int, kind, reply string, call, ret int64) operation {
		return operation{session: session, kind: kind, reply: reply, call: call, ret: ret}
	}
	end := func(session int, call int64, held bool) operation {
		return operation{session: session, kind: "end", held: held, call: call, ret: forever}
	}
	lock1, lock2 := op(1, "lock", "l locked", 1, 2), op(2, "lock", "l locked", 3, 6)
	for _, c := range []struct {
		name string
		ops  []operation
		want porcupine.CheckResult
	}{
		{"handed over", []operation{lock1, lock2, op(1, "unlock", "u unlocked", 4, 5)}, porcupine.Ok},
		{"two holders", []operation{lock1, lock2, op(1, "unlock", "u unlocked", 7, 8)}, porcupine.Illegal},
		{"two holders, both in doubt of time", []operation{op(1, "lock", "l locked", 1, 9), op(2, "lock", "l locked", 1, 9)}, porcupine.Illegal},
		{"released by its end", []operation{lock1, end(1, 4, true), lock2}, porcupine.Ok},
		{"granted before the end", []operation{lock1, lock2, end(1, 7, true)}, porcupine.Illegal},
		{"the end frees once", []operation{lock1, lock2, end(1, 4, true), op(3, "lock", "l locked", 5, 9)}, porcupine.Illegal},
		{"an abandoned lock was granted", []operation{op(1, "lock", "", 1, forever), end(1, 2, false),
			op(2, "unlock", "e not owner", 3, 4), op(2, "lock", "l locked", 5, 6)}, porcupine.Ok},
		{"it cannot last beside another", []operation{op(1, "lock", "", 1, forever), end(1, 2, false),
			lock2, op(2, "unlock", "e not owner", 7, 8)}, porcupine.Illegal},
		{"timeout of a free key", []operation{op(1, "lock", "t timeout", 1, 2)}, porcupine.Illegal},
		{"timeout of a held key", []operation{lock1, op(2, "lock", "t timeout", 3, 4)}, porcupine.Ok},
		{"timeout after the release", []operation{lock1, op(1, "unlock", "u unlocked", 3, 4), op(2, "lock", "t timeout", 5, 6)}, porcupine.Illegal},
		{"a stranger unlocks", []operation{lock1, op(2, "unlock", "u unlocked", 3, 4)}, porcupine.Illegal},
		{"forgotten", []operation{lock1, op(1, "lock", "l locked", 3, 4)}, porcupine.Illegal},
		{"already locked", []operation{lock1, op(1, "lock", "e already locked", 3, 4)}, porcupine.Ok},
		{"not locked", []operation{lock1, op(2, "unlock", "e not locked", 3, 4)}, porcupine.Illegal},
		{"an answer that there is not", []operation{op(1, "lock", "u unlocked", 1, 2)}, porcupine.Illegal},
	} {
		if got := checkLinearizable(c.ops); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}

	first, second := op(1, "lock", "l locked", 1, 9), op(2, "lock", "l locked", 3, 5)
	first.queued = 2
	first2, second2 := first, second
	first2.ret, second2.ret = 5, 9
	late := first
	late.queued = 4
	for _, c := range []struct {
		name  string
		ops   []operation
		pairs int
		fails bool
	}{
		{"overtaken", []operation{first, second, op(2, "unlock", "u unlocked", 6, 8), op(1, "unlock", "u unlocked", 11, 12)}, 1, true},
		{"in order", []operation{first2, second2, op(1, "unlock", "u unlocked", 6, 8), op(2, "unlock", "u unlocked", 11, 12)}, 1, false},
		{"in an order that nobody knows", []operation{late, second, op(2, "unlock", "u unlocked", 6, 8)}, 0, false},
	} {
		if pairs, err := checkOrder(c.ops); pairs != c.pairs || (err != nil) != c.fails {
			t.Errorf("%s: %d pairs, %v", c.name, pairs, err)
		}
	}
}

// TestCheckersFailOnRealHistory breaks recorded histories: one unlock among hundreds of operations did not happen. Every
// one that nothing else can account for must be missed.
func TestCheckersFailOnRealHistory(t *testing.T) {
	const tried = 4 // of a key: to prove that there is no order at all can take seconds
	for key, ops := range newHistorian(t, 2).run(1, 8, 60) {
		if got := checkLinearizable(ops); got != porcupine.Ok {
			t.Fatalf("key %s: %s\n%s", key, got, describe(ops))
		}
		needed := slices.DeleteFunc(slices.Clone(ops), func(op operation) bool { return !isNeeded(op, ops) })
		if len(needed) == 0 {
			t.Fatalf("key %s: no unlock that is needed", key)
		}
		for _, unlock := range needed[:min(len(needed), tried)] {
			broken := slices.DeleteFunc(slices.Clone(ops), func(op operation) bool { return op == unlock })
			if checkLinearizable(broken) == porcupine.Ok {
				t.Errorf("key %s: linearizable without %v", key, unlock)
			}
		}
	}
}

// isNeeded reports whether op is an unlock without which another session was granted a key that was held: it asked after
// the unlock, and had the key before the unlocking session did anything of which nobody knows when it took effect, as
// its end.
func isNeeded(op operation, ops []operation) bool {
	if op.reply != "u unlocked" {
		return false
	}
	known := int64(forever)
	for _, o := range ops {
		if o.session == op.session && o.ret == forever {
			known = min(known, o.call)
		}
	}
	return slices.ContainsFunc(ops, func(o operation) bool {
		return o.reply == "l locked" && o.session != op.session && o.call > op.ret && o.ret < known
	})
}
