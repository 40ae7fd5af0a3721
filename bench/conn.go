package bench

import "github.com/panjf2000/gnet/v2"

// conn is one connection of the generator. It belongs to its loop from the moment at which it is opened until the next
// time that it is dialed.
type conn struct {
	loop   *loop
	id     int    // number among the connections of the run, from 0
	script script // what it does
	sock   gnet.Conn
	open   bool // gnet must not be asked to write once this is false: the descriptor is somebody else's by then

	expectation       // of the request under way
	since       int64 // from when on its latency counts: when it was sent, or should have been

	// What belongs to the script.
	lock, unlock exchange      // of the connection's own key
	stage        uint8         // where in its job it is
	key          int           // number of the shared key of its job
	cursor       int           // into the table of random choices
	group        int64         // in the line, of a waiter
	wait         int64         // ns that its wait should last
	closing      bool          // it is meant to be closed
	closed       chan struct{} // told when it is closed, if anybody wants to know
}

// script is what a connection does. Its methods run on the connection's loop.
type script interface {
	// begin starts a job, whose latency counts from since.
	begin(c *conn, since int64)
	// replied is told the outcome of the exchange that was under way.
	replied(c *conn, outcome int, now int64)
}

// send sends the request of an exchange. It may close the connection before it returns, which fails the run.
func (c *conn) send(e *exchange, since int64) {
	if !c.open {
		return // the run has failed, or is at its end
	}
	c.expect(e)
	c.since = since
	_, _ = c.sock.Write(e.request) // an error closes the connection, and OnClose knows what that means
}

// data takes what has come.
func (c *conn) data(data []byte, now int64) {
	if c.exchange == nil {
		c.fail("bytes that nobody asked for", data)
		return
	}
	asked := c.exchange
	n, outcome, p := c.feed(data)
	switch {
	case p == wrong:
		c.fail("wrong reply", data)
	case p == moreToCome:
	case n < len(data):
		c.expect(asked)
		c.fail("more than the reply", data)
	default:
		c.script.replied(c, outcome, now)
	}
}

// fail ends the run.
func (c *conn) fail(what string, data []byte) {
	c.loop.gen.fail(c.violation(c.id, what, data))
}
