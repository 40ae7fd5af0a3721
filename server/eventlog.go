package server

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

const (
	// maxEventLines is the number of events that are logged in a second; the log says how many more there were. A busy server
	// has a hundred thousand a second.
	maxEventLines = 500
	// eventLogPause is the time between two looks for events, if there are any. It gathers them.
	eventLogPause = 100 * time.Millisecond
)

// eventLog writes events to the log, on a goroutine of its own: see [Config.LogEvents].
type eventLog struct {
	server *Server

	mu     sync.Mutex // held while it writes
	since  uint64     // the last event that it has seen; 0 at the beginning
	second time.Time  // the bound is for the second that begins there
	lines  int        // that were written in it
	left   int        // that were not
}

func newEventLog(srv *Server) *eventLog { return &eventLog{server: srv} }

// run writes events until ctx is done.
func (l *eventLog) run(ctx context.Context) {
	for pause(ctx, eventLogPause) {
		if l.catchUp(ctx) != nil { // it serves nobody yet, or the loops are busy
			continue
		}
		l.mu.Lock()
		since := l.since
		l.mu.Unlock()
		wait, cancel := context.WithTimeout(ctx, l.patience())
		_ = l.server.AwaitEvents(wait, since) // if it fails, so does catchUp
		cancel()
	}
}

// patience is how long it may wait for the next event: no longer than what was left out may wait to be said.
func (l *eventLog) patience() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		return time.Second
	}
	return time.Hour
}

// catchUp writes what has happened.
func (l *eventLog) catchUp(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		page, err := l.server.Events(ctx, &api.EventQuery{Since: &l.since, Limit: api.MaxLimit})
		if err != nil {
			return err
		}
		l.renew()
		l.left += int(page.Lost)
		for i := range page.Events {
			if l.lines < maxEventLines {
				l.lines++
				l.write(&page.Events[i])
			} else {
				l.left++
			}
		}
		if l.since = page.Next; len(page.Events) < api.MaxLimit {
			return nil
		}
	}
}

// renew begins another second, if one is over, and says what was left out in it.
func (l *eventLog) renew() {
	if time.Since(l.second) < time.Second {
		return
	}
	if l.left > 0 {
		l.server.cfg.Log.Warn().Int("events", l.left).Msg("more events were left out of the log")
	}
	l.second, l.lines, l.left = time.Now(), 0, 0
}

// write writes a line about an event.
func (l *eventLog) write(e *api.Event) {
	line := l.server.cfg.Log.Info().Time("at", e.Time).Str("kind", e.Kind)
	for _, known := range []struct{ name, value string }{
		{"key", quoted(e.Key)}, {"client", e.Address}, {"identity", e.Identity}, {"name", e.Name}, {"owner", e.Owner},
		{"reason", e.Reason}, {"by", e.By},
	} {
		if known.value != "" {
			line = line.Str(known.name, known.value)
		}
	}
	for _, number := range []struct {
		name  string
		value uint64
	}{
		{"connection", uint64(e.Connection)}, {"token", e.Token}, {"deadlock", e.Deadlock}, {"held_by", uint64(e.HeldBy)},
	} {
		if number.value > 0 {
			line = line.Uint64(number.name, number.value)
		}
	}
	switch e.Kind {
	case api.EventGranted, api.EventTimeout, api.EventDeadlock:
		line = line.Str("waited", api.Age(e.WaitedSeconds))
	case api.EventReleased, api.EventLost:
		line = line.Str("held", api.Age(e.HeldSeconds))
	case api.EventKicked:
		line = line.Int("held_keys", e.Held).Strs("keys", e.Keys)
	}
	line.Msg("event")
}

// wantsEventLog reports whether events are to be logged, and anybody would see them.
func (c *Config) wantsEventLog() bool { return c.LogEvents && c.Log.GetLevel() <= zerolog.InfoLevel }
