package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

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

// MoveDescriptors is the number of descriptors that moves may take, beside that of each connection.
const MoveDescriptors = maxMoves

// landTime bounds how long the end of the loops waits for connections on their way. They need less than a millisecond.
const landTime = 300 * time.Millisecond

// passage is a connection on its way. It belongs to the goroutine that enrolls it, then to the loop it goes to.
type passage struct {
	message Message // Body: the passage; sent if it failed
	conn    *Conn
	to      *Loop
	fd      int
	arrived bool
	err     error // why it failed
}

// TryMove begins to take the connection to another loop and reports whether it did. Then the client belongs to that
// loop, where Moved is called, and must not be touched here any more. The connection must be open, and neither paused
// nor with output that waits for the peer.
func (c *Conn) TryMove(to *Loop) bool {
	r := c.loop.reactor
	if !c.open || c.paused || c.sock.OutboundBuffered() > 0 || c.lag != nil || hasZone(c.sock.RemoteAddr()) {
		return false
	}
	if r.moving.Add(1) > maxMoves || !r.movable.Load() { // in this order: see landAll
		r.land()
		return false
	}
	fd, err := c.sock.Dup()
	if err != nil {
		r.land()
		return false
	}
	c.moving = true
	c.Close()
	p := &passage{conn: c, to: to, fd: fd}
	p.message.Body = p
	r.movers.Go(p.enroll)
	return true
}

// hasZone reports whether an address has a zone, as link-local ones of IPv6 have. gnet writes into the memory of the
// zone when the connection ends, which is good for zones that it has made itself and not for those of an enrolled
// connection, which are package net's.
func hasZone(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return !ok || tcp.Zone != ""
}

// enroll brings the connection to its loop. It runs on a goroutine of its own.
func (p *passage) enroll() {
	r := p.to.reactor
	defer r.land()
	result, err := p.register()
	if err == nil {
		select {
		case res := <-result:
			err = res.Err
		case <-r.ended:
			return
		}
	}
	if p.arrived {
		return
	}
	if err == nil {
		err = errors.New("epoll does not take it")
	}
	p.err = fmt.Errorf("move a connection to loop %d: %w", p.to.index, err)
	p.to.Send(&p.message)
}

// land says that a connection is not on its way any more.
func (r *Reactor) land() {
	r.moving.Add(-1)
	select {
	case r.landed <- struct{}{}:
	default:
	}
}

// landAll lets no more connections move, and waits for those on their way: if the loops ended first, gnet would never
// close them. No move is missed: it is counted before TryMove looks whether it may, and landAll forbids it before it
// looks at the count.
func (r *Reactor) landAll() {
	r.movable.Store(false)
	timeout := time.NewTimer(landTime)
	defer timeout.Stop()
	for r.moving.Load() > 0 {
		select {
		case <-r.landed:
		case <-r.ended:
			return
		case <-timeout.C:
			return
		}
	}
}

func (p *passage) register() (<-chan gnet.RegisteredResult, error) {
	file := os.NewFile(uintptr(p.fd), "moving connection")
	conn, err := net.FileConn(file)
	_ = file.Close() // the connection has a descriptor of its own
	if err != nil {
		return nil, err
	}
	if conn.RemoteAddr() == nil { // reset since; gnet takes for granted that there is one
		_ = conn.Close()
		return nil, unix.ECONNRESET
	}
	result, err := p.to.events.Enroll(gnet.NewContext(context.Background(), p), conn)
	if err != nil {
		_ = conn.Close()
	}
	return result, err
}

// arrive makes the connection one of its new loop, on which it runs.
func (p *passage) arrive(sock gnet.Conn) {
	p.arrived = true
	c := p.conn
	c.settle(p.to)
	c.sock, c.watching, c.open = sock, watchInput, true
	sock.SetContext(c)
	c.keepAlive()
	p.to.enter()
	c.client.Moved(p.to)
	p.to.leave()
}

// fail ends the connection on the loop that it did not get to.
func (p *passage) fail() {
	c := p.conn
	c.settle(p.to)
	c.client.Moved(p.to)
	c.client.Closed(p.err)
}

func (c *Conn) settle(l *Loop) { c.loop, c.moving = l, false }
