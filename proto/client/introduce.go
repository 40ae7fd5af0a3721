package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"dreadlock/proto"
)

// The first write on a connection says its name, and its owner if it has one, before it asks for the key. A server that does
// not know these words ends the connection there: it has not seen the rest of the write. But so does a server that happens to
// end right then, or a proxy before it. So the client asks once more, after a command that every server answers: if the
// connection ends between that answer and the one to the name, the name was the reason.

// errNameless: the connection has ended, and the name was not answered. The server may be one that does not know names.
var errNameless = errors.New("client: the connection ended at its name")

// errTooOld: the server does not know names.
var errTooOld = errors.New("client: the server is too old to have names")

// olderTime is how long a client believes that its server has no names. After that it tries them again, which costs an older
// server two connections.
const olderTime = time.Minute

// introduction is what the server has said about itself when it was told the name of a connection.
type introduction struct {
	silence time.Duration // after which it takes a client for dead whose host does not answer; 0 if it does not look
	space   uint64        // its lock table
}

// named takes the answer to the name. The error is errNameless, or one of lock; after it the connection is closed.
func (c *conn) named(ctx context.Context) error {
	answer, err := c.next(ctx)
	switch {
	case errors.Is(err, ErrConnectionLost):
		return fmt.Errorf("%w: %w", errNameless, err)
	case err != nil:
		return err
	case answer.Reply != proto.Named:
		return c.reject(answer)
	}
	c.server = &introduction{silence: answer.Silence, space: answer.Space}
	c.silence = agree(c.isRemote(), c.keepAlive, c.heartbeat, c.server)
	if shorter(c.keepAlive, answer.Silence) != c.keepAlive {
		c.watchHost()
	}
	return nil
}

// owned takes the answer to the owner. After an error, one of those of lock, the connection is closed.
func (c *conn) owned(ctx context.Context) error {
	answer, err := c.next(ctx)
	if err == nil && answer.Reply != proto.Owned {
		return c.reject(answer)
	}
	return err
}

// probe introduces the connection after an unlock of the key, which is refused, since the connection holds nothing. If the
// server answers that and ends the connection at the name, it does not know names, and the error is errNameless. The other
// errors are those of lock, and after each the connection is closed.
func (c *conn) probe(ctx context.Context, key, name string) error {
	c.out = proto.AppendName(proto.AppendUnlock(c.out[:0], key), name)
	answer, err := c.ask(ctx, 2)
	if err != nil {
		return err
	}
	if answer.Reply != proto.NotLocked && answer.Reply != proto.NotOwner {
		return c.reject(answer)
	}
	return c.named(ctx)
}

// explore makes a connection to a server after one that has ended at its name. It has been introduced; the error is errTooOld if the
// server turns out to be an older one. The other errors are those of dial and of conn.probe.
func (c *Client) explore(ctx context.Context, to endpoint, key string) (*conn, error) {
	cn, err := c.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	switch err = cn.probe(ctx, key, c.options.Name); {
	case err == nil:
		return cn, nil
	case errors.Is(err, errNameless):
		return nil, fmt.Errorf("%w: %w", errTooOld, err)
	}
	return nil, err
}

// withoutName makes a connection to a server that is known to be an older one. The errors are those of dial.
func (c *Client) withoutName(ctx context.Context, to endpoint) (*conn, error) {
	cn, err := c.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	cn.older = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plain, c.olderAt = cn, time.Now()
	return cn, nil
}

// connectKnown makes a connection, and marks it if the server is known to be an older one. The client believes that for
// olderTime, but no longer than until the server ends a connection: a newer one may come after that.
func (c *Client) connectKnown(ctx context.Context) (*conn, error) {
	cn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	older := c.knowsOlder()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case cn.server != nil:
		c.plain = nil
	case older:
		cn.older, c.plain = true, cn
	}
	return cn, nil
}

// knowsOlder reports whether the server is known to be an older one.
func (c *Client) knowsOlder() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plain != nil && (time.Since(c.olderAt) > olderTime || c.plain.wasLost()) {
		c.plain = nil
	}
	return c.plain != nil
}

// wasLost reports whether the connection has ended, and this side did not close it.
func (c *conn) wasLost() bool { return !c.alive() && !errors.Is(c.err, net.ErrClosed) }
