package bench

import "github.com/panjf2000/gnet/v2"

// conn is one connection of the generator. It belongs to its loop from when it is opened until it is dialed again.
type conn struct {
	loop   *loop
	id     int    // number within the run, from 0
	script script // what it does
	sock   gnet.Conn
	tls    *secured // over sock; nil without TLS
	open   bool     // once false, nothing may be written: the descriptor may belong to another connection by then

	expectation       // of the outstanding request
	since       int64 // when that was sent, or should have been: its latency counts from here

	// State of the script.
	lock, unlock exchange      // of the connection's own key
	digits       [][]byte      // the number of the key in these, of Fresh
	stage        uint8         // of its job
	key          int           // number of the shared key that its job is about
	cursor       int           // position in the table of random choices
	group        int64         // of a waiter in the queue
	wait         int64         // how long its wait should last, in ns
	closing      bool          // its end is expected
	closed       chan struct{} // receives when it is closed; nil if nobody waits for that
}

// script says what a connection does. Its methods run on the connection's loop.
type script interface {
	// begin starts a job. Its latency counts from since.
	begin(c *conn, since int64)
	// replied takes the outcome of the outstanding exchange.
	replied(c *conn, outcome int, now int64)
}

// send sends the request of an exchange. A connection that cannot be written to is closed, which fails the run.
func (c *conn) send(e *exchange, since int64) {
	if !c.open {
		return // the run has failed, or is at its end
	}
	c.expect(e)
	c.since = since
	if c.tls != nil { // an error of either closes the connection, and OnClose reports it
		_, _ = c.tls.Write(e.request)
		return
	}
	_, _ = c.sock.Write(e.request)
}

// arrived takes bytes from the socket.
func (c *conn) arrived(data []byte) {
	if c.tls == nil {
		c.data(data, c.loop.gen.now())
		return
	}
	err := c.tls.open(data, c.loop.plain[:], func(plain []byte) {
		if c.open {
			c.data(plain, c.loop.gen.now())
		}
	})
	if err != nil {
		c.fail("TLS: "+err.Error(), nil)
	}
}

// data takes bytes of the protocol.
func (c *conn) data(data []byte, now int64) {
	if c.exchange == nil {
		c.fail("unexpected bytes", data)
		return
	}
	outstanding := c.exchange
	n, outcome, p := c.feed(data)
	switch {
	case p == wrong:
		c.fail("wrong reply", data)
	case p == moreToCome:
	case n < len(data):
		c.expect(outstanding)
		c.fail("more than the reply", data)
	default:
		c.script.replied(c, outcome, now)
	}
}

// fail ends the run with a violation.
func (c *conn) fail(what string, data []byte) {
	c.loop.gen.fail(c.violation(c.id, what, data))
}
