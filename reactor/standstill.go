package reactor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The state of all loops together can be looked at, and handed to another process, only while none of them changes anything. So
// they stand still: each ends its turn and then waits, on purpose, for what the coordinator has to do on it. The coordinator
// is a goroutine that is no loop:
//
//	coordinator                         each loop
//	StandStill      ──message──►        ends its turn, stands
//	Each            ──task─────►        runs it
//	Release, or the bound is over ──►   goes on
//
// Whatever happens to the coordinator, the loops go on when the bound is over, unless it has committed. Which of the two comes
// first is decided by one atomic word:
//
//	standing ──Commit──► committed ──Release──► released
//	    └──────────Release, bound is over──────────▲

// ErrReleased is returned when loops do not stand still any more, or do not all stand still within the bound.
var ErrReleased = errors.New("reactor: the loops do not stand still")

// The states of a standstill.
const (
	standing int32 = iota
	committed
	released
)

// Standstill is the time in which all loops stand still. Its methods are safe from any goroutine but those of the loops.
type Standstill struct {
	reactor *Reactor
	state   atomic.Int32
	over    chan struct{} // closed when it is released
	bound   *time.Timer
	arrived chan struct{} // gets one for each loop that stands
	loops   []*parking
}

// parking is one loop's part of a standstill. It travels to the loop as a message.
type parking struct {
	message    Message // Body: the parking
	standstill *Standstill
	tasks      chan loopTask
}

// loopTask is what a loop does while it stands still.
type loopTask struct {
	f    func(l *Loop)
	done *sync.WaitGroup
}

// StandStill has all loops stand still, each at the end of a turn, for at most the bound from now on, and returns when
// they do. The error wraps [ErrReleased] if a loop was busy for so long, or if ctx was done; then all go on. Only one standstill can be
// had at a time.
func (r *Reactor) StandStill(ctx context.Context, bound time.Duration) (*Standstill, error) {
	s := &Standstill{
		reactor: r,
		over:    make(chan struct{}),
		arrived: make(chan struct{}, len(r.loops)),
	}
	if !r.standstill.CompareAndSwap(nil, s) {
		return nil, errors.New("reactor: the loops stand still already")
	}
	s.bound = time.AfterFunc(bound, func() { s.release(standing) })
	for _, l := range r.loops {
		p := &parking{standstill: s, tasks: make(chan loopTask)}
		p.message.Body = p
		s.loops = append(s.loops, p)
		l.Send(&p.message)
	}
	for n := range r.loops {
		select {
		case <-s.arrived:
		case <-s.over:
			return nil, fmt.Errorf("%w: %d of %d did within %s", ErrReleased, n, len(r.loops), bound)
		case <-ctx.Done():
			s.Release()
			return nil, fmt.Errorf("%w: %w", ErrReleased, context.Cause(ctx))
		}
	}
	return s, nil
}

// Each runs f on all loops at the same time, each on its own goroutine, and returns when all are done. f may do what is to be
// done on a loop, but outside of a turn. After an error, which is [ErrReleased], f has not run on some of them.
func (s *Standstill) Each(f func(l *Loop)) (err error) {
	var done sync.WaitGroup
	for _, p := range s.loops {
		done.Add(1)
		select {
		case p.tasks <- loopTask{f, &done}:
		case <-s.over:
			done.Done()
			err = ErrReleased
		}
	}
	done.Wait()
	return err
}

// Quiet reports whether nothing is under way that would be lost with the loops: no connection is about to be closed or moves, and
// no message is on its way of which matters says so. It is called on all loops at the same time. Messages of the reactor
// itself never matter to others. A loop that does not stand still is not quiet.
func (s *Standstill) Quiet(matters func(m *Message) bool) bool {
	var busy atomic.Bool
	err := s.Each(func(l *Loop) {
		if l.busy(matters) {
			busy.Store(true)
		}
	})
	return err == nil && !busy.Load()
}

// Commit has the loops stand still until Release, whatever the bound. It reports false, and nothing changes, if they do
// not stand still any more.
func (s *Standstill) Commit() bool {
	if !s.state.CompareAndSwap(standing, committed) {
		return false
	}
	s.bound.Stop()
	return true
}

// Release has the loops go on. It does nothing if they do.
func (s *Standstill) Release() {
	s.bound.Stop()
	if !s.release(standing) {
		s.release(committed)
	}
}

// release ends the standstill if it is in the state from, and reports whether it was.
func (s *Standstill) release(from int32) bool {
	if !s.state.CompareAndSwap(from, released) {
		return false
	}
	s.reactor.standstill.Store(nil)
	close(s.over)
	return true
}

// stand is called at the end of a turn, when a parking has come. What the tasks have left is done before the loop goes on.
func (l *Loop) stand() {
	p := l.parking
	l.parking = nil
	select {
	case <-p.standstill.over: // it comes late
		return
	default:
	}
	p.standstill.arrived <- struct{}{}
	for {
		select {
		case t := <-p.tasks:
			l.now = 0
			t.f(l)
			t.done.Done()
		case <-p.standstill.over:
			l.enter()
			l.leave()
			return
		}
	}
}

// busy reports whether something is under way from, to or on the loop: see [Standstill.Quiet].
func (l *Loop) busy(matters func(m *Message) bool) bool {
	if len(l.ending) > 0 || l.reactor.moving.Load() > 0 {
		return true
	}
	for m := range l.undelivered {
		switch m.Body.(type) {
		case *room, *parking, *dropBlanks:
		case *transfer:
			return true
		default:
			if matters(m) {
				return true
			}
		}
	}
	return false
}

// undelivered yields the messages that wait on the loop: taken from the mailbox, in it, or to be posted, in no order. Nobody takes
// any out meanwhile, because that is done on the loop; what is put in meanwhile may be missed.
func (l *Loop) undelivered(yield func(m *Message) bool) {
	stacks := []*Message{l.inbox, l.mailbox.top.Load()}
	for _, to := range l.posted {
		stacks = append(stacks, l.outbox[to].newest)
	}
	for _, m := range stacks {
		for ; m != nil; m = m.next {
			if !yield(m) {
				return
			}
		}
	}
}
