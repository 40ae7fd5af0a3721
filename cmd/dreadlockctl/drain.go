package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"dreadlock/server/api"
)

// drainCommand ends the daemon.
type drainCommand struct {
	Timeout *time.Duration `placeholder:"DURATION" help:"Time for those who hold or wait for a key; by default the daemon's --drain, or 30s if it has none. It can shorten a drain that is under way, but not lengthen it."`
	Wait    bool           `help:"Show what is held until the daemon ends."`
	jsonOption
}

// Help has examples.
func (*drainCommand) Help() string {
	return `Examples:

  dreadlockctl drain                       begin, and return at once
  dreadlockctl drain --wait                show what is held, until the daemon ends
  dreadlockctl drain --timeout 5m --wait   give them five minutes
  dreadlockctl drain --timeout 0s          end a drain that takes too long

The daemon takes no new connections and closes those that neither hold nor wait for a key. It serves the others until nobody
holds a key, or until the time is up. Then it ends; what is held then is lost, and its log names it.

With --wait the exit status is 0 if no key was lost, 1 if any was, and 69 if the daemon has ended without saying so. With --json
there is a line for every second, and one for the end.`
}

// Run begins a drain.
func (c *drainCommand) Run(ctx context.Context, s *streams, g *globals) error {
	query := url.Values{}
	if c.Timeout != nil {
		if *c.Timeout < 0 {
			return badOption("--timeout %s: want at least 0s", *c.Timeout)
		}
		query.Set("timeout", strconv.FormatFloat(c.Timeout.Seconds(), 'f', -1, 64))
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	if c.Wait {
		return c.follow(ctx, s, a, query)
	}
	var state api.Drain
	if err := a.post(ctx, &state, query, "drain"); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, state)
	}
	return writeDrain(s.stdout, &state)
}

// quietTime is the time between two lines that say the same.
const quietTime = 5 * time.Second

// follow begins a drain and shows it until it is over.
func (c *drainCommand) follow(ctx context.Context, s *streams, a *admin, query url.Values) error {
	query.Set("wait", "true")
	var shown api.Drain
	var at time.Time
	out := json.NewEncoder(s.stdout)
	last, err := a.states(ctx, query, func(d *api.Drain) error {
		switch {
		case c.JSON:
			return out.Encode(d)
		case d.Over || d.HeldKeys == shown.HeldKeys && d.Waiters == shown.Waiters && time.Since(at) < quietTime:
			return nil
		}
		shown, at = *d, time.Now()
		return writeDrain(s.stdout, d)
	})
	switch {
	case err != nil:
		return err
	case last.HeldKeys > 0:
		return failed(exitFailed, "the daemon has ended, and %s lost: its log names %s", haveBeen(last.HeldKeys), itOrThem(last.HeldKeys))
	case c.JSON:
		return nil
	}
	_, err = fmt.Fprintln(s.stdout, "drained: the daemon has ended, and no key is lost")
	return err
}

func haveBeen(keys int) string {
	if keys == 1 {
		return "1 key is"
	}
	return count(keys) + " keys are"
}

func itOrThem(keys int) string {
	if keys == 1 {
		return "it"
	}
	return "them"
}

func writeDrain(w io.Writer, d *api.Drain) error {
	_, err := fmt.Fprintf(w, "draining: %s, %s, %s left\n", some(d.HeldKeys, "held key"), some(d.Waiters, "waiter"), span(d.SecondsLeft))
	return err
}

// errSilent is why a request is given up.
var errSilent = errors.New("it says nothing")

// states begins a drain and calls show for each of its states. It returns the last one, at which the drain is over.
func (a *admin) states(ctx context.Context, query url.Values, show func(*api.Drain) error) (*api.Drain, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(adminTimeout, func() { cancel(errSilent) }) // a state comes every second
	defer alarm.Stop()
	unlimited := *a.client
	unlimited.Timeout = 0
	response, err := a.send(ctx, &unlimited, http.MethodPost, query, []string{"drain"})
	if err != nil {
		return nil, a.lost(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := json.NewDecoder(response.Body)
	for {
		var d api.Drain
		if err := lines.Decode(&d); err != nil {
			if _, garbage := errors.AsType[*json.SyntaxError](err); garbage {
				return nil, a.strange(err)
			}
			return nil, a.lost(ctx, failed(exitUnreachable, "the daemon has ended without saying what is lost: its log does (%w)", err))
		}
		alarm.Reset(adminTimeout)
		if err := show(&d); err != nil || d.Over {
			return &d, err
		}
	}
}

// lost explains why no more states come: err, unless the daemon has been silent for too long.
func (a *admin) lost(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return failed(exitUnreachable, "the daemon at %s does not answer: it may drain all the same; dreadlockctl status --admin %s shows that",
			a.where, a.where)
	}
	return err
}
