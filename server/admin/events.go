package admin

import (
	"context"
	"net/http"

	"dreadlock/server/api"
)

// events answers with the events that have happened, or goes on with those that happen if the client wants a stream.
func (a *endpoints) events(w http.ResponseWriter, r *http.Request) {
	if wantsStream(r) {
		a.stream(w, r)
		return
	}
	answer(a, w, r, []string{"key", "connection", "since", "limit"}, func(ctx context.Context, q *query) (*api.EventPage, error) {
		events := q.events()
		if q.err != nil {
			return nil, q.err
		}
		return a.source.Events(ctx, events)
	})
}

// events returns what a request for events asks for.
func (q *query) events() *api.EventQuery {
	return &api.EventQuery{
		Key: q.text("key"), Connection: api.ConnectionID(q.identifier("connection")), Since: q.natural("since"),
		Limit: q.number("limit", api.DefaultLimit, 1),
	}
}
