package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"dreadlock/server/api"
)

// takeoverCommand has the daemon restart without losing a lock.
type takeoverCommand struct {
	jsonOption
}

// Help has examples.
func (*takeoverCommand) Help() string {
	return `Examples:

  install -m 755 dreadlock /usr/local/bin/ && dreadlockctl takeover    an upgrade
  dreadlockctl takeover --json | jq .pause_seconds

The daemon starts the program that is now at its path, with its own arguments and environment and what its --options-file has by
now, and hands over to it: connections, held keys, places in queues, timeouts. Clients notice a pause of milliseconds.
Connections by TLS cannot be handed over: they are closed, and lose what they hold.

It shows what was handed over when the new process answers. The exit status is 0 then. It is 1 if there was no takeover: the line
says why, and the daemon serves on as before, so nobody has lost anything. It is 69 if the daemon cannot be reached, or the new
process does not answer.`
}

const (
	// takeoverTime is longer than the daemon gives a takeover.
	takeoverTime = 90 * time.Second
	// successorTime is the time that the new process has to answer.
	successorTime = 10 * time.Second
	// successorPause is the time between two questions to it.
	successorPause = 20 * time.Millisecond
)

// Run asks for a takeover, and for the status of the new process.
func (c *takeoverCommand) Run(ctx context.Context, s *streams, g *globals) error {
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	var before api.Status
	if err := a.get(ctx, &before, nil, "status"); err != nil {
		return err
	}
	if before.PID == 0 {
		return failed(exitFailed, "the daemon at %s (%s) is too old for a takeover: restart it, which loses all locks", a.where, before.Version)
	}
	done, err := a.takeOver(ctx)
	var refused *conflict
	switch {
	case errors.As(err, &refused):
		return failed(exitFailed, "%w; the daemon serves on as before", refused)
	case isCutOff(err): // the new process knows
		done = &api.Takeover{Count: takeovers(&before) + 1}
	case err != nil:
		return err
	}
	if done, err = a.awaitSuccessor(ctx, done); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, done)
	}
	return writeTakeover(s.stdout, done)
}

// takeOver asks for a takeover, and returns when there was one. The error is cut off if the process has ended without an answer.
func (a *admin) takeOver(ctx context.Context) (*api.Takeover, error) {
	patient := *a
	patient.client = new(http.Client)
	*patient.client = *a.client
	patient.client.Timeout = takeoverTime
	var done api.Takeover
	if err := patient.post(ctx, &done, nil, "takeover"); err != nil {
		return nil, err
	}
	return &done, nil
}

// awaitSuccessor returns the takeover in the words of the new process, once that answers.
func (a *admin) awaitSuccessor(ctx context.Context, done *api.Takeover) (*api.Takeover, error) {
	waiting, cancel := context.WithTimeout(ctx, successorTime)
	defer cancel()
	var why error // there is no answer of the new process; nil if the former one answers
	for waiting.Err() == nil {
		a.client.CloseIdleConnections() // to the former one
		var after api.Status
		err := a.get(waiting, &after, nil, "status")
		if err == nil && takeovers(&after) >= done.Count {
			return after.Takeover, nil
		}
		if waiting.Err() == nil {
			why = err
		}
		select {
		case <-time.After(successorPause):
		case <-waiting.Done():
		}
	}
	switch {
	case why != nil:
		return nil, failed(exitUnreachable, "the daemon has handed over, but the new process does not answer at %s: its log says why (%w)",
			a.where, why)
	case done.PID == 0:
		return nil, failed(exitFailed, "the daemon at %s has ended the connection without an answer, and serves on: its log says why", a.where)
	}
	return nil, failed(exitUnreachable, "the daemon has handed over to process %d, but the former process answers at %s", done.PID, a.where)
}

// takeovers returns the number of takeovers in a status.
func takeovers(s *api.Status) uint64 {
	if s.Takeover == nil {
		return 0
	}
	return s.Takeover.Count
}

func writeTakeover(w io.Writer, t *api.Takeover) error {
	_, err := fmt.Fprintf(w, "process %d (%s) has taken over from %d (%s): nobody was answered for %s\nhanded over: %s, %s, %s\n",
		t.PID, t.Version, t.FromPID, t.FromVersion, pauseOf(t),
		some(t.Connections, "connection"), some(t.HeldKeys, "held key"), some(t.Waiters, "waiter"))
	if err == nil && t.Closed > 0 {
		_, err = fmt.Fprintf(w, "closed: %s by TLS\n", some(t.Closed, "connection"))
	}
	return err
}

// pauseOf returns how long nobody was answered, in whole milliseconds and not less than it was.
func pauseOf(t *api.Takeover) string { return span(math.Ceil(t.PauseSeconds*1000) / 1000) }

// latestTakeover shows a takeover in one line.
func latestTakeover(t *api.Takeover) string {
	parts := []string{
		fmt.Sprintf("from process %d (%s) at %s", t.FromPID, t.FromVersion, api.Instant(t.At)),
		"nobody was answered for " + pauseOf(t),
	}
	if t.Count > 1 {
		parts = append(parts, some(t.Count, "takeover")+" in all")
	}
	return strings.Join(parts, ", ")
}
