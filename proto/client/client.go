package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"dreadlock/proto"
)

// Client asks a server for locks, or the servers of a fleet. Its methods are safe from any goroutine.
type Client struct {
	servers []target // in an order of its own
	wrong   error    // with the addresses; nil if they can be used
	options Options  // without zeros
	dialer  net.Dialer
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	tables  tables

	mu      sync.Mutex
	idle    []*conn   // at most Options.MaxIdle; the most recently used one comes last
	plain   *conn     // the latest one that was made without a name; nil unless the server is known not to have names
	olderAt time.Time // when that was found
	closed  bool
}

// New returns a client of the server at addr, which is host:port, tls://host:port or unix:///path: see ParseAddress. It
// neither connects nor fails: Lock and TryLock do.
//
// Several addresses, with commas in between, are the servers of a fleet, and so are the addresses of a name that has several. The
// client goes to one of them, and to another one when that is gone. See the package's "Several servers".
func New(addr string, o Options) *Client {
	o = o.withDefaults()
	probes, silence := probing(o.KeepAlive)
	c := &Client{
		options: o,
		lookup:  lookUpHost,
		tables:  newTables(),
		dialer: net.Dialer{
			Timeout:         o.DialTimeout,
			KeepAliveConfig: probes,
			Control:         func(network, _ string, sock syscall.RawConn) error { return prepare(network, sock, silence) },
		},
	}
	c.servers, c.wrong = parseServers(addr, o.TLS)
	return c
}

// Lock asks for a key and waits in its queue until the key is granted, at most for wait, counted from the call and rounded
// up to a millisecond. A negative wait has no limit; with 0, Lock is TryLock. The time to connect counts as well, but the
// key is asked for at least once. The wait covers the server's absence: Lock tries again until wait is over, or ctx, with
// pauses of up to 5 s; see Options.Attempts and Options.Trouble.
//
// The errors are ErrTimeout, ErrConnectionLost, ErrUnreachable, ErrHandshake, ErrProtocol, ErrClosed, ErrAddress, a
// *ServerError, a *TablesError, those of proto.ValidKey, ValidName and ValidOwner, or that of ctx. When ctx ends, Lock returns at once, and
// the server takes it out of the queue. After an error nothing is held.
//
// The context of the lock is derived from ctx: limit the waiting by wait, and the work as well by a deadline of ctx.
func (c *Client) Lock(ctx context.Context, key string, wait time.Duration) (*Lock, error) {
	l, err := c.lock(ctx, key, wait)
	if err != nil {
		return nil, fmt.Errorf("lock %.60q: %w", key, err)
	}
	return l, nil
}

// TryLock asks for a key and does not wait: the error is ErrTimeout if somebody else holds it. It makes one attempt to reach
// the server, unless Options.Attempts allows more. The other errors are those of Lock.
func (c *Client) TryLock(ctx context.Context, key string) (*Lock, error) { return c.Lock(ctx, key, 0) }

// Close closes the idle connections; from then on Lock and TryLock fail with ErrClosed. Locks that are held stay held, and
// Unlock closes their connections. Calls that wait continue to wait: their contexts end them. The error is always nil.
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
	if err := proto.ValidName(c.options.Name); err != nil {
		return nil, err
	}
	if owner := c.ownerOf(ctx); owner != "" {
		if err := proto.ValidOwner(owner); err != nil {
			return nil, err
		}
	}
	if c.wrong != nil {
		return nil, c.wrong
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	began := time.Now()
	t := trouble{client: c, key: key}
	if cn := c.takeIdle(); cn != nil {
		l, err := c.lockOn(ctx, cn, key, wait)
		if err == nil || errors.Is(err, ErrTimeout) || ctx.Err() != nil {
			return l, err
		}
		// Whatever the error says, it may only mean that the connection was old: ask again on a new one.
		t.stoodOn(cn)
		ctx = c.afterLoss(ctx, err)
	}
	return c.lockNew(ctx, key, wait, began, &t)
}

// lockOn asks on the connection, which then belongs to the lock. If there is no lock, the connection is idle again or
// closed.
func (c *Client) lockOn(ctx context.Context, cn *conn, key string, wait time.Duration) (*Lock, error) {
	if wait < 0 {
		wait = proto.MaxTimeout
	}
	r := request{key: key, wait: wait, fence: c.options.Fence || c.options.TryFence && !cn.older}
	if !cn.older {
		if cn.server == nil {
			r.name = c.options.Name
		}
		owner := c.ownerOf(ctx)
		if owner == "" && wait > 0 {
			var over func()
			owner, over = gather(ctx)
			defer over()
		}
		r.owner = cn.ownerToSay(owner)
	}
	token, err := cn.lock(ctx, r)
	if errors.Is(err, ErrTimeout) {
		c.keep(cn)
	}
	if err != nil {
		return nil, err
	}
	l := newLock(ctx, c, cn, key, token)
	if err := cn.hold(l); err != nil { // granted, and lost before anybody knew of it
		l.cancel(err)
		return nil, err
	}
	return l, nil
}

// takeIdle returns the most recently used idle connection, nil if there is none.
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

// keep makes a connection idle, for the next lock, or closes it. It must hold nothing and wait for nothing.
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

// connect makes a connection. With several servers to choose from, the server has been told its name. The error is ErrClosed,
// ErrUnreachable, ErrHandshake, a *ServersError, a *TablesError or that of the context.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	all, err := c.endpoints(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(all) > 1:
		return c.choose(ctx, all)
	}
	c.tables.only(all[0])
	return c.dial(ctx, all[0])
}

// dial makes a connection to a server. The error is ErrUnreachable, ErrHandshake or that of the context.
func (c *Client) dial(ctx context.Context, to endpoint) (*conn, error) {
	dial := c.dialer.DialContext
	if to.tls != nil {
		dial = (&tls.Dialer{NetDialer: &c.dialer, Config: to.tls}).DialContext // its timeout includes the handshake
	}
	began := time.Now()
	sock, err := dial(ctx, to.address.Network, to.where)
	if err != nil {
		if ended := endOf(ctx); ended != nil {
			return nil, ended
		}
		if to.tls != nil {
			if refusal := refused(err); refusal != nil {
				return nil, refusal
			}
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return c.newConn(sock, to, began), nil
}

// endOf returns the error of a context, nil if it has not ended. A dial may notice a deadline before its context does.
func endOf(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}
