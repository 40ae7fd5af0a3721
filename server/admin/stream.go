package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"dreadlock/server/api"
)

const (
	// maxStreams is the number of streams at a time. Each holds the place of its connection and counts as a request, so the
	// rest of maxRequests is for others.
	maxStreams = 6
	// heartbeatTime is the time after which a stream says that it is alive.
	heartbeatTime = 15 * time.Second
	// streamPage is the number of events that are fetched at a time.
	streamPage = api.MaxLimit
)

// streams are the streams of events that are open.
type streams struct {
	places chan struct{} // has a token for each
	ended  chan struct{} // closed when the interface stops
	beat   time.Duration // heartbeatTime
}

func newStreams() *streams {
	return &streams{places: make(chan struct{}, maxStreams), ended: make(chan struct{}), beat: heartbeatTime}
}

// wantsStream reports whether a request is for Server-Sent Events.
func wantsStream(r *http.Request) bool {
	return r.Method == http.MethodGet && slices.ContainsFunc(r.Header.Values("Accept"), func(accepted string) bool {
		return strings.Contains(accepted, "text/event-stream")
	})
}

// stream is one answer that goes on.
type stream struct {
	endpoints *endpoints
	writer    http.ResponseWriter
	control   *http.ResponseController
	buf       bytes.Buffer
	sentAt    time.Time
}

// stream sends events as they happen, until the client goes, the server stops or the interface does. It keeps none for a slow
// client: one that comes back to them too late is told how many it has missed.
func (a *endpoints) stream(w http.ResponseWriter, r *http.Request) {
	events, latest, err := streamQuery(r)
	if err != nil {
		a.failed(w, r, err)
		return
	}
	select {
	case a.streams.places <- struct{}{}:
		defer func() { <-a.streams.places }()
	default:
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("too many streams at a time: there are %d already", maxStreams))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // until the request ends
		select {
		case <-a.streams.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	page, err := a.page(ctx, events)
	if err != nil {
		a.failed(w, r, err)
		return
	}
	if latest == 0 && events.Since == nil {
		page.Events = nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	s := &stream{endpoints: a, writer: w, control: http.NewResponseController(w)}
	s.buf.WriteString("retry: 1000\n\n") // milliseconds, after which a client whose connection has broken tries again
	s.run(ctx, events, page)
}

// streamQuery returns what a stream is to begin with: latest is the number of events before it, where no since says that.
func streamQuery(r *http.Request) (events *api.EventQuery, latest int, err error) {
	q, err := parseQuery(r, []string{"key", "connection", "since", "limit"})
	if err != nil {
		return nil, 0, err
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" { // of a client that comes back; its URL still says how it began
		q.values.Set("since", id)
	}
	latest = q.number("limit", 0, 1)
	events = q.events()
	if events.Limit = streamPage; events.Since == nil {
		events.Limit = max(latest, 1)
	}
	return events, latest, q.err
}

// page fetches a page of events.
func (a *endpoints) page(ctx context.Context, q *api.EventQuery) (*api.EventPage, error) {
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	return a.source.Events(ctx, q)
}

// run sends a page, and then those that follow.
func (s *stream) run(ctx context.Context, q *api.EventQuery, page *api.EventPage) {
	for {
		full := len(page.Events) == q.Limit
		s.add(page)
		if s.send() != nil {
			return
		}
		q.Since, q.Limit = new(page.Next), streamPage
		err := ctx.Err()
		if err == nil && !full {
			err = s.await(ctx, page.Next)
		}
		if err == nil {
			page, err = s.endpoints.page(ctx, q)
		}
		if err != nil {
			s.message("end", failure{err.Error()})
			_ = s.send() // nobody may be there any more
			return
		}
	}
}

// await waits for the next event, or until it is time to say that the stream is alive.
func (s *stream) await(ctx context.Context, since uint64) error {
	ctx, cancel := context.WithDeadline(ctx, s.sentAt.Add(s.endpoints.streams.beat))
	defer cancel()
	return s.endpoints.source.AwaitEvents(ctx, since)
}

// add adds the events of a page. If there is nothing else to send, and that for long, it adds a sign of life, with which the
// client learns how far the events have been looked at.
func (s *stream) add(page *api.EventPage) {
	if page.Restarted {
		s.message("restarted", struct{}{})
	}
	if page.Lost > 0 {
		s.message("lost", lostEvents{page.Lost})
	}
	for i := range page.Events {
		fmt.Fprintf(&s.buf, "id: %d\n", page.Events[i].Seq)
		s.message("", &page.Events[i])
	}
	if s.buf.Len() > 0 || time.Since(s.sentAt) >= s.endpoints.streams.beat {
		fmt.Fprintf(&s.buf, ": alive\nid: %d\n\n", page.Next)
	}
}

// lostEvents is the message about events that were not kept.
type lostEvents struct {
	Lost uint64 `json:"lost"`
}

// message adds a message of a kind; events themselves have none.
func (s *stream) message(kind string, data any) {
	if kind != "" {
		s.buf.WriteString("event: " + kind + "\n")
	}
	s.buf.WriteString("data: ")
	_ = json.NewEncoder(&s.buf).Encode(data) // ends the line; what is sent can be encoded
	s.buf.WriteString("\n")
}

// send sends what was added.
func (s *stream) send() error {
	if s.buf.Len() == 0 {
		return nil
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) // otherwise that of the whole answer holds
	_, err := s.buf.WriteTo(s.writer)
	s.sentAt = time.Now()
	return errors.Join(err, s.control.Flush())
}
