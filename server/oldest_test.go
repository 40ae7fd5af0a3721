package server

import (
	"slices"
	"testing"
	"time"

	"dreadlock/server/api"
)

// sum returns what all loops have counted.
func (s *sim) sum() *counters {
	sum := new(counters)
	for _, l := range s.loops {
		sum.add(&l.worker.counters)
	}
	return sum
}

// oldest returns how old the oldest hold and the oldest wait of each loop are, in seconds.
func (s *sim) oldest() (holds, waits []float64) {
	for _, l := range s.loops {
		sh := l.worker.shard
		holds = append(holds, sh.secondsSinceOldest(sh.table.OldestHold()))
		waits = append(waits, sh.secondsSinceOldest(sh.table.OldestWait()))
	}
	return holds, waits
}

// The oldest hold and the oldest wait are known whatever else comes and goes, on the loop of their key.
func TestOldest(t *testing.T) {
	s := newSim(2, moveAfter)
	key, late, far := s.key("k", 0), s.key("late", 0), s.key("far", 1)
	want := func(what string, hold0, hold1, wait0, wait1 float64) {
		t.Helper()
		s.settle()
		holds, waits := s.oldest()
		if !slices.Equal(holds, []float64{hold0, hold1}) || !slices.Equal(waits, []float64{wait0, wait1}) {
			t.Errorf("%s: the oldest holds are %v s old, the oldest waits %v s", what, holds, waits)
		}
	}
	want("nothing yet", 0, 0, 0, 0)
	holder, first, second := s.connect("holder", 0), s.connect("first", 0), s.connect("second", 1)
	holder.send("lock " + key + " 0\r\n")
	s.settle()
	s.pass(10 * time.Second)
	first.send("lock " + key + " 1000000\r\n")
	s.pass(10 * time.Second)
	second.send("lock " + far + " 0\r\nlock " + key + " 1000000\r\n")
	want("two wait", 20, 0, 10, 0)
	s.pass(10 * time.Second)
	holder.send("lock " + late + " 0\r\nunlock " + late + "\r\n")
	want("another key comes and goes", 30, 10, 20, 0)
	first.reset()
	want("the first waiter is gone", 30, 10, 10, 0)
	holder.send("lock " + far + " 1000000\r\n")
	s.settle()
	s.pass(time.Second)
	want("each waits for the other", 31, 11, 11, 1)
	holder.reset()
	want("the second waiter holds both", 0, 11, 0, 0)
	second.reset()
	want("nobody is left", 0, 0, 0, 0)
	sum := s.sum()
	if got := sum.holds; got.sum != 31*time.Second+11*time.Second || got.buckets[0] != 2 {
		t.Errorf("what was held was held for %s: %v", got.sum, got.buckets)
	}
}

// Each way in which a wait can end is counted, with its time, whether the key is of the waiter's loop or of another one.
func TestWaitOutcomes(t *testing.T) {
	s := newSim(2, moveAfter)
	key := s.key("k", 0)
	s.connect("holder", 0).send("lock " + key + " 0\r\n")
	for loop := range 2 {
		waiter := func(name string) *simClient {
			c := s.connect(name, loop)
			c.send("lock " + key + " 7000\r\n")
			s.settle()
			s.pass(time.Second)
			return c
		}
		waiter("reset").reset()
		waiter("half-close").closeWrite()
		c := waiter("kicked")
		c.kick()
		s.settle()
		waiter("timeout")
		s.pass(6 * time.Second)
		s.settle()
	}
	s.clients[0].send("unlock " + key + "\r\n")
	s.settle()
	got := s.sum().words(nil)
	wantOutcomes(t, &got, map[string]uint64{api.WaitLost: 4, api.WaitKicked: 2, api.WaitTimedOut: 2})
	for how, seconds := range map[string]float64{api.WaitLost: 4, api.WaitKicked: 2, api.WaitTimedOut: 14} {
		if sum := got.WaitsByOutcome[how].Sum; sum != seconds {
			t.Errorf("the waits that ended by %s took %g s, want %g", how, sum, seconds)
		}
	}
	if n := sumOf(got.Waits); n != 2 {
		t.Errorf("%d waits were answered with the lock or a timeout, want 2", n)
	}
}
