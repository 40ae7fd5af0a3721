package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"dreadlock/server/api"
)

// drainTick is the time between two lines about a drain.
const drainTick = time.Second

// drain begins a drain, or joins one that is under way. With wait=true the answer goes on until the drain is over: a line of
// JSON every second, and one at the end, which says what is lost.
func (a *endpoints) drain(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r, []string{"timeout", "wait"})
	if err != nil {
		a.failed(w, r, err)
		return
	}
	timeout, wait := q.seconds("timeout"), q.flag("wait")
	if q.err != nil {
		a.failed(w, r, q.err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), sourceTime)
	defer cancel()
	state, err := a.source.Drain(ctx, timeout)
	switch {
	case err != nil:
		a.failed(w, r, err)
	case wait:
		a.followDrain(w, r, state)
	default:
		write(w, http.StatusOK, state)
	}
}

// followDrain writes the states of a drain, as lines, until it is over or nobody reads them.
func (a *endpoints) followDrain(w http.ResponseWriter, r *http.Request, state *api.Drain) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	for {
		_ = control.SetWriteDeadline(time.Now().Add(writeTime)) // otherwise that of the whole answer holds
		if lines.Encode(state) != nil || control.Flush() != nil || state.Over {
			return
		}
		tick, cancel := context.WithTimeout(r.Context(), drainTick)
		state = a.source.AwaitDrain(tick)
		cancel()
		if r.Context().Err() != nil {
			return
		}
	}
}
