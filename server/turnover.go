package server

import (
	"context"
	"errors"
	"sync"
)

// turnover keeps takeovers apart from each other and from what ends the server. All methods are safe from any goroutine.
type turnover struct {
	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the takeover that is under way, nil without one
	over   chan struct{}           // closed when that is over
	barred error                   // why there can be none any more, nil as long as there can
	handed chan struct{}           // closed when a successor serves
}

func newTurnover() *turnover { return &turnover{handed: make(chan struct{})} }

// begin begins a takeover, whose context is done if it must not happen any more. It is over when end is called.
func (t *turnover) begin() (ctx context.Context, end func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.barred != nil:
		return nil, nil, t.barred
	case t.cancel != nil:
		return nil, nil, errUnderWay
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	t.cancel, t.over = cancel, over
	return ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		cancel(nil)
		t.cancel = nil
		close(over)
	}, nil
}

// bar lets no takeover happen any more, for the reason that is given, and waits for the one that is under way. It reports false if
// a successor serves: then this process is about to end, and must not do anything else.
func (t *turnover) bar(why error) bool {
	t.mu.Lock()
	if t.barred == nil {
		t.barred = why
	}
	var over chan struct{}
	if t.cancel != nil {
		t.cancel(why)
		over = t.over
	}
	t.mu.Unlock()
	if over != nil {
		<-over
	}
	return !isClosed(t.handed)
}

var (
	errUnderWay = errors.New("another takeover is under way")
	errDrains   = errors.New("the daemon drains")
	errStops    = errors.New("the daemon stops")
	errHanded   = errors.New("another process has taken over")
)

// handOver says that a successor serves.
func (t *turnover) handOver() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.barred = errHanded
	close(t.handed)
}
