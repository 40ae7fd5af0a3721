package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"dreadlock/proto"
)

// With several servers to choose from, the client asks all of them at once who they are, and goes to the first of its order that
// answers. New connections go there as well, until one fails: then all are asked again. So a server that is away, or that does
// not answer, costs no more than a moment, and two lock tables are noticed before a lock is told. All are asked again after a
// while, since one that was away may have come back with a table of its own.

const (
	// surveyPeriod is how long the answers of a survey count.
	surveyPeriod = time.Minute
	// patience is how long a survey waits for the others when one server has answered, unless half of Options.DialTimeout is less. It
	// is also the time that the server of the latest survey has before the others are asked.
	patience = time.Second
)

// errSilent is why a server is not used that is there and does not answer.
var errSilent = errors.New("no answer to the name of the connection")

// Server returns the address of the server that new connections go to: its own, if the client was given one; of several, empty
// before the first connection.
func (c *Client) Server() string {
	c.tables.mu.Lock()
	defer c.tables.mu.Unlock()
	label := c.tables.current.label
	if label == "" && len(c.servers) == 1 {
		return c.servers[0].text
	}
	return label
}

// choose makes a connection to one of several servers, which has been told its name, unless all of them are too old for that. The
// error is a *ServersError, a *TablesError, ErrUnreachable, ErrConnectionLost or that of the context.
func (c *Client) choose(ctx context.Context, all []endpoint) (*conn, error) {
	if cn := c.again(ctx, all); cn != nil {
		return cn, nil
	}
	if err := c.tables.enter(ctx); err != nil {
		return nil, err
	}
	defer c.tables.leave()
	if cn := c.again(ctx, all); cn != nil { // others have been asked meanwhile
		return cn, nil
	}
	return c.survey(ctx, all)
}

// again makes a connection to the server of the latest survey. It returns nil if the servers are to be asked once more.
func (c *Client) again(ctx context.Context, all []endpoint) *conn {
	t := &c.tables
	t.mu.Lock()
	i := slices.IndexFunc(all, func(e endpoint) bool { return e.where == t.current.where })
	surveyed := t.surveyed
	t.mu.Unlock()
	if i < 0 || time.Since(surveyed) > surveyPeriod {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, c.patience())
	defer cancel()
	if c.knowsOlder() {
		if cn, err := c.dial(limited, all[i]); err == nil {
			return cn
		}
	} else if cn, err := c.meet(limited, all[i]); err == nil {
		if t.join(cn) {
			return cn
		}
		cn.close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.surveyed.Equal(surveyed) {
		t.surveyed = time.Time{}
	}
	return nil
}

// patience is the constant, or what Options.DialTimeout leaves of it.
func (c *Client) patience() time.Duration { return min(patience, c.options.DialTimeout/2) }

// meet makes a connection and tells the server its name. The error is ErrUnreachable, ErrHandshake, one of conn.named, or
// errTooOld.
func (c *Client) meet(ctx context.Context, to endpoint) (*conn, error) {
	cn, err := c.greet(ctx, to)
	if errors.Is(err, errNameless) {
		cn, err = c.explore(ctx, to, anyKey)
	}
	switch {
	case err == nil && cn.server.space == 0:
		cn.close()
		return nil, fmt.Errorf("%w: it has not reached the store of its fleet yet", ErrUnreachable)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, errSilent)
	}
	return cn, err
}

// anyKey is unlocked where only the answer counts.
const anyKey = "x"

// greet is meet for a server that is taken to know names.
func (c *Client) greet(ctx context.Context, to endpoint) (*conn, error) {
	cn, err := c.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	cn.out = proto.AppendName(cn.out[:0], c.options.Name)
	if err := cn.send(ctx, 1); err != nil {
		return nil, err
	}
	if err := cn.named(ctx); err != nil {
		return nil, err
	}
	return cn, nil
}

// meeting is the outcome of meet.
type meeting struct {
	conn *conn
	err  error
}

