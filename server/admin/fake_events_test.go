package admin

import (
	"context"

	"dreadlock/server/api"
)

// Events knows events 3 and later.
func (f *fake) Events(_ context.Context, q *api.EventQuery) (*api.EventPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	p := &api.EventPage{Events: []api.Event{}, Next: uint64(len(f.events))}
	since := uint64(0)
	if q.Since != nil {
		since = *q.Since
		p.Lost = 2 - min(since, 2)
	}
	for _, e := range f.events {
		if e.Seq > max(since, 2) && (q.Key == "" || e.Key == q.Key) && (q.Connection == 0 || e.Connection == q.Connection) {
			if len(p.Events) == q.Limit && q.Since != nil {
				p.Next = e.Seq - 1
				break
			}
			p.Events = append(p.Events, e)
		}
	}
	if q.Since == nil {
		p.Events = p.Events[max(len(p.Events)-q.Limit, 0):]
	}
	return p, nil
}

func (f *fake) AwaitEvents(ctx context.Context, since uint64) error {
	f.mu.Lock()
	more, err := f.more, f.err
	if uint64(len(f.events)) > since || err != nil {
		more = closedChannel
	}
	f.mu.Unlock()
	select {
	case <-more:
	case <-ctx.Done():
	}
	return err
}

// closedChannel is for who need not wait.
var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// happen adds events.
func (f *fake) happen(events ...api.Event) {
	f.change(func(f *fake) {
		close(f.more)
		f.more = make(chan struct{})
		for _, e := range events {
			e.Seq = uint64(len(f.events) + 1)
			f.events = append(f.events, e)
		}
	})
}
