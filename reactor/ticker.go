package reactor

import (
	"errors"
	"sync/atomic"
	"time"
)

// ticker wakes loops when their timers are due, and those that could not be woken when they should have been. It sleeps until
// the first alarm of all loops, so an idle server does nothing at all, and is woken early when a loop sets an alarm before
// that.
//
// No alarm is missed: a loop stores its alarm and then looks at target; the ticker stores target and then looks at the
// alarms once more. Whichever comes second sees the other.
type ticker struct {
	target atomic.Int64  // tick that the ticker sleeps for; Never while there is no alarm
	early  chan struct{} // one token: an alarm was set before target
	warned time.Time     // when it last warned that a wake-up had failed
}

func (t *ticker) notify(at Tick) {
	if at < Tick(t.target.Load()) {
		select {
		case t.early <- struct{}{}:
		default:
		}
	}
}

// run serves the alarms of the loops until they are about to end.
func (t *ticker) run(r *Reactor) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		first := r.firstAlarm()
		t.target.Store(int64(first))
		if r.firstAlarm() < first {
			continue
		}
		now := r.tick()
		if first <= now {
			r.ring(now)
			continue
		}
		var due <-chan time.Time
		if first != Never {
			timer.Reset(r.until(first))
			due = timer.C
		}
		select {
		case <-due:
		case <-t.early:
		case <-r.ended:
			return
		}
	}
}

// firstAlarm returns the first tick for which a loop has set an alarm.
func (r *Reactor) firstAlarm() Tick {
	first := Never
	for _, l := range r.loops {
		first = min(first, Tick(l.alarm.Load()), Tick(l.retry.Load()))
	}
	return first
}

// ring wakes the loops whose alarm is due. An alarm rings once; the loop sets it again.
func (r *Reactor) ring(now Tick) {
	for _, l := range r.loops {
		if at := l.alarm.Load(); Tick(at) <= now && l.alarm.CompareAndSwap(at, int64(Never)) {
			l.wake()
		}
		if at := l.retry.Load(); Tick(at) <= now && l.retry.CompareAndSwap(at, int64(Never)) {
			r.wakeAgain(l)
		}
	}
}

// wakeAgain repeats a wake-up that has failed.
func (r *Reactor) wakeAgain(l *Loop) {
	if err := errors.Join(l.tryWake(), l.tryWakeGnet()); err != nil && time.Since(r.ticker.warned) >= warnEvery {
		r.ticker.warned = time.Now()
		r.cfg.Log.Warn().Err(err).Int("loop", l.index).
			Msg("a loop cannot be woken, its clients wait: the machine may lack memory; it is tried again at every tick")
	}
}

// tick returns the present tick: the last one that has begun.
func (r *Reactor) tick() Tick { return Tick(time.Since(r.start) / r.cfg.Tick) }

// dueTick returns the present tick and the first one that begins d from now or later.
func (r *Reactor) dueTick(d time.Duration) (now, due Tick) {
	elapsed := time.Since(r.start)
	now = Tick(elapsed / r.cfg.Tick)
	end := elapsed + d + r.cfg.Tick - 1
	if end < d { // beyond what a duration holds: 292 years
		return now, Never - 1
	}
	return now, Tick(end / r.cfg.Tick)
}

// until returns the time until a tick begins.
func (r *Reactor) until(t Tick) time.Duration {
	return time.Duration(t)*r.cfg.Tick - time.Since(r.start)
}
