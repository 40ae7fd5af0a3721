package reactor

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/socket"
	"golang.org/x/sys/unix"
)

// Client is what the server keeps for one connection. All calls come on the loop that owns the connection, and none comes
// from inside a method of Conn.
type Client interface {
	// Conn returns the connection, a field of the client that the reactor fills in before Opened.
	Conn() *Conn
	// Opened says that the connection can be written to.
	Opened()
	// Data hands over what was read. It is valid during the call: what is not consumed must be copied. After
	// [Conn.ReadRest], an empty p says that nothing is left.
	Data(p []byte)
	// Drained says that the peer has taken some of the output that was unsent.
	Drained()
	// Lingers is asked when the peer has ended its side: whether the client has something left to say, so that the
	// connection has to stay. HalfClosed follows if so, else Closed. Some input may be left in the socket, see
	// [Conn.ReadRest].
	Lingers(inputLeft bool) bool
	// HalfClosed says that no input comes any more, save what [Conn.ReadRest] asks for. Output still leaves.
	HalfClosed()
	// Closed says that the connection is gone: io.EOF (wrapped) at the end of the input, nil after Close, else what
	// failed. It comes once, at the end of the turn in which Close was called or Write failed, and is the last call.
	Closed(err error)
	// Moved says that the client, after [Conn.TryMove], belongs to the loop with that index. If Closed follows at once, its
	// connection was lost on the way.
	Moved(loop int)
}

// Conn is one client's socket. It keeps what gnet does not promise: nothing is written to a closed connection, whose
// descriptor may be somebody else's already, and a peer is held back by TCP instead of buffered without bound.
//
// While output waits for the peer to read it, no input is read. So a client that does not read its answers cannot ask for
// more.
//
// It belongs to one loop, as all its methods do.
type Conn struct {
	client   Client
	loop     *Loop
	tls      *TLS      // nil if nothing encrypts the connection
	sock     gnet.Conn // nil once gnet has closed its descriptor
	fd       int       // gnet's descriptor, or our own after a half-close; -1 when closed
	watching interest
	heard    uint32 // when something came from the peer, in seconds since the reactor started

	state      connState // how far it has come
	tcp        bool      // else it is a Unix socket
	decrypting bool      // the TLS has input
	paused     bool
	wasPaused  bool // at any time: when the peer ends its side, some of its input may still be in the socket
	wantsRest  bool // it is one of the loop's readers
	wantsSip   bool // it is one of the loop's sippers
	last       bool // CloseAfterOutput was called

	judgement *judgement // nil while the kernel judges the peer
	output    *output    // what is unsent; nil until the peer lags for the first time
}

// ended is a connection that is ending.
type ended struct {
	conn   *Conn
	reason error // nil if the client has closed it
}

// connState is how far a connection has come.
type connState uint8

const (
	closed     connState = iota // also: not open yet
	connected                   // gnet reads it
	halfClosed                  // the peer has ended its side; we write on a descriptor of our own
	ending                      // Closed comes at the end of this turn
)

// IsOpen reports whether the connection can still be written to.
func (c *Conn) IsOpen() bool { return c.state == connected || c.state == halfClosed }

// RemoteAddr returns the peer's address, nil once the peer has ended its side or is gone, or the connection is closed.
func (c *Conn) RemoteAddr() net.Addr {
	if c.sock == nil {
		return nil
	}
	peer, err := unix.Getpeername(c.fd) // gnet's has been trimmed
	if err != nil {
		return nil
	}
	return socket.SockaddrToTCPOrUnixAddr(peer)
}

// CanHold reports whether reading can be paused. It cannot if the loop's epoll instance was not found; what is beyond a
// mark must be dropped then.
func (c *Conn) CanHold() bool { return c.loop.epoll >= 0 }

// Pause stops reading, so that TCP holds the peer back; the end of the peer is still seen. Data may come once more, with
// what gnet has read already.
func (c *Conn) Pause() {
	c.paused, c.wasPaused = true, true
	c.updateInterest()
}

// Paused reports whether reading is paused.
func (c *Conn) Paused() bool { return c.paused }

