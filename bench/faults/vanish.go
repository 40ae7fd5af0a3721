package faults

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// vanishLimit is the time within which a vanished host loses its keys, as README promises it.
func vanishLimit(keepalive time.Duration) time.Duration { return 2*keepalive + 2*time.Second }

// vanishCases lets a host vanish, with clients in all states that matter.
func vanishCases() (all []*Case) {
	for _, keepalive := range []time.Duration{time.Second, 4 * time.Second} {
		all = append(all, &Case{
			Name:    "vanish-" + keepalive.String(),
			Fault:   fmt.Sprintf("a host vanishes, keepalive %s", keepalive),
			Promise: fmt.Sprintf("its keys go to the next in line within %s", vanishLimit(keepalive)),
			run:     func(t *trial) string { return testVanish(t, keepalive) },
		}, &Case{
			Name:    "vanish-chain-" + keepalive.String(),
			Fault:   fmt.Sprintf("a host vanishes with ten clients that wait for one another, keepalive %s", keepalive),
			Promise: fmt.Sprintf("who waits behind all of them has the key within %s", vanishLimit(keepalive)),
			run:     func(t *trial) string { return testVanishChain(t, keepalive) },
		})
	}
	return all
}

// heir is a living client that waits for a key of a vanished one.
type heir struct {
	what   string // the state of the vanished client
	client *client
	key    string
	took   time.Duration
}

// testVanish lets a host vanish whose clients hold keys, wait, do both, have answers to read, have sent half a command, and
// have come to another loop.
func testVanish(t *trial, keepalive time.Duration) string {
	l := t.newLab(2, "--keepalive", keepalive.String(), "--loops", "2")
	dead, alive := l.remotes[0], l.remotes[1]
	ld := l.startLoad(bystanders())

	holding, both, half, moved, unread, doomed := l.dial(dead.dial), l.dial(dead.dial), l.dial(dead.dial), l.dial(dead.dial),
		l.dial(dead.dial), l.dial(dead.dial)
	holding.mustLock("holding")
	both.mustLock("both")
	half.mustLock("half")
	moved.mustLock("moved")
	l.move(moved)
	unread.mustLock("unread")
	living := l.dial(alive.dial)
	living.mustLock("granted", "late")
	both.waits("granted", 1)
	doomed.waits("late", 1)
	_, err := half.conn.Write([]byte("lock hal"))
	t.must(err)
	l.fill(unread)

	var heirs []*heir
	for _, h := range []*heir{
		{what: "holding", key: "holding"}, {what: "holding and waiting", key: "both"}, {what: "half a command", key: "half"},
		{what: "moved", key: "moved"}, {what: "answers unread", key: "unread"}, {what: "granted after it vanished", key: "granted"},
		{what: "granted late", key: "late"},
	} {
		h.client = l.dial(alive.dial)
		position := 1
		if h.key == "granted" || h.key == "late" {
			position = 2
		}
		h.client.waits(h.key, position)
		heirs = append(heirs, h)
	}
	mayEnd(holding, both, half, moved, unread, doomed)
	dead.wire.set(weather{cut: true})
	began := time.Now()
	living.unlock("granted") // to a client that is gone
	limit := vanishLimit(keepalive)
	t.parallel(len(heirs)+1, func(i int) {
		if i == len(heirs) { // a grant that comes when the host has been silent for long
			t.pause(3 * keepalive / 2)
			living.unlock("late")
			return
		}
		h := heirs[i]
		if h.client.answerWithin(limit+patience) != locked {
			t.violate("%s: the next in line did not get the key", h.what)
		}
		h.took = time.Since(began)
		if h.took > limit {
			t.violate("%s: the key was free after %s, want %s", h.what, seconds(h.took), seconds(limit))
		}
	})
	ld.stop()
	worst := slices.MaxFunc(heirs, func(a, b *heir) int { return int(a.took - b.took) })
	return fmt.Sprintf("%s to %s (%s); others' worst answer %s", seconds(slices.MinFunc(heirs, func(a, b *heir) int {
		return int(a.took - b.took)
	}).took), seconds(worst.took), worst.what, milliseconds(time.Duration(ld.worst.Load())))
}

// testVanishChain lets a host vanish whose clients queue for one key. Each of them is granted it when the one before is given up.
func testVanishChain(t *trial, keepalive time.Duration) string {
	const length = 10
	l := t.newLab(2, "--keepalive", keepalive.String(), "--loops", "2")
	dead := l.remotes[0]
	living, last := l.dial(l.near), l.dial(l.near)
	living.mustLock("chain")
	var chain []*client
	for i := range length {
		c := l.dial(dead.dial)
		c.waits("chain", i+1)
		chain = append(chain, c)
	}
	last.waits("chain", length+1)
	mayEnd(chain...)
	dead.wire.set(weather{cut: true})
	began := time.Now()
	living.unlock("chain")
	limit := vanishLimit(keepalive)
	last.answerWithin(length*limit + patience)
	took := time.Since(began)
	if took > limit {
		t.violate("after a chain of %d dead waiters the key was free after %s, want %s", length, seconds(took), seconds(limit))
	}
	return seconds(took)
}

// move makes a client use keys of one loop until its connection has come there.
func (l *lab) move(c *client) {
	var s status
	for range 200 {
		for i := range 20 { // some of these keys are on the other loop
			key := fmt.Sprintf("there%dx%d", c.session.id, i)
			for range 40 {
				c.lock(key, 0)
				c.unlock(key)
			}
		}
		if l.ask(&s); s.Counters.Moves > 0 {
			return
		}
	}
	l.t.fatal("no connection moves")
}

// fill sends commands until the daemon takes no more, because the client does not read its answers. These commands and answers are
// not recorded.
func (l *lab) fill(c *client) {
	l.unrecorded = true
	commands := bytes.Repeat([]byte("unlock nobodys\r\n"), 1000)
	for {
		// A daemon that does not hold the client back takes it all within this time.
		const stalls = 300 * time.Millisecond
		l.t.must(c.conn.SetWriteDeadline(time.Now().Add(stalls)))
		if _, err := c.conn.Write(commands); err != nil {
			break
		}
	}
	c.session.mayEnd() // its answers are not read
}

// seconds and milliseconds format a time for the table.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
func milliseconds(d time.Duration) string {
	return strings.Replace(fmt.Sprintf("%.1f ms", d.Seconds()*1000), ".0 ms", " ms", 1)
}
