package server

import (
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTakeovers is [TestSimulation] where little happens but that clients wait for few keys, and that the server is taken over.
func TestTakeovers(t *testing.T) {
	simulate(t, func(t *rapid.T, w *simWorld) map[string]func(*rapid.T) {
		w.keys = w.keys[:2]
		w.server.cfg.MaxKeys = 100
		for i := range simClients {
			c := w.connect("c"+strconv.Itoa(i+1), i%len(w.loops))
			c.encrypted = i == 0
		}
		actions := w.actions()
		for _, rare := range []string{"connect", "drain", "memory", "quiet", "fail to take over"} {
			delete(actions, rare)
		}
		actions["settle"] = func(*rapid.T) { w.settle() }
		actions["ask again"] = w.ask
		return actions
	})
}

// takeOver has a server with other options take over.
func (w *simWorld) takeOver(t *rapid.T) {
	if w.drains {
		t.Skip("the server may drain, and is not taken over then")
	}
	cfg := w.server.cfg
	cfg.Loops = rapid.IntRange(1, 3).Draw(t, "loops")
	cfg.LockDelay = rapid.SampledFrom([]time.Duration{cfg.LockDelay, cfg.LockDelay, 0, 50 * simTick}).Draw(t, "lock delay")
	cfg.MaxKeys = rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "max-keys")
	cfg.MaxPipeline = rapid.SampledFrom([]int{30, 200}).Draw(t, "max-pipeline")
	cfg.MaxOutput = rapid.SampledFrom([]int{20, 200}).Draw(t, "max-output")
	w.delay = max(w.delay, cfg.LockDelay)
	if err := w.sim.takeOver(cfg, func() {
		w.hear(t)
		w.noted.read(t, w.sim)
		w.noted.next = nil
		for key, c := range w.left {
			if c.open && c.session.phase < ended { // it ends on the next server
				w.rests[key] = min(w.rests[key], w.now+cfg.LockDelay)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	w.held = false
}

// serve ends a hold.
func (w *simWorld) goOn() {
	if w.held {
		w.sim.goOn()
	}
	w.held = false
}
