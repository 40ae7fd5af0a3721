package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// step is a message of a takeover.
type step struct {
	from string
	nth  int
}

// between returns the script of a successor with a relay before it that follows a plan.
func (t *trial) between(p *plan) string {
	text, err := json.Marshal(p)
	t.must(err)
	self := strings.Join(t.options.Client[:len(t.options.Client)-1], " ")
	return fmt.Sprintf(`exec '%s' between '%s' "$0" "$DAEMON" -- "$@"`, self, text)
}

// stepsOf makes a takeover that nothing disturbs, and returns its messages in their order, and which of them is the ack: the last one
// of the successor. The one before it is the commit.
func (t *trial) stepsOf() (all []step, ack int) {
	l := t.newTakeoverLab(0)
	log := t.path("messages")
	c := l.startCrowd(6, true)
	t.install(t.between(&plan{Do: doNothing, Log: log}))
	done, err := l.daemon.takeOver()
	if err != nil {
		t.fatal("a takeover with a relay: %w; log: %s", err, l.daemon.log.String())
	}
	l.daemon.awaitSuccessor(done)
	c.goesOn(goesOnWithin)
	text, err := os.ReadFile(log)
	t.must(err)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		const from, nth, all4 = 0, 1, 4
		if len(words) != all4 {
			continue
		}
		n, err := strconv.Atoi(words[nth])
		t.must(err)
		all = append(all, step{words[from], n})
		if words[from] == successor {
			ack = len(all) - 1
		}
	}
	if ack < 3 || all[ack-1].from != predecessor {
		t.fatal("the messages of a takeover are %v", all)
	}
	return all, ack
}

func ordealCases() (all []*Case) {
	stop := 800 * time.Millisecond // longer than the predecessor waits for the ack
	const steps = " at each message of a takeover"
	either := func(int, int) fate { return kept | taken }
	// At the ack itself, which no kernel loses or changes, nothing is done.
	until := func(at, ack int) fate {
		switch {
		case at < ack:
			return kept
		case at == ack:
			return 0
		}
		return taken
	}
	for _, o := range []struct {
		name, fault, promise string
		do, to               string
		stopped              time.Duration
		slow                 bool                   // only the messages around the ack, but in the long form
		allowed              func(at, ack int) fate // 0: not made
	}{
		{"kill-predecessor", "SIGKILL of the predecessor", "before the commit that is a crash of the daemon; from then on the successor serves",
			doKill, predecessor, 0, false, func(at, ack int) fate {
				if at < ack-1 {
					return lost
				}
				return taken
			}},
		{"kill-successor", "SIGKILL of the successor",
			"until it says that it serves, the predecessor serves on; then that is a crash of the daemon",
			doKill, successor, 0, false, func(at, ack int) fate {
				if at < ack {
					return kept
				}
				return lost
			}},
		{"stop-predecessor", "SIGSTOP of the predecessor, for " + seconds(stop), "one of them serves", doStop, predecessor, stop, false, either},
		{"stop-successor", "SIGSTOP of the successor, for " + seconds(stop), "one of them serves", doStop, successor, stop, false, either},
		{"stuck-predecessor", "SIGSTOP of the predecessor, for 12 s", "one of them serves", doStop, predecessor, 12 * time.Second, true, either},
		{"stuck-successor", "SIGSTOP of the successor, for ever", "the predecessor serves on, unless it was told that the successor serves",
			doStop, successor, 0, true, func(at, ack int) fate {
				if at < ack {
					return kept
				}
				return taken // when it goes on
			}},
		{"hang", "nothing arrives any more", "the predecessor serves on", doHang, "", 0, true, until},
		{"cut", "the sockets between them end", "the predecessor serves on", doCut, "", 0, false, until},
		{"garble", "garbage arrives", "the predecessor serves on", doGarble, "", 0, false, until},
		{"repeat", "a message arrives twice", "one of them serves", doRepeat, "", 0, false, func(at, ack int) fate {
			if at == ack-2 {
				return 0 // the predecessor hangs up, but with the relay between them the successor can send an ack nevertheless
			}
			return kept | taken
		}},
		{"strip", "descriptors are left out", "one of them serves", doStrip, "", 0, false, either},
	} {
		all = append(all, &Case{
			Name:    "takeover-" + o.name,
			Fault:   o.fault + "," + steps,
			Promise: o.promise,
			run: func(t *trial) string {
				messages, ack := t.stepsOf()
				var sum fates
				for i, at := range messages {
					allowed := o.allowed(i, ack)
					const around = 2 // the ack
					if allowed == 0 || o.slow && !t.options.Long && (i < ack-around || i > ack) {
						continue
					}
					p := &plan{From: at.from, Nth: at.nth, Do: o.do, To: o.to}
					t.each(fmt.Sprintf("%s %d", at.from, at.nth), func(t *trial) {
						p.Log = t.path("messages")
						d := &ordeal{script: t.between(p), stopped: o.stopped, allowed: allowed}
						if o.do == doStop && o.stopped == 0 && i >= ack {
							d.limit = stuckAlone + goesOnWithin
						}
						sum.run(t, d)
						if text, err := os.ReadFile(p.Log); err != nil || !strings.Contains(string(text), acts) {
							t.violate("the relay has not seen the message: %s", text)
						}
					})
				}
				return fmt.Sprintf("%d messages; %s", len(messages), &sum)
			},
		})
	}
	return all
}
