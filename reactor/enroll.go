package reactor

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// errNotWatched is why a connection does not get to a loop whose epoll instance has refused it.
var errNotWatched = errors.New("epoll does not take it: raise fs.epoll.max_user_watches, or the memory of the machine")

// enrollment is a new connection on its way to a loop. It belongs to the goroutine that brings it, then to the loop.
type enrollment struct {
	acceptor *acceptor
	conn     net.Conn
	info     any // from Admit
	prepared Prepared
	claim    claim
}

// claim says who answers for a connection that gnet is asked to bring to a loop: the loop, or who has asked. gnet may report
// an error, as when it cannot wake the loop, and yet have it open the connection later, which it closes then. So whoever comes
// first takes the claim, and the other leaves the connection alone.
type claim struct{ taken atomic.Bool }

// take reports whether nobody has taken the claim before.
func (c *claim) take() bool { return !c.taken.Swap(true) }

// settle is called by who has asked, with what gnet has reported. It returns why the loop does not get the connection, nil if it
// has got it. After an error it calls wake, so that the loop does not miss what others ask for.
func (c *claim) settle(err error, wake func()) error {
	failed := c.take()
	if err != nil {
		wake()
	}
	switch {
	case !failed:
		return nil
	case err == nil:
		return errNotWatched
	}
	return err
}

// send gives the connection to a carrier.
func (e *enrollment) send(ctx context.Context) {
	select {
	case e.acceptor.reactor.arrivals <- e:
	case <-ctx.Done():
		e.abandon(context.Cause(ctx))
	}
}

// enroll gives the connection to the loop with the fewest, and returns when that has it.
func (e *enrollment) enroll() {
	trimAddresses(e.conn)
	r := e.acceptor.reactor
	_, err := r.client.EnrollContext(e.conn, e) // closes conn: gnet has a descriptor of its own
	if err = e.claim.settle(err, r.wakeGnet); err != nil {
		e.acceptor.report(err)
		e.abandon(err)
		return
	}
	r.gate.end()
}

// abandon ends a connection that does not get to a loop.
func (e *enrollment) abandon(err error) {
	defer e.acceptor.reactor.gate.end()
	_ = e.conn.Close() // closed in any case; it may be so already
	if abandoned := e.acceptor.reactor.cfg.Abandoned; abandoned != nil {
		abandoned(e.info, err)
	}
}

// trimAddresses empties the addresses of a connection, for gnet, which nobody asks for them:
//
//   - gnet recycles the memory of a zone, which link-local addresses of IPv6 have, when a connection ends. That is good for zones
//     that it has made itself, and not for those of package net.
//   - gnet resolves the address of the peer as if it were the name of a host, which is a third of what a connection
//     allocates; there is nothing to resolve in an empty one.
//   - Each address holds on to what it was made from, for as long as the connection lives.
func trimAddresses(conn net.Conn) {
	for _, addr := range []net.Addr{conn.LocalAddr(), conn.RemoteAddr()} {
		if tcp, ok := addr.(*net.TCPAddr); ok {
			*tcp = net.TCPAddr{}
		}
	}
}

// accept makes a client of a new connection.
func (l *Loop) accept(sock gnet.Conn, e *enrollment) {
	if !e.claim.take() {
		return
	}
	l.enter()
	client := l.handler.Accept(e.info)
	c := client.Conn()
	*c = Conn{client: client, tls: e.prepared.TLS}
	c.open(sock, l)
	c.hear()
	client.Opened()
	if c.state == connected {
		c.input(e.prepared.Input)
	}
	l.leave()
}

// transit keeps count of the goroutines that bring connections to loops, and lets none begin when the loops are about to
// end: gnet would never close what they bring.
type transit struct {
	mu     sync.Mutex
	open   bool
	count  int
	waiter chan struct{} // closed by the last one, if somebody waits
}

func (t *transit) start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = true
}

// run runs f on a goroutine, unless no more may begin.
func (t *transit) run(f func()) (began bool) {
	if !t.begin() {
		return false
	}
	go func() {
		defer t.done()
		f()
	}()
	return true
}

// begin counts a goroutine in, unless no more may begin.
func (t *transit) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open {
		t.count++
	}
	return t.open
}

func (t *transit) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count--
	if t.count == 0 && t.waiter != nil {
		close(t.waiter)
	}
}

// end lets no more goroutines begin and waits for those that have, for some time.
func (t *transit) end(patience time.Duration) {
	t.mu.Lock()
	t.open = false
	t.waiter = make(chan struct{})
	if t.count == 0 {
		close(t.waiter)
	}
	t.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-t.waiter:
	case <-timeout.C:
	}
}
