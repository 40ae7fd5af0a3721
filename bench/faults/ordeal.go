package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// goesOnWithin is the promise: how long after a takeover that fails clients are served again at the latest. The rest is for a busy machine.
const goesOnWithin = 5*time.Second + 1500*time.Millisecond

// stuckAlone is how long a process stays stopped for ever that nothing else can replace.
const stuckAlone = 8 * time.Second

// fate is what came of a takeover.
type fate uint8

// The fates.
const (
	kept  fate = 1 << iota // the predecessor serves on
	taken                  // the successor serves
	lost                   // neither: that is a crash
)

func (f fate) String() string {
	var all []string
	for bit, word := range map[fate]string{kept: "the predecessor serves on", taken: "the successor serves", lost: "neither serves"} {
		if f&bit != 0 {
			all = append(all, word)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " or ")
}

// ordeal is a takeover in which something goes wrong.
type ordeal struct {
	script  string // the program at the daemon's path
	options []string
	// prepare runs before the takeover is asked for, nil for nothing. What it returns runs after it, nil for nothing.
	prepare func(l *lab) (after func())
	// stopped is how long a process stays stopped that was stopped meanwhile. 0: for ever, unless it is the only one.
	stopped time.Duration
	quiet   bool // no client connects or ends its connection
	// bySignal asks for the takeover by SIGUSR2, for a daemon that cannot be asked otherwise.
	bySignal bool
	allowed  fate
	// judge returns what is allowed after the takeover, instead of allowed.
	judge func(l *lab) fate
	// limit is the longest answer that a client may see, without the time for which a process is stopped. 0: goesOnWithin.
	limit time.Duration
}

// fates counts what came of ordeals.
type fates struct {
	count   map[fate]int
	slowest time.Duration
	reasons map[string]bool // that the daemon gave for those that it has refused
}

func (s *fates) String() string {
	return fmt.Sprintf("%d taken over, %d served on, %d crashed; slowest answer %s",
		s.count[taken], s.count[kept], s.count[lost], milliseconds(s.slowest))
}

// run makes an ordeal, and looks what came of it. Unless it is a crash, everything goes on, and the next takeover succeeds.
func (s *fates) run(t *trial, o *ordeal) {
	const rivals = 6
	l := t.newTakeoverLab(0, o.options...)
	l.unrecorded = true // the counts of what a crash has interrupted are nobody's
	c := l.startCrowd(rivals, !o.quiet)
	began := now()
	after := func() {}
	t.install(o.script)
	if o.prepare != nil {
		if f := o.prepare(l); f != nil {
			after = f
		}
	}
	over := make(chan struct{})
	go l.daemon.resume(over, o.stopped)
	ask := l.daemon.takeOver
	if o.bySignal {
		ask = l.askBySignal
	}
	done, err := ask()
	f := l.awaitFate(c, err == nil)
	close(over)
	after()
	if f != lost {
		c.goesOn(goesOnWithin)
	} else {
		l.concerned(began)
		c.end()
		l.concerned(began)
		l.daemon.excused = true
	}
	allowed := o.allowed
	if o.judge != nil {
		allowed = o.judge(l)
	}
	if f&allowed == 0 {
		t.violate("%s, want that %s: told %+v, %v; log: %s", f, allowed, done, err, l.daemon.log.String())
	}
	if told := err == nil; f == kept && told || f == taken && errors.Is(err, errRefused) {
		t.violate("%s, and who has asked was told %+v, %v", f, done, err)
	}
	limit := o.limit
	if limit == 0 {
		limit = goesOnWithin
	}
	if slowest := c.slowest(); slowest > limit+o.stopped {
		t.violate("the slowest answer took %s", milliseconds(slowest))
	}
	s.note(f, c.slowest(), err)
	if f != lost && t.violated() == 0 {
		l.nextSucceeds()
	}
}

func (s *fates) note(f fate, slowest time.Duration, err error) {
	if s.count == nil {
		s.count, s.reasons = map[fate]int{}, map[string]bool{}
	}
	s.count[f]++
	s.slowest = max(s.slowest, slowest)
	if err != nil {
		s.reasons[err.Error()] = true
	}
}

// nextSucceeds makes a takeover that nothing disturbs.
func (l *lab) nextSucceeds() {
	t := l.t
	holder := l.dial(l.near)
	holder.mustLock("next")
	t.install(asItself(2))
	var done *takeover
	t.eventually(4*patience, "the next takeover", func() (err error) { // the last one may still be at its end
		if done, err = l.daemon.takeOver(); err != nil {
			err = fmt.Errorf("%w; log: %s", err, l.daemon.log.String())
		}
		return err
	})
	if done == nil {
		return
	}
	l.daemon.awaitSuccessor(done)
	holder.unlock("next")
	holder.close()
}

// resume lets processes of the daemon go on that have been stopped for a while. With 0 it does so only for one that nothing else replaces.
func (d *daemon) resume(over <-chan struct{}, stopped time.Duration) {
	since := map[int]time.Time{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		for _, m := range d.members() {
			switch began, known := since[m.pid]; {
			case !m.stopped:
				delete(since, m.pid)
			case !known:
				since[m.pid] = time.Now()
			case stopped > 0 && time.Since(began) > stopped, time.Since(began) > stuckAlone && len(d.daemons()) == 1:
				_ = unix.Kill(m.pid, unix.SIGCONT)
			}
		}
	}
}

// awaitFate returns what came of a takeover: when one process of the daemon is left that answers, or none. It is not the first one if who
// has asked was told that this has handed over.
func (l *lab) awaitFate(c *crowd, told bool) fate {
	t, d := l.t, l.daemon
	const enough = 40 * time.Second // for two bounds of the daemon's, one after the other, and a process that is stopped
	first := d.cmd.Process.Pid
	var last []member
	var answers int64 // when what is left has changed
	for deadline := time.Now().Add(enough); time.Now().Before(deadline); t.pause(5 * time.Millisecond) {
		var living []member
		for _, m := range d.members() {
			if m.daemon && !m.dead {
				living = append(living, m)
			}
		}
		if !slices.Equal(living, last) {
			last, answers = living, c.answers.Load()
		}
		const some = 2 // the first may have come before
		switch {
		case len(living) == 0 && !d.running():
			return lost
		case len(living) != 1 || c.answers.Load() < answers+some:
		case living[0].pid == first && !told:
			return kept
		case d.pid() == living[0].pid:
			return taken
		}
	}
	t.violate("there are %+v; log: %s", last, d.log.String())
	t.fatal("not looked at further")
	return lost
}
