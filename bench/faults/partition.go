package faults

import (
	"fmt"
	"time"
)

// partitionCases cuts a host off for a while.
func partitionCases() []*Case {
	const keepalive = 2 * time.Second
	return []*Case{{
		Name:    "partition-short",
		Fault:   fmt.Sprintf("a host is cut off for %s, keepalive %s", keepalive, keepalive),
		Promise: "nobody loses a key, a place in a queue or an answer",
		run:     func(t *trial) string { return testShortPartition(t, keepalive) },
	}, {
		Name:    "partition-long",
		Fault:   fmt.Sprintf("a host is cut off for %s, keepalive %s", vanishLimit(keepalive)+time.Second, keepalive),
		Promise: fmt.Sprintf("its keys are free within %s; it sees the end of its connections when it is back", vanishLimit(keepalive)),
		run:     func(t *trial) string { return testLongPartition(t, keepalive) },
	}}
}

// testShortPartition cuts a host off for less time than it takes to give it up.
func testShortPartition(t *trial, keepalive time.Duration) string {
	l := t.newLab(1, "--keepalive", keepalive.String())
	away := l.remotes[0]
	ld := l.startLoad(bystanders())
	holder, waiter, sender, near, second := l.dial(away.dial), l.dial(away.dial), l.dial(away.dial), l.dial(l.near), l.dial(l.near)
	holder.mustLock("holder")
	near.mustLock("near")
	sender.mustLock("sender")
	waiter.waits("near", 1)
	second.waits("near", 2)

	away.wire.set(weather{cut: true})
	near.unlock("near") // its answer to the waiter is lost at first
	sender.send(command(unlock, "sender", 0), command(lock, "sender", 0))
	t.pause(keepalive)
	if got := near.lock("holder", 0); got != timedOut {
		t.violate("a host that is cut off for %s has lost its key: %q", keepalive, got)
	}
	away.wire.set(weather{})
	healed := time.Now()
	waiter.want(locked)
	sender.want(unlocked, locked)
	took := time.Since(healed)
	holder.send(command(lock, "holder", 0))
	holder.want(alreadyLocked)
	waiter.unlock("near")
	second.want(locked)
	ld.stop()
	return fmt.Sprintf("none lost; the answers arrive %s after it is back", seconds(took))
}

// testLongPartition cuts a host off for longer than it takes to give it up.
func testLongPartition(t *trial, keepalive time.Duration) string {
	l := t.newLab(1, "--keepalive", keepalive.String())
	away := l.remotes[0]
	holder, waiter, near := l.dial(away.dial), l.dial(away.dial), l.dial(l.near)
	holder.mustLock("a")
	near.mustLock("b")
	waiter.waits("b", 1)
	heir := l.dial(l.near)
	heir.waits("a", 1)

	limit := vanishLimit(keepalive)
	mayEnd(holder, waiter)
	away.wire.set(weather{cut: true})
	began := time.Now()
	heir.answerWithin(limit + patience)
	took := time.Since(began)
	if took > limit {
		t.violate("the key was free after %s, want %s", seconds(took), seconds(limit))
	}
	t.pause(limit + time.Second - time.Since(began))
	near.unlock("b")
	if got := near.lock("b", 0); got != locked {
		t.violate("a client that was given up still waits: %q", got)
	}
	away.wire.set(weather{})
	healed := time.Now()
	holder.send(command(unlock, "a", 0)) // what a client does that believes that it holds the key
	for _, c := range []*client{holder, waiter} {
		if !c.seesEnd() {
			t.violate("session %d: it is back and does not see the end of its connection", c.session.id)
		}
	}
	return fmt.Sprintf("free after %s; it sees the end %s after it is back", seconds(took), seconds(time.Since(healed)))
}
