package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto"
)

// Client asks one server for locks. Its methods are safe from any goroutine.
type Client struct {
	addr    string
	options Options // without zeros
	dialer  net.Dialer

	mu     sync.Mutex
	idle   []*conn // at most Options.MaxIdle; the last one was used last
	plain  *conn   // the latest one whose server did not know how to name it
	closed bool
}

// New returns a client of the server at addr, host:port. It does not connect: Lock and TryLock do.
func New(addr string, o Options) *Client {
	o = o.withDefaults()
	probes, silence := probing(o.KeepAlive)
	return &Client{
		addr:    addr,
		options: o,
		dialer: net.Dialer{
			Timeout:         o.DialTimeout,
			KeepAliveConfig: probes,
			Control:         func(_, _ string, sock syscall.RawConn) error { return prepare(sock, silence) },
		},
	}
}

// Lock asks for a key and stands in the queue until it is granted, but not longer than wait, counted from the call and
// rounded up to a millisecond. A negative wait has no end, 0 is that of TryLock. Connecting counts as well, but the key
// is asked for at least once.
//
// The errors are ErrTimeout, ErrConnectionLost, ErrUnreachable, ErrProtocol, ErrClosed, a *ServerError, that of a key
// which proto.ValidKey refuses, or that of ctx. When ctx ends, Lock returns at once, and the server knows that it no
// longer waits. With any error nothing is held.
//
// The context of the lock is derived from ctx: bound the waiting by wait, and the work too by a deadline of ctx.
func (c *Client) Lock(ctx context.Context, key string, wait time.Duration) (*Lock, error) {
	l, err := c.lock(ctx, key, wait)
	if err != nil {
		return nil, fmt.Errorf("lock %.60q: %w", key, err)
	}
	return l, nil
}

// TryLock asks for a key and does not stand in the queue: the error is ErrTimeout if somebody else holds it. The other
// errors are those of Lock.
func (c *Client) TryLock(ctx context.Context, key string) (*Lock, error) { return c.Lock(ctx, key, 0) }

// Close closes the idle connections; from now on Lock and TryLock fail with ErrClosed. Locks that are held stay held, and
// their connections are closed by Unlock. Calls that wait go on waiting: their contexts end them. The error is nil.
func (c *Client) Close() error {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.closed = nil, true
	c.mu.Unlock()
	for _, cn := range idle {
		cn.close()
	}
	return nil
}

func (c *Client) lock(ctx context.Context, key string, wait time.Duration) (*Lock, error) {
	if err := proto.ValidKey(key); err != nil {
		return nil, err
	}
	if err := c.options.invalid(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	began := time.Now()
	if cn := c.takeIdle(); cn != nil {
		l, err := c.lockOn(ctx, cn, key, wait)
		if err == nil || errors.Is(err, ErrTimeout) || ctx.Err() != nil {
			return l, err
		}
		// The connection was worn out, whatever the error says: ask again on a new one, and do not tell.
	}
	for failed := 0; ; {
		l, err := c.lockNew(ctx, key, remaining(wait, began))
		if !errors.Is(err, ErrConnectionLost) && !errors.Is(err, ErrUnreachable) {
			return l, err
		}
		failed++
		if failed == c.options.Attempts {
			return nil, err
		}
		if err := sleep(ctx, c.options.pause(failed)); err != nil {
			return nil, err
		}
	}
}

// lockNew asks on a new connection.
func (c *Client) lockNew(ctx context.Context, key string, wait time.Duration) (*Lock, error) {
	cn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.lockOn(ctx, cn, key, wait)
}

// lockOn asks on the connection, which then belongs to the lock. Without a lock it is idle again or closed.
func (c *Client) lockOn(ctx context.Context, cn *conn, key string, wait time.Duration) (*Lock, error) {
	if wait < 0 {
		wait = proto.MaxTimeout
	}
	token, err := cn.lock(ctx, key, wait, c.options.Fence)
	if errors.Is(err, ErrTimeout) {
		c.keep(cn)
	}
	if err != nil {
		return nil, err
	}
	l := newLock(ctx, c, cn, key, token)
	if err := cn.hold(l); err != nil { // granted, and lost before anybody knew
		l.cancel(err)
		return nil, err
	}
	return l, nil
}

// takeIdle returns the idle connection that was used last, nil if there is none.
func (c *Client) takeIdle() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := len(c.idle); n > 0; n-- {
		cn := c.idle[n-1]
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		if cn.alive() {
			return cn
		}
	}
	return nil
}

// keep takes a connection that holds nothing and waits for nothing, for the next lock, or closes it.
func (c *Client) keep(cn *conn) {
	c.mu.Lock()
	if len(c.idle) >= c.options.MaxIdle {
		c.idle = slices.DeleteFunc(c.idle, func(cn *conn) bool { return !cn.alive() })
	}
	room := !c.closed && len(c.idle) < c.options.MaxIdle
	if room {
		c.idle = append(c.idle, cn)
	}
	c.mu.Unlock()
	if !room {
		cn.close()
	}
}

// dial makes a connection and introduces it, if there is something to say. The error is ErrClosed, ErrUnreachable, one of
// conn.introduce or that of the context.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	cn, err := c.connect(ctx)
	if err != nil || c.options.Name == "" && c.options.Owner == "" || c.isOlder() {
		return cn, err
	}
	named, answered, err := cn.introduce(ctx, c.options.Name, c.options.Owner)
	if err == nil {
		cn.shortenPatience(shorter(c.options.KeepAlive, named.Silence))
		return cn, nil
	}
	if answered || !errors.Is(err, ErrConnectionLost) {
		return nil, err
	}
	// An older server: to it, the words are syntax errors.
	if cn, err = c.connect(ctx); err == nil {
		c.mu.Lock()
		c.plain = cn
		c.mu.Unlock()
	}
	return cn, err
}

// isOlder reports whether the server is known not to know the words for names and owners. That lasts as long as the
// connection that was made without them, since a server is not replaced without ending it.
func (c *Client) isOlder() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.plain != nil && !c.plain.alive() {
		c.plain = nil
	}
	return c.plain != nil
}

// connect makes a connection. The error is ErrClosed, ErrUnreachable or that of the context.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	sock, err := c.dialer.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		if ended := endOf(ctx); ended != nil {
			return nil, ended
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return newConn(sock), nil
}

// prepare sets a socket up: the kernel ends the connection if what was sent is not acknowledged within the silence, which
// its keepalive does not see to; and the commands of one write fit into the buffer, so that writing them never blocks.
func prepare(sock syscall.RawConn, silence time.Duration) error {
	return errors.Join(
		setOption(sock, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds())),
		setOption(sock, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer),
	)
}

func setOption(sock syscall.RawConn, level, option, value int) error {
	var err error
	failed := sock.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(failed, err)
}

// endOf returns the error of a context, nil if it has not ended. A dial may notice the deadline before the context does.
func endOf(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// remaining returns what is left of a wait; at the end that is 0, not less.
func remaining(wait time.Duration, began time.Time) time.Duration {
	if wait <= 0 {
		return wait
	}
	return max(0, wait-time.Since(began))
}

// sleep returns after d, or with the error of the context when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
