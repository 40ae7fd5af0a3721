package faults

import (
	"fmt"
	"slices"
	"time"
)

// takeoverLoops are the numbers of loops of the daemon and of its successors, in turn.
var takeoverLoops = []int{2, 3, 1}

func takeoverCases() []*Case {
	return slices.Concat([]*Case{{
		Name:    "takeover-load",
		Fault:   "a takeover every second or more often, under load, with 2, 3, 1, 2 ... loops",
		Promise: "exclusive, in order, one answer a command, no connection ends, no early timeout; late ones by no more than the pause",
		run:     testTakeovers,
	}}, ordealCases(), successorCases())
}

// testTakeovers has the daemon be taken over from again and again, while clients do all that they can do.
func testTakeovers(t *trial) string {
	length, every := 5*time.Second, 500*time.Millisecond
	if t.options.Long {
		length, every = time.Minute, time.Second
	}
	l := t.newTakeoverLab(1)
	l.words = true
	ld := l.startLoad(bystanders())
	from := []dialer{l.near, l.remotes[0].dial}
	const holders = 10
	kept := make([]*client, holders)
	for i := range kept { // each holds a key, and waits for that of the next one but the last, so that there is no deadlock
		kept[i] = l.dial(from[i%len(from)])
		kept[i].mustLock(fmt.Sprintf("kept%d", i))
	}
	for i := range holders - 1 {
		kept[i].waits(fmt.Sprintf("kept%d", i+1), 1)
	}
	before := l.fenceOn("token")

	var sum pauses
	end := time.Now().Add(length)
	others := []func(end time.Time, n int){l.visit, l.sendAfterWait, l.readLate, l.halfClose, l.sendInPieces}
	const each = 3 // of the others
	t.parallel(2+each*len(others), func(i int) {
		switch i {
		case 0:
			l.competeFor(30, length, from, 8, longWait)
		case 1:
			sum.takeOver(l, end, every)
		default:
			others[(i-2)%len(others)](end, i)
		}
	})
	ld.stop()
	if after := l.fenceOn("token"); after <= before {
		t.violate("tokens do not grow: %d after %d", after, before)
	}
	kept[holders-1].unlock(fmt.Sprintf("kept%d", holders-1))
	for i := holders - 2; i >= 0; i-- {
		kept[i].want(locked)
		kept[i].unlock(fmt.Sprintf("kept%d", i))
	}
	v := check(l.history)
	if v.pairs == 0 {
		t.violate("no two waiters competed whose order is known: the check of the order has checked nothing")
	}
	// The clients of this process wait for a processor, too, and so does what they have asked.
	const tick, busy = 15 * time.Millisecond, time.Second
	if v.late > sum.longest+tick+busy {
		t.violate("a timeout was %s late, and the loops stood for at most %s", v.late, sum.longest)
	}
	commands := v.answered() + ld.commands() + l.others.Load()
	return fmt.Sprintf("%d takeovers, loops stood for %s, at most %s; %d commands, %d pairs in confirmed order, timeouts late by at most %s",
		sum.count, milliseconds(sum.median()), milliseconds(sum.longest), commands, v.pairs, milliseconds(v.late))
}

// pauses are how long the loops stood in takeovers.
type pauses struct {
	count   int
	all     []time.Duration
	longest time.Duration
}

// takeOver has the daemon be taken over from until the end, in turn as an operator asks by the admin interface and by a signal.
func (p *pauses) takeOver(l *lab, end time.Time, every time.Duration) {
	for l.until(end) {
		began := time.Now()
		loops := takeoverLoops[(p.count+1)%len(takeoverLoops)]
		l.t.install(asItself(loops))
		ask := l.daemon.takeOver
		if p.count%2 == 1 {
			ask = func() (*takeover, error) { return l.takeOverBySignal(uint64(p.count + 1)) }
		}
		done, err := ask()
		if err != nil {
			l.t.fatal("takeover %d: %w; log: %s", p.count+1, err, l.daemon.log.String())
		}
		p.add(done)
		if int(done.Count) != p.count || done.Closed != 0 {
			l.t.violate("takeover %d is told as %+v", p.count, done)
		}
		l.daemon.awaitSuccessor(done)
		var s status
		if l.ask(&s); s.Loops != loops {
			l.t.violate("the successor has %d loops, want %d", s.Loops, loops)
		}
		l.t.pause(every - time.Since(began))
	}
}

func (p *pauses) add(done *takeover) {
	p.count++
	p.all = append(p.all, done.pause())
	p.longest = max(p.longest, done.pause())
}

func (p *pauses) median() time.Duration {
	slices.Sort(p.all)
	return p.all[len(p.all)/2]
}