// meetAll makes a connection to each server, in their order. One that answers much later than another one counts as silent.
func (c *Client) meetAll(ctx context.Context, all []endpoint) []meeting {
	limited, cancel := context.WithTimeout(ctx, c.options.DialTimeout)
	defer cancel()
	type outcome struct {
		i int
		meeting
	}
	outcomes := make(chan outcome, len(all))
	for i, to := range all {
		go func() {
			cn, err := c.meet(limited, to)
			outcomes <- outcome{i, meeting{cn, err}}
		}()
	}
	met := make([]meeting, len(all))
	var late *time.Timer
	for range all {
		o := <-outcomes
		if met[o.i] = o.meeting; o.err == nil && late == nil {
			late = time.AfterFunc(c.patience(), cancel)
			defer late.Stop()
		}
	}
	return met
}

// survey asks all servers, and makes the first one that answers the current one. Between enter and leave; the errors are those of
// choose.
func (c *Client) survey(ctx context.Context, all []endpoint) (*conn, error) {
	met := c.meetAll(ctx, all)
	chosen := slices.IndexFunc(met, func(m meeting) bool { return m.err == nil })
	for i, m := range met {
		if m.err == nil && i != chosen {
			m.conn.close()
		}
	}
	if chosen < 0 {
		if err := endOf(ctx); err != nil {
			return nil, err
		}
		return c.none(ctx, all, met)
	}
	cn := met[chosen].conn
	err := agreement(all, met)
	if err == nil {
		c.tables.note(all, met)
		err = c.tables.use(ctx, cn)
	}
	if err != nil {
		cn.close()
		return nil, err
	}
	c.tables.settle(cn.to, time.Now())
	return cn, nil
}

// agreement returns a *TablesError unless all servers that answer have the same lock table.
func agreement(all []endpoint, met []meeting) error {
	var first *conn
	for i, m := range met {
		switch {
		case errors.Is(m.err, errTooOld):
			return &TablesError{One: all[i].label}
		case m.err != nil:
		case first == nil:
			first = m.conn
		case m.conn.server.space != first.server.space:
			return &TablesError{first.to.label, m.conn.to.label}
		}
	}
	return nil
}

// none returns why no server can be used. Those of one name may be one server that is too old to have names: then it is used.
func (c *Client) none(ctx context.Context, all []endpoint, met []meeting) (*conn, error) {
	if i := slices.IndexFunc(met, func(m meeting) bool { return errors.Is(m.err, errTooOld) }); i >= 0 {
		if len(c.servers) > 1 {
			return nil, &TablesError{One: all[i].label}
		}
		c.tables.settle(all[i], time.Now())
		return c.withoutName(ctx, all[i])
	}
	err := &ServersError{}
	for i, m := range met {
		err.Failures = append(err.Failures, Failure{all[i].label, m.err})
	}
	return nil, err
}

// note takes down which table each server has. Those that are not there any more are forgotten, and so is an address that refuses
// connections if its host has answered on another one, of the other IP family.
func (t *tables) note(all []endpoint, met []meeting) {
	t.mu.Lock()
	defer t.mu.Unlock()
	former := t.seen
	t.seen = make(map[string]sighting, len(all))
	for i, e := range all {
		if cn := met[i].conn; cn != nil {
			t.seen[e.where] = sighting{e.label, cn.server.space}
		} else if s, known := former[e.where]; known && !movedAway(all, met, i) {
			t.seen[e.where] = s
		}
	}
}

// movedAway reports whether a server that does not answer is known not to be at that address any more.
func movedAway(all []endpoint, met []meeting, i int) bool {
	if !errors.Is(met[i].err, syscall.ECONNREFUSED) {
		return false
	}
	for j, other := range all {
		if met[j].err == nil && other.text == all[i].text && isIPv6(other.where) != isIPv6(all[i].where) {
			return true
		}
	}
	return false
}

// isIPv6 reports whether host:port is of that family.
func isIPv6(where string) bool { return strings.HasPrefix(where, "[") }

// settle makes an endpoint the one that new connections go to, and says when all were asked.
func (t *tables) settle(on endpoint, surveyed time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current, t.surveyed = on, surveyed
}

// only says that there is one endpoint at the moment.
func (t *tables) only(to endpoint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current, t.surveyed = to, time.Time{}
	clear(t.seen)
}
