package admin

import (
	"context"
	"net/http"
	"time"

	"dreadlock/server/api"
)

// takeoverTime is the time that a takeover may take: the start of another process, and all tries.
const takeoverTime = time.Minute

// takeOver has another process take over, and answers when it has. The process that answers ends then. A takeover goes on if
// nobody waits for the answer any more.
func (a *endpoints) takeOver(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(takeoverTime + writeTime)) // otherwise that of other answers holds
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), takeoverTime)
	defer cancel()
	answerWithin(ctx, a, w, r, nil, func(ctx context.Context, _ *query) (*api.Takeover, error) {
		return a.source.TakeOver(ctx, callerOf(r))
	})
}
