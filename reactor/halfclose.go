package reactor

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// A peer that has ended its side may still be owed answers. gnet closes its connection then, so the socket is kept by a descriptor of
// our own. What is left in it of the peer's input, if it was not read in a pause, is read from there:
//
//	lost, or inputEnded by TLS ──► Client.Lingers ──► halfClose: duplicate ──► Client.HalfClosed ──► ReadRest ──► Data

// lost is called when gnet has ended the connection: gnet closes its descriptor afterwards.
func (c *Conn) lost(err error) {
	if c.state != connected { // by close or TryMove
		return
	}
	c.loop.enter()
	if c.watching != watchInput && errors.Is(err, io.EOF) && c.broken() {
		err = unix.ECONNRESET // gnet takes whatever ends a connection that is not read for the end of its input
	}
	if !errors.Is(err, io.EOF) || !c.client.Lingers(c.wasPaused) || !c.halfClose() {
		c.gone(err)
	}
	c.loop.leave()
}

// inputEnded is called when the peer has said by TLS that it sends no more. Its socket is still open.
func (c *Conn) inputEnded() {
	sock := c.sock
	if c.client.Lingers(c.wasPaused) && c.halfClose() {
		_ = c.loop.events.Close(sock) // an error is about descriptors that are closed anyway
	} else {
		c.end(io.EOF)
	}
}

// halfClose keeps the socket by a descriptor of our own and tells the client. It reports whether that works.
func (c *Conn) halfClose() bool {
	fd, err := c.duplicate()
	if err != nil {
		c.loop.reactor.cfg.Log.Warn().Err(err).Stringer("client", c.RemoteAddr()).
			Msg("answers are lost: the client has closed its side, and its socket cannot be kept; " +
				"if there are too many open files, raise their limit")
		return false
	}
	c.unwatchOutput()
	c.sock, c.fd, c.state = nil, fd, halfClosed
	c.loop.halfClosed[c] = struct{}{}
	if c.Unsent() > 0 {
		c.output.taken = c.loop.Now()
		c.watchOutput()
	}
	c.client.HalfClosed()
	return true
}

// duplicate returns a duplicate of the socket, which gnet is about to close, and is not to hear of again.
func (c *Conn) duplicate() (int, error) {
	fd, err := c.sock.Dup()
	if err != nil {
		return -1, err
	}
	if err := unwatch(c.loop.epoll, c.sock.Fd()); err != nil {
		_ = unix.Close(fd) // the socket goes on
		return -1, err
	}
	return fd, nil
}

// ReadRest asks for a piece of the input that was left in the socket when the peer ended its side in a pause. It comes by
// Data, in a later turn. ReadRest reports false, and nothing comes, if there can be none.
func (c *Conn) ReadRest() bool {
	if c.state != halfClosed || !c.wasPaused {
		return false
	}
	if !c.wantsRest {
		c.wantsRest = true
		if !c.adopted() {
			c.loop.readers = append(c.loop.readers, c)
		}
	}
	return true
}

// readRest hands a piece of what is left in the socket to the client.
func (c *Conn) readRest(buf []byte) {
	c.wantsRest = false
	if c.state != halfClosed {
		return
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, buf) })
	if n <= 0 || err != nil {
		c.wasPaused = false
		c.client.Data(nil)
		return
	}
	if !c.input(buf[:n]) {
		c.ReadRest() // a part of a record
	}
}

// broken reports whether the connection has ended in both directions.
func (c *Conn) broken() bool {
	if !c.tcp {
		return false
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == tcpClose
}

// tcpClose is the state of a TCP connection that was reset: TCP_CLOSE of Linux.
const tcpClose = 7
