package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dreadlock/server/api"
)

// watchCommand shows events as they happen.
type watchCommand struct {
	eventOptions
	Limit int `placeholder:"N" help:"Begin with the latest N events (${default})." default:"0"`
}

// Help has examples.
func (*watchCommand) Help() string {
	return `Examples:

  dreadlockctl watch                         all that happens, until Ctrl-C
  dreadlockctl watch nightly --limit 10      the last ten events of a key, and what follows
  dreadlockctl watch --json | jq -r 'select(.kind == "timeout") | .key'

With --json each event is a line. If the daemon goes away it is waited for, and what was missed meanwhile is shown then, or
counted if the daemon does not have it any more: on stderr.`
}

const (
	// streamSilence is how long a stream may say nothing: some of the daemon's signs of life.
	streamSilence = 45 * time.Second
	// The pauses before a stream is asked for again.
	minWatchPause, maxWatchPause = 250 * time.Millisecond, 5 * time.Second
)

// Run follows the events until the process is ended.
func (c *watchCommand) Run(ctx context.Context, s *streams, g *globals) error {
	if c.Limit < 0 || c.Limit > api.MaxLimit {
		return badOption("--limit %d: want 0 to %d", c.Limit, api.MaxLimit)
	}
	query, err := c.query()
	if err != nil {
		return err
	}
	if c.Limit > 0 {
		query.Set("limit", strconv.Itoa(c.Limit))
	}
	a, err := newAdmin(ctx, g)
	if err != nil {
		return err
	}
	w := &watch{admin: a, streams: s, options: c}
	pause := minWatchPause
	for {
		err := w.follow(ctx, query)
		var output *outputError
		switch failure := (*exit)(nil); {
		case errors.As(err, &output):
			return output.error
		case !w.begun, errors.As(err, &failure) && failure.status != exitUnreachable:
			return err // it would be the same again
		}
		if !w.away {
			w.away = true
			s.warn("%v: trying again", err)
			pause = minWatchPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, maxWatchPause)
	}
}

// watch is what is known about a stream, over all its connections.
type watch struct {
	admin   *admin
	streams *streams
	options *watchCommand
	last    string // the id of the latest event
	begun   bool   // it has been there
	away    bool   // and is not
}

// outputError says that there is nobody to show anything to.
type outputError struct{ error }

// follow asks for the stream and shows it, until it ends.
func (w *watch) follow(ctx context.Context, query url.Values) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := time.AfterFunc(adminTimeout, func() { cancel(errSilent) })
	defer alarm.Stop()
	response, err := w.admin.stream(ctx, query, w.last)
	if err != nil {
		return w.admin.silent(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		return w.admin.strange(errors.New("it sends no events"))
	}
	lines := bufio.NewReader(response.Body)
	for kind := ""; ; {
		alarm.Reset(streamSilence)
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the daemon has closed the connection")
			}
			return w.admin.silent(ctx, failed(exitUnreachable, "%s: %w", w.admin.where, err))
		}
		if w.away {
			w.away = false
			w.streams.warn("watches again")
		}
		w.begun = true
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			kind = value
		case "id":
			w.last = value
		case "data":
			if err := w.message(kind, value); err != nil {
				return err
			}
			kind = ""
		}
	}
}

// stream asks for the events after the one with that id; without one, for those that happen from now on.
func (a *admin) stream(ctx context.Context, query url.Values, last string) (*http.Response, error) {
	unlimited := *a.client
	unlimited.Timeout = 0
	header := http.Header{"Accept": {"text/event-stream"}}
	if last != "" {
		header.Set("Last-Event-ID", last)
	}
	response, err := a.sendWith(ctx, &unlimited, header, http.MethodGet, query, []string{"events"})
	return response, a.withoutEvents(err)
}

// silent explains why a stream has ended: err, unless the daemon has been silent for too long.
func (a *admin) silent(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return failed(exitUnreachable, "the daemon at %s does not answer", a.where)
	}
	return err
}

// message shows a message of the stream.
func (w *watch) message(kind, data string) error {
	switch kind {
	case "":
		return w.event(data)
	case "lost":
		var lost struct {
			Lost uint64 `json:"lost"`
		}
		if err := json.Unmarshal([]byte(data), &lost); err != nil {
			return w.admin.strange(err)
		}
		w.streams.warn("%s missed: the daemon did not keep them for so long (--events)", some(lost.Lost, "event"))
	case "restarted":
		w.streams.warn("the daemon was started again, or another process has taken over: nobody knows what happened before")
	case "end":
		var end struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal([]byte(data), &end) // then it does not say why
		return failed(exitUnreachable, "%s has ended the stream: %s", w.admin.where, end.Error)
	}
	return nil
}

// event shows an event.
func (w *watch) event(data string) error {
	if w.options.JSON {
		return w.print(data)
	}
	var e api.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return w.admin.strange(err)
	}
	return w.print(moment(e.Time) + "  " + sentence(&e))
}

func (w *watch) print(line string) error {
	if _, err := fmt.Fprintln(w.streams.stdout, line); err != nil {
		return &outputError{err}
	}
	return nil
}

// sentence says what has happened.
func sentence(e *api.Event) string {
	key, who := cell(e.Key, maxCell), fmt.Sprintf("%d (%s)", e.Connection, whoseEvent(e))
	switch e.Kind {
	case api.EventGranted:
		text := key + " granted to " + who
		if e.WaitedSeconds > 0 {
			text += " after " + span(e.WaitedSeconds)
		}
		return fmt.Sprintf("%s, token %d", text, e.Token)
	case api.EventReleased:
		return fmt.Sprintf("%s released by %s after %s", key, who, span(e.HeldSeconds))
	case api.EventLost:
		return fmt.Sprintf("%s lost by %s after %s: %s", key, who, span(e.HeldSeconds), reasonOf(e))
	case api.EventTimeout:
		return fmt.Sprintf("%s not granted to %s: timeout after %s", key, who, span(e.WaitedSeconds))
	case api.EventKicked:
		return fmt.Sprintf("connection %s kicked %s", who, reasonOf(e))
	case api.EventDeadlock:
		return fmt.Sprintf("deadlock %d: %s waits for %s, held by %d", e.Deadlock, who, key, e.HeldBy)
	case api.EventDeadlockOver:
		return fmt.Sprintf("deadlock %d is over, %s: %s had waited for %s", e.Deadlock, words(e.Reason), who, key)
	case api.EventRefused:
		return fmt.Sprintf("client %s refused: %s", whoseEvent(e), words(e.Reason))
	case api.EventElsewhere:
		return key + " goes on to " + api.Peer{Daemon: e.Daemon, Address: e.Address}.Where() + " of the fleet"
	}
	return fmt.Sprintf("%s: connection %s, key %s", words(e.Kind), who, key) // of a newer daemon
}
