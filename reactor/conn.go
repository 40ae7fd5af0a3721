package reactor

import (
	"errors"
	"io"
	"net"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// Client is what the server keeps for one connection. All calls come on the loop that owns the connection.
type Client interface {
	// Conn returns the connection, a field of the client that the reactor fills in before Opened.
	Conn() *Conn
	// Opened says that the connection can be written to.
	Opened()
	// Data hands over what was read. It is valid during the call: what is not consumed must be copied.
	Data(p []byte)
	// Closed says that the connection is gone: io.EOF (wrapped) at the end of the input, nil after Close, else what
	// failed. It may come from inside Write or Close. Only Dup and RemoteAddr still work, and only during the call.
	Closed(err error)
	// Moved says that the client, after [Conn.TryMove], belongs to another loop. If Closed follows at once, its
	// connection was lost on the way.
	Moved(to *Loop)
}

// Conn is one client's socket. It keeps what gnet does not promise: nothing is written to a closed connection, whose
// descriptor may be somebody else's already, and a peer is held back by TCP instead of buffered without bound.
//
// While output waits for the peer to read it, no input is read. So a client that does not read its answers cannot ask
// for more, and the end of its input is not seen before everything was sent: gnet drops what is unsent then.
//
// It belongs to one loop, as all its methods do.
type Conn struct {
	client   Client
	loop     *Loop
	sock     gnet.Conn // nil when closed
	watching interest  // as far as we know: gnet goes from watchOutput to watchInput on its own
	open     bool
	paused   bool
	atEnd    bool // closed for the end of the input
	moving   bool // on its way to another loop: closed here, and the client does not hear of it

	unchecked int  // bytes written since the kernel was asked whether the peer takes them
	lag       *lag // set while the peer does not, nil else
}

// Open reports whether the connection can still be written to.
func (c *Conn) Open() bool { return c.open }

// RemoteAddr returns the peer's address, nil when the connection is closed.
func (c *Conn) RemoteAddr() net.Addr {
	if c.sock == nil {
		return nil
	}
	return c.sock.RemoteAddr()
}

// Write sends p, or keeps a copy of what the peer cannot take yet. If the connection breaks, Closed has been called
// when Write returns. On a closed connection it does nothing.
func (c *Conn) Write(p []byte) {
	if !c.open {
		return
	}
	if c.watching == watchOutput {
		c.regulate() // see whether gnet has drained since
	}
	if _, err := c.sock.Write(p); err != nil {
		return // the connection has been closed
	}
	if c.sock.OutboundBuffered() > 0 {
		c.regulate()
	}
	if c.unchecked += len(p); c.unchecked >= checkBytes {
		c.check(len(p))
	}
}

// Unsent returns the number of bytes that wait for the peer to read.
func (c *Conn) Unsent() int {
	if !c.open {
		return 0
	}
	if c.watching == watchOutput {
		c.regulate() // gnet tells nobody that it has drained: the limit on unacknowledged data comes back here
	}
	return c.sock.OutboundBuffered()
}

// CanHold reports whether reading can be paused. It cannot if the loop's epoll instance was not found; what is beyond a
// mark must be dropped then.
func (c *Conn) CanHold() bool { return c.loop.epoll >= 0 }

// Pause stops reading, so that TCP holds the peer back; the end of the peer still closes the connection. It must be
// repeated when Data is called all the same, which gnet does once after unsent output has drained.
func (c *Conn) Pause() {
	c.paused = true
	c.regulate()
}

// Paused reports whether reading is paused.
func (c *Conn) Paused() bool { return c.paused }

// Resume ends a pause.
func (c *Conn) Resume() {
	if c.paused {
		c.paused = false
		c.regulate()
	}
}

// SeeEnd looks whether a paused peer has ended its side, and if so closes the connection for the end of its input, as
// gnet is about to do. Whoever wants to write to a paused connection asks first: gnet drops what is unsent when it sees
// the end of a connection that is not read.
func (c *Conn) SeeEnd() bool {
	if !c.open || !c.paused {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(c.sock.Fd()), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		return false
	}
	c.atEnd = true
	c.Close()
	return true
}

// CloseWrite sends the end of output behind what has been written. What is unsent is lost, and the connection with it.
func (c *Conn) CloseWrite() {
	if c.open {
		_ = unix.Shutdown(c.sock.Fd(), unix.SHUT_WR) // fails if the peer is gone: the next read says so
	}
}

// Close ends the connection at once; Closed has been called when it returns.
func (c *Conn) Close() {
	if c.open {
		_ = c.loop.events.Close(c.sock) // an error is about descriptors that are closed anyway
	}
}

// Dup returns a second descriptor of the socket, which keeps it open when the connection is closed.
func (c *Conn) Dup() (int, error) { return c.sock.Dup() }

// data hands what was read to the client. Nothing is left to gnet's own buffer, which has no bound.
func (c *Conn) data() {
	n := c.sock.InboundBuffered()
	if n == 0 {
		return
	}
	p, _ := c.sock.Next(n) // that many are there
	l := c.loop            // c may be on another one afterwards
	l.enter()
	c.client.Data(p)
	l.leave()
}

// closed tells the client. gnet goes on to send what is unsent, then gives the descriptor back.
func (c *Conn) closed(err error) {
	if c.moving {
		c.open, c.sock = false, nil
		return
	}
	c.loop.enter()
	c.open = false
	if c.atEnd {
		err = io.EOF
	}
	if c.watching == watchHangup && errors.Is(err, io.EOF) && c.broken() {
		err = unix.ECONNRESET // gnet takes whatever ends a connection that is not read for the end of its input
	}
	c.client.Closed(err)
	c.sock = nil
	c.loop.leave()
}

// regulate makes epoll watch for what the connection wants now.
func (c *Conn) regulate() {
	if !c.open || c.loop.epoll < 0 {
		return
	}
	unsent := c.sock.OutboundBuffered() > 0
	if c.watching == watchOutput && !unsent {
		c.watching = watchInput // gnet has done that when its buffer drained
	}
	want := watchInput
	switch {
	case unsent:
		want = watchOutput
	case c.paused:
		want = watchHangup
	}
	if unsent {
		c.lift()
	} else {
		c.restore()
	}
	if want == c.watching {
		return
	}
	if err := setInterest(c.loop.epoll, c.sock.Fd(), want); err != nil {
		c.loop.reactor.cfg.Log.Error().Err(err).Msg("cannot hold a client back")
		return
	}
	c.watching = want
}

// broken reports whether the connection has ended in both directions.
func (c *Conn) broken() bool {
	info, err := unix.GetsockoptTCPInfo(c.sock.Fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == tcpClose
}

// tcpClose is the state of a TCP connection that was reset: TCP_CLOSE of Linux.
const tcpClose = 7