// Unread returns the number of bytes that have come from the peer and were not read, 0 if that is not known.
func (c *Conn) Unread() int {
	if c.fd < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// Resume ends a pause.
func (c *Conn) Resume() {
	if c.paused {
		c.paused = false
		c.updateInterest()
	}
}

// CloseWrite sends the end of output after what has been written. What is unsent is lost, and the connection with it.
func (c *Conn) CloseWrite() {
	if !c.IsOpen() {
		return
	}
	if c.tls != nil && c.Unsent() == 0 {
		c.loop.sayGoodbye(c.tls, c.fd)
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_WR) // fails if the peer is gone: the next read says so
}

// Close ends the connection, and what is unsent is lost. Closed follows at the end of the turn.
func (c *Conn) Close() { c.end(nil) }

// CloseAfterOutput ends the connection when the peer has taken all output, or has taken none of it for [Config.Linger].
func (c *Conn) CloseAfterOutput() {
	if c.Unsent() == 0 {
		c.Close()
		return
	}
	c.last, c.output.taken = true, c.loop.Now()
}

// end closes the connection at the end of this turn, for the reason err.
func (c *Conn) end(err error) {
	if c.IsOpen() {
		c.state = ending
		c.loop.ending = append(c.loop.ending, ended{c, err})
	}
}

// open makes the connection one of gnet's, on the loop.
func (c *Conn) open(sock gnet.Conn, l *Loop) {
	c.loop, c.sock, c.fd = l, sock, sock.Fd()
	c.watching, c.state = watchInput, connected
	_, c.tcp = sock.RemoteAddr().(*net.TCPAddr)
	sock.SetContext(c)
	c.recount()
}

// data hands what was read to the client. Nothing is left to gnet's own buffer, which has no bound.
func (c *Conn) data() {
	n := c.sock.InboundBuffered()
	if n == 0 || c.state != connected {
		return
	}
	p, _ := c.sock.Next(n) // that many are there
	l := c.loop            // c may be on another one afterwards
	l.enter()
	c.hear()
	c.input(p)
	l.leave()
}

// input hands what came from the peer to the client, decrypted, and reports whether that was anything.
func (c *Conn) input(p []byte) (delivered bool) {
	if c.tls == nil {
		if len(p) > 0 {
			c.client.Data(p)
		}
		return len(p) > 0
	}
	c.decrypting = true
	err := c.tls.open(p, &c.loop.plain, func(plain []byte) (more bool) {
		delivered = true
		c.client.Data(plain)
		return c.IsOpen()
	})
	c.decrypting = false
	c.tls.received(len(p), delivered)
	c.recount()
	if !c.IsOpen() {
		return delivered
	}
	c.put(c.loop.seal(c.tls, nil)) // what TLS has to say itself
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		c.end(fmt.Errorf("TLS: %w", err))
	case c.state == connected:
		c.inputEnded()
	}
	return delivered
}

// sayGoodbye tells a peer by TLS that no more output comes. All of it must have left.
func (l *Loop) sayGoodbye(t *TLS, fd int) {
	l.sealed = t.closeNotify(l.sealed[:0])
	_, _ = write(fd, l.sealed) // who does not take it learns it from the end of the stream
}

// close ends a connection that is ending, for the reason err. It is called at the end of a turn. The client hears of it first,
// and what it posts leaves: a peer that sees the end may count on what Closed has done, on other loops too, since what it asks
// them then comes after these messages.
func (c *Conn) close(err error) {
	sock, fd, tls := c.sock, c.fd, c.tls
	goodbye := tls != nil && c.Unsent() == 0 && (err == nil || errors.Is(err, io.EOF))
	c.gone(err)
	c.loop.sendPosted()
	if goodbye {
		c.loop.sayGoodbye(tls, fd)
	}
	if sock != nil {
		_ = c.loop.events.Close(sock) // an error is about descriptors that are closed anyway
	} else {
		delete(c.loop.halfClosed, c)
		_ = unix.Close(fd) // closed in any case; what was written is the kernel's to send
	}
}

// gone tells the client that the connection has ended. Its descriptor is closed right after.
func (c *Conn) gone(err error) {
	c.uncount()
	c.stopJudging()
	c.unwatchOutput()
	c.output, c.tls = nil, nil // who keeps the client for longer keeps no more than that
	c.sock, c.fd, c.state = nil, -1, closed
	c.client.Closed(err)
}

// updateInterest makes epoll watch for what the connection wants now. A connection for which that fails would hear nothing any
// more, or could not be held back: it is closed.
func (c *Conn) updateInterest() {
	if c.state != connected || c.loop.epoll < 0 || c.adopted() {
		return
	}
	want := c.wanted()
	if want == c.watching {
		return
	}
	if err := setInterest(c.loop.epoll, c.fd, want); err != nil {
		c.end(err)
		return
	}
	c.watching = want
}

// wanted returns what epoll is to watch the connection for.
func (c *Conn) wanted() interest {
	switch {
	case c.Unsent() > 0:
		return watchNothing
	case c.paused:
		return watchHangup
	}
	return watchInput
}

// ignoringEINTR repeats a system call that a signal has interrupted.
func ignoringEINTR(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
