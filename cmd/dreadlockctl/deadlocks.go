package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"dreadlock/server/api"
)

// deadlocksCommand lists deadlocks.
type deadlocksCommand struct {
	jsonOption
}

// Help has examples.
func (*deadlocksCommand) Help() string {
	return `Examples:

  dreadlockctl deadlocks || echo 'clients wait for one another'

Clients in a deadlock wait until one of them gives up. Each line is one deadlock. To break it, kick the last connection of
the line, whose wait is the youngest: dreadlockctl kick CONNECTION. It loses all its keys, so its program must be able to
cope with that.

Exit status: 0 if there are none, 3 if there are deadlocks, with --json too.`
}

// Run lists deadlocks.
func (c *deadlocksCommand) Run(ctx context.Context, s *streams, g *globals) error {
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	var d api.Deadlocks
	if err := a.get(ctx, &d, nil, "deadlocks"); err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(s.stdout, d)
	} else {
		err = writeDeadlocks(s.stdout, &d)
	}
	if err == nil && len(d.Cycles) > 0 {
		return &exit{exitDeadlocks, nil}
	}
	return err
}

func writeDeadlocks(w io.Writer, d *api.Deadlocks) error {
	var text strings.Builder
	for i := range d.Cycles {
		text.WriteString(cycle(&d.Cycles[i]) + "\n")
	}
	if len(d.Cycles) == 0 {
		text.WriteString("no deadlocks\n")
	}
	breaking := "the daemon does not break them"
	if d.Breaking {
		breaking = "the daemon breaks them"
	}
	fmt.Fprintf(&text, "%s found and %s broken since the start; %s\n", count(d.Found), count(d.Broken), breaking)
	_, err := io.WriteString(w, text.String())
	return err
}

// cycle describes a deadlock on one line: 5 (10.0.0.1:40001) waits 12.0s for a, held by 7 (...), which waits 3.0s for b, held
// by 5.
func cycle(c *api.Cycle) string {
	var text strings.Builder
	fmt.Fprintf(&text, "#%d: ", c.ID)
	for i := range c.Waits {
		wait, next := &c.Waits[i], &c.Waits[(i+1)%len(c.Waits)].Peer
		if i > 0 {
			text.WriteString(", which")
		} else {
			text.WriteString(who(&wait.Peer))
		}
		fmt.Fprintf(&text, " waits %s for %s, held by ", span(wait.WaitedSeconds), cell(wait.WaitsFor, maxCell))
		if wait.HeldBy != next.Connection {
			fmt.Fprintf(&text, "%d of the same owner as ", wait.HeldBy)
		}
		if i+1 < len(c.Waits) {
			text.WriteString(who(next))
		} else {
			text.WriteString(number(next.Connection))
		}
	}
	return text.String()
}
