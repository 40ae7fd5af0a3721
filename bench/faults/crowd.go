package faults

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is clients that hold, wait and lock all the time, so that something is under way at any moment. The daemon may end.
type crowd struct {
	lab            *lab
	stopping       chan struct{}
	running        sync.WaitGroup
	holder, waiter *client // of the key kept

	// Of a client that locks and unlocks a key of its own all the time: its answers, and the slowest of them.
	answers atomic.Int64
	worst   atomic.Int64 // ns
}

// crowdAnswers is how long an answer of a crowd may take: longer than any daemon is stopped.
const crowdAnswers = 40 * time.Second

// startCrowd begins a crowd, of which as many compete as it is told. Without stir, none of them connects or ends its connection.
func (l *lab) startCrowd(rivals int, stir bool) *crowd {
	const keys, longest = 4, 500 * time.Millisecond
	c := &crowd{lab: l, stopping: make(chan struct{}), holder: l.dial(l.near), waiter: l.dial(l.near)}
	c.holder.mustLock("kept")
	c.waiter.waits("kept", 1)
	for i := range rivals {
		r := l.newRival(i, l.near, keys, longest)
		r.limit, r.words, r.stays = crowdAnswers, true, !stir
		r.client, r.held = l.dial(r.from), make([]bool, keys)
		r.client.unlock("nobodys") // it has been accepted
		c.begin(func() bool {
			if r.client == nil {
				next, err := l.tryDial(r.from)
				if err != nil {
					return false // the daemon has ended
				}
				r.client, r.held = next, make([]bool, keys)
			}
			r.step()
			if r.client == nil {
				return true
			}
			return r.client.session.ended == never
		})
	}
	probe := l.dial(l.near)
	probe.unlock("nobodys")
	c.begin(func() bool {
		began := time.Now()
		probe.send(command(lock, "probe", 0), command(unlock, "probe", 0))
		probe.answerWithin(crowdAnswers)
		if probe.answerWithin(crowdAnswers) == "" {
			return false
		}
		c.worst.Store(max(c.worst.Load(), int64(time.Since(began))))
		c.answers.Add(1)
		l.t.pause(time.Millisecond)
		return true
	})
	return c
}

// begin has f called again and again, until the crowd is stopped or f returns false.
func (c *crowd) begin(f func() bool) {
	c.running.Go(func() {
		defer c.lab.t.recovered()
		for f() {
			select {
			case <-c.stopping:
				return
			default:
			}
		}
	})
}

// goesOn looks whether the daemon serves the crowd, and anybody else. Then the crowd stops.
func (c *crowd) goesOn(within time.Duration) {
	t := c.lab.t
	before := c.answers.Load()
	t.eventually(within, "everything goes on", func() error {
		if c.answers.Load() == before {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	if t.violated() == 0 {
		newcomer := c.lab.dial(c.lab.near)
		if got := newcomer.lock("kept", 0); got != timedOut {
			t.violate("the key of a client that holds it: %q", got)
		}
		newcomer.close()
		c.holder.unlock("kept")
		c.waiter.want(locked)
	}
	c.end()
}

// end stops the crowd.
func (c *crowd) end() {
	close(c.stopping)
	c.running.Wait()
}

// slowest returns the slowest answer.
func (c *crowd) slowest() time.Duration { return time.Duration(c.worst.Load()) }
