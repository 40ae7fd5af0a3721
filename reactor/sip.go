package reactor

import "golang.org/x/sys/unix"

// gnet reads up to 16 KiB of a connection at a time, and what the client cannot use yet it has to keep. Where memory is short
// that is too much for each of many: a paused connection can be read in sips.

// sipBytes is what is read of a paused connection at a time.
const sipBytes = 2 << 10

// Sip asks for a little of the input of a connection that is paused. It comes by Data, in a later turn, unless there is none
// or the connection is not paused any more by then.
func (c *Conn) Sip() {
	if c.state == connected && c.paused && !c.wantsSip {
		c.wantsSip = true
		if !c.adopted() {
			c.loop.sippers = append(c.loop.sippers, c)
		}
	}
}

// takeSips reads for connections that want it, as far as the turn may.
func (l *Loop) takeSips() {
	if len(l.sippers) == 0 {
		return
	}
	if l.buf == nil {
		l.buf = make([]byte, readPiece)
	}
	all := l.sippers
	l.sippers = nil // sip may add to them
	for i, c := range all {
		if !l.Spend(1) {
			l.sippers = append(all[i:], l.sippers...)
			return
		}
		c.sip(l.buf[:sipBytes])
	}
}

// sip hands a little of what is in the socket to the client. What ends the connection is gnet's to notice.
func (c *Conn) sip(buf []byte) {
	c.wantsSip = false
	if c.state != connected || !c.paused || c.Unsent() > 0 {
		return
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, buf) })
	if err == nil && n > 0 {
		c.input(buf[:n])
	}
}
