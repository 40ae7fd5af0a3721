package faults

import (
	"fmt"
	"strings"
	"time"
)

// endCases end connections after every byte of a dialogue.
func endCases() (all []*Case) {
	for _, end := range []struct {
		name, fault string
		end         func(c *client)
		half        bool
	}{
		{"fin", "FIN", (*client).close, false},
		{"rst", "RST", (*client).reset, false},
		{"half", "half-close", (*client).closeWrite, true},
	} {
		promise := "what it held is free, nothing of its half command is done"
		if end.half {
			promise = "the answers still come; " + promise
		}
		all = append(all, &Case{
			Name:    "end-" + end.name,
			Fault:   end.fault + " after every byte of a dialogue",
			Promise: promise,
			run:     func(t *trial) string { return testEnds(t, end.end, end.half) },
		})
	}
	return all
}

// dialogue is what the clients say whose connections end, and its answers while somebody else holds "busy".
func dialogue(n int) (commands []operation, answers []string) {
	a, b := fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)
	return []operation{
			command(lock, a, 0), command(lock, "busy", 0), command(lock, b, time.Hour), command(unlock, a, 0),
			command(lock, a, 0), command(unlock, "busy", 0), command(unlock, "nobodys", 0), command(lock, "busy", time.Hour),
			command(unlock, a, 0),
		}, []string{
			locked, timedOut, locked, unlocked, locked, notOwner, notLocked, // then it waits for ever
		}
}

// testEnds has a client for every byte of the dialogue, whose connection ends after it.
func testEnds(t *trial, end func(*client), half bool) string {
	l := t.newLab(1, "--loops", "2")
	holder := l.dial(l.near)
	holder.mustLock("busy")
	commands, _ := dialogue(0)
	length := 0
	for _, op := range commands {
		length += len(op.text())
	}
	from := []dialer{l.near, l.remotes[0].dial}
	ends := 0
	for n := range length {
		c := l.dial(from[n%len(from)])
		complete := c.sendPart(n)
		_, answers := dialogue(n)
		wanted := min(complete, len(answers))
		if n%2 == 0 && !half { // otherwise it ends with its answers unread, and its commands perhaps unread by the daemon
			c.want(answers[:wanted]...)
		}
		end(c)
		if half {
			c.wantAll(answers[:wanted])
			if !c.seesEnd() {
				t.violate("after %d bytes: half-closed, and the daemon does not close", n)
			}
		}
		ends++
	}
	checker := l.dial(l.near)
	for n := range length {
		for _, key := range []string{"a", "b"} {
			if got := checker.lock(fmt.Sprintf("%s%d", key, n), patience); got != locked {
				t.violate("after %d bytes: key %s is not free: %q", n, key, got)
			}
		}
	}
	holder.unlock("busy")
	if got := checker.lock("busy", patience); got != locked {
		t.violate("a client that has ended waits: %q", got)
	}
	return fmt.Sprintf("%d connections, %d bytes", ends, length)
}

// sendPart sends the first bytes of a dialogue in one write, and returns how many commands are complete. Only those are
// recorded.
func (c *client) sendPart(bytes int) (complete int) {
	commands, _ := dialogue(bytes)
	var text strings.Builder
	for _, op := range commands {
		text.WriteString(op.text())
		if text.Len() <= bytes {
			complete++
			op.sent = now()
			c.session.operations = append(c.session.operations, op)
		}
	}
	_, err := c.conn.Write([]byte(text.String()[:bytes]))
	c.lab.t.must(err)
	return complete
}

// wantAll is want for a connection that may end: all answers must come first.
func (c *client) wantAll(answers []string) {
	for _, want := range answers {
		op := c.session.operations[c.next]
		if got := c.answer(); got != want {
			c.lab.t.violate("session %d: %s %s: want %q, got %q", c.session.id, op.verb, op.key, want, got)
			return
		}
	}
}
