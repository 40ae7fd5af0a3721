package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dreadlock/server/api"
)

// eventOptions say which events are wanted.
type eventOptions struct {
	Key        string           `arg:"" optional:"" help:"Only events of this key."`
	Connection api.ConnectionID `placeholder:"CONN" help:"Only events of this connection, as dreadlockctl connections lists it."`
	jsonOption
}

// query returns the parameters of the admin interface.
func (o *eventOptions) query() (url.Values, error) {
	query := url.Values{}
	if o.Key != "" {
		if err := checkKey(o.Key); err != nil {
			return nil, err
		}
		query.Set("key", o.Key)
	}
	if o.Connection > 0 {
		query.Set("connection", number(o.Connection))
	}
	return query, nil
}

// subject says in a sentence what the events are about.
func (o *eventOptions) subject() string {
	var text string
	if o.Key != "" {
		text += " of key " + cell(o.Key, maxCell)
	}
	if o.Connection > 0 {
		text += " of connection " + number(o.Connection)
	}
	return text
}

// historyCommand lists what has happened.
type historyCommand struct {
	eventOptions
	listOptions
}

// Help has examples.
func (*historyCommand) Help() string {
	return `Examples:

  dreadlockctl history nightly            who had the key, how long, and how that ended
  dreadlockctl history --connection 17    what a client did
  dreadlockctl history --all --json | jq -r '.events[] | select(.kind == "lost") | .key'

The daemon keeps its latest events in memory, and the last line says how far back they go: the more happens, the less far. The
latest event comes last. What may happen: granted, released, lost (the connection ended), timeout (waited in vain), kicked,
deadlock, deadlock over, refused (a client was kept out).`
}

// Run lists events.
func (c *historyCommand) Run(ctx context.Context, s *streams, g *globals) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	query, err := c.query()
	if err != nil {
		return err
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	page, err := a.history(ctx, query, limit)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.stdout, page)
	}
	if len(page.Events) > 0 {
		if err := writeEvents(s.stdout, page.Events, c.Key == ""); err != nil {
			return err
		}
	}
	return c.writeReach(s.stdout, page, limit)
}

// writeReach says how far back the history goes, and whether there is more of it.
func (c *historyCommand) writeReach(w io.Writer, page *api.EventPage, limit int) error {
	since := moment(page.Oldest)
	text := "all events" + c.subject() + " since " + since
	switch n := len(page.Events); n {
	case 0:
		text = "no events" + c.subject() + " since " + since
	case limit:
		text = fmt.Sprintf("the latest %s; --all shows all since %s", some(n, "event"), since)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// history requests the latest events, all that are kept if limit is 0. The oldest comes first.
func (a *admin) history(ctx context.Context, query url.Values, limit int) (*api.EventPage, error) {
	query.Set("limit", strconv.Itoa(api.MaxLimit))
	if limit > 0 && limit <= api.MaxLimit {
		query.Set("limit", strconv.Itoa(limit))
		return a.events(ctx, query)
	}
	all := &api.EventPage{Events: []api.Event{}}
	for {
		query.Set("since", strconv.FormatUint(all.Next, 10))
		p, err := a.events(ctx, query)
		if err != nil {
			return nil, err
		}
		all.Events = append(all.Events, p.Events...)
		all.Next, all.Lost, all.Oldest = p.Next, all.Lost+p.Lost, p.Oldest
		if len(p.Events) < api.MaxLimit {
			break
		}
	}
	if limit > 0 && len(all.Events) > limit {
		all.Events = all.Events[len(all.Events)-limit:]
	}
	return all, nil
}

// events requests a page of events.
func (a *admin) events(ctx context.Context, query url.Values) (*api.EventPage, error) {
	var p api.EventPage
	if err := a.get(ctx, &p, query, "events"); err != nil {
		return nil, a.withoutEvents(err)
	}
	return &p, nil
}

// withoutEvents explains the error of a daemon that keeps no events.
func (a *admin) withoutEvents(err error) error {
	if errors.Is(err, errNotFound) {
		return failed(exitFailed, "the daemon at %s keeps no events: it is too old, or was started with --events 0", a.where)
	}
	return err
}

// moment is a point in time: RFC 3339 with the zone, to the millisecond.
func moment(t time.Time) string { return t.Local().Format("2006-01-02T15:04:05.000Z07:00") }

// writeEvents writes a table of events, with a column for the keys if there may be several.
func writeEvents(w io.Writer, events []api.Event, keys bool) error {
	columns := func(key string, others ...string) []string {
		if keys {
			return append([]string{others[0], others[1], key}, others[2:]...)
		}
		return others
	}
	t := newTable(w, columns("KEY", "TIME", "WHAT", "CONN", "WHO", "WAITED", "HELD", "TOKEN", "REASON")...)
	for i := range events {
		e := &events[i]
		t.row(columns(orDash(cell(e.Key, maxCell)), moment(e.Time), words(e.Kind), connectionCell(e.Connection), whoseEvent(e),
			secondsCell(e.WaitedSeconds, e.Kind == api.EventTimeout),
			secondsCell(e.HeldSeconds, e.Kind == api.EventReleased || e.Kind == api.EventLost), tokenCell(e), orDash(reasonOf(e)))...)
	}
	return t.Flush()
}

// orDash stands for an empty cell.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// secondsCell is a duration in a column: a dash where there is none.
func secondsCell(seconds float64, always bool) string {
	if seconds == 0 && !always {
		return "-"
	}
	return span(seconds)
}

func tokenCell(e *api.Event) string {
	if e.Token == 0 {
		return "-"
	}
	return strconv.FormatUint(e.Token, 10)
}

// whoseEvent is the client of an event: its name and its identity, where it has them, and its address.
func whoseEvent(e *api.Event) string {
	return nameAndAddress(&api.Peer{Address: e.Address, Identity: e.Identity, Name: e.Name})
}

// reasonOf says what else is known about an event.
func reasonOf(e *api.Event) string {
	var parts []string
	if e.Deadlock > 0 {
		parts = append(parts, fmt.Sprintf("deadlock %d, held by %d", e.Deadlock, e.HeldBy))
	}
	if e.Reason != "" {
		parts = append(parts, words(e.Reason))
	}
	if e.By != "" {
		parts = append(parts, "by "+e.By)
	}
	if e.Kind == api.EventKicked {
		parts = append(parts, freed(e))
	}
	return strings.Join(parts, ", ")
}

// freed says which keys a kick has freed.
func freed(e *api.Event) string {
	if e.Held == 0 {
		return "it held nothing"
	}
	names := strings.Join(e.Keys, ",")
	if more := e.Held - len(e.Keys); more > 0 {
		names += fmt.Sprintf(" and %s more", count(more))
	}
	return fmt.Sprintf("freed %s: %s", some(e.Held, "key"), names)
}
