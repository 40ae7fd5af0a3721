package reactor

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// A connection can go to another loop: its socket is duplicated and closed on the one, and the duplicate enrolled on
// the other. What the peer sends meanwhile stays in the socket.
//
//	loop it leaves               a goroutine                    loop it goes to
//	TryMove: dup, close   ──►    Enroll, which takes      ──►   Client.Moved, then Data
//	                             its time            failed:    Client.Moved, then Closed

// maxMoves bounds the connections that are on their way at a time: each takes a second descriptor, and a goroutine.
const maxMoves = 16

// TransitDescriptors is the number of descriptors that connections on their way to a loop may take, beside one for each
// connection that is served.
const TransitDescriptors = maxMoves + 2*carriers

// transfer is a connection on its way. It belongs to the goroutine that enrolls it, then to the loop it goes to.
type transfer struct {
	message Message // Body: the transfer; sent if it failed
	conn    *Conn
	to      *Loop
	fd      int
	claim   claim
	err     error // why it failed
}

// TryMove begins to take the connection to the loop with that index and reports whether it did. Then the client belongs to that
// loop, where Moved is called, and must not be touched here any more. The connection must be open on both sides, and
// neither paused nor with output that waits for the peer. None moves while accepting is paused.
func (c *Conn) TryMove(loop int) bool {
	r := c.loop.reactor
	to := r.loops[loop]
	if c.state != connected || c.paused || c.wantsSip || c.decrypting || c.Unsent() > 0 {
		return false
	}
	if r.moving.Add(1) > maxMoves {
		r.moving.Add(-1)
		return false
	}
	if !r.gate.begin() { // accepting is paused
		r.moving.Add(-1)
		return false
	}
	if !r.transit.begin() {
		r.gate.end()
		r.moving.Add(-1)
		return false
	}
	fd, err := c.duplicate()
	if err != nil { // it stays where it is
		r.transit.done()
		r.gate.end()
		r.moving.Add(-1)
		return false
	}
	if c.judgement != nil {
		c.loop.StopTimer(&c.judgement.timer)
	}
	c.uncount()
	c.output = nil
	sock := c.sock
	c.sock, c.fd, c.state = nil, -1, closed
	_ = c.loop.events.Close(sock) // an error is about descriptors that are closed anyway
	t := &transfer{conn: c, to: to, fd: fd}
	t.message.Body = t
	go t.enroll()
	return true
}

// enroll brings the connection to its loop. It runs on a goroutine of its own.
func (t *transfer) enroll() {
	r := t.to.reactor
	defer r.transit.done()
	defer r.gate.end()
	defer r.moving.Add(-1)
	result, err := t.register()
	if err == nil {
		select {
		case res := <-result:
			err = res.Err
		case <-r.ended:
			return
		}
	}
	if err = t.claim.settle(err, t.to.wakeGnet); err == nil {
		return
	}
	t.err = fmt.Errorf("move a connection to loop %d: %w", t.to.index, err)
	t.to.Send(&t.message)
}

func (t *transfer) register() (<-chan gnet.RegisteredResult, error) {
	file := os.NewFile(uintptr(t.fd), "moving connection")
	conn, err := net.FileConn(file)
	_ = file.Close() // the connection has a descriptor of its own
	if err != nil {
		return nil, err
	}
	if conn.RemoteAddr() == nil { // reset since; gnet takes for granted that there is one
		_ = conn.Close() // it is reset
		return nil, unix.ECONNRESET
	}
	trimAddresses(conn)
	result, err := t.to.events.Enroll(gnet.NewContext(context.Background(), t), conn)
	if err != nil {
		_ = conn.Close() // nothing was written on it
	}
	return result, err
}

// arrive makes the connection one of its new loop, on which it runs.
func (t *transfer) arrive(sock gnet.Conn) {
	if !t.claim.take() {
		return
	}
	c := t.conn
	c.open(sock, t.to)
	c.keepAlive()
	t.to.enter()
	if c.judgement != nil {
		c.lookIn(lookTime)
	}
	c.client.Moved(t.to.index)
	t.to.leave()
}

// fail ends the connection on the loop that it did not get to.
func (t *transfer) fail() {
	c := t.conn
	c.loop = t.to
	c.client.Moved(t.to.index)
	c.gone(t.err)
}
