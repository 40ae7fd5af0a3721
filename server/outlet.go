package server

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/reactor"
)

const (
	// A session with unsent output looks at first after the shorter time whether the client has read, later less and
	// less often: gnet tells nobody that its buffer has drained.
	firstPoll = 10 * time.Millisecond
	lastPoll  = 250 * time.Millisecond

	// patience is how long a client that has ended may take to read the next of its answers. One that is served may
	// take for ever, as long as its host answers.
	patience = 10 * time.Second
)

// outlet is what a session needs to send what cannot be sent at once: a timer to look again, and after the end of the
// input a socket of its own. It is made when it is needed first, which for most sessions is never.
type outlet struct {
	timer  reactor.Timer // Tag: the session
	delay  time.Duration // until the next look
	quiet  time.Duration // since the client last read something
	before int           // bytes unsent at the last look

	fd     int    // duplicate of the connection's descriptor when that is closed, else -1
	unsent []byte // what fd did not take
}

func (s *session) needOutlet() *outlet {
	if s.outlet == nil {
		s.outlet = &outlet{fd: -1}
		s.outlet.timer.Tag = s
	}
	return s.outlet
}

// open makes fd, which is non-blocking, the socket to write to.
func (o *outlet) open(fd int) { o.fd = fd }

func (o *outlet) close() {
	if o.fd >= 0 {
		_ = unix.Close(o.fd)
		o.fd, o.unsent = -1, nil
	}
}

// write sends p behind what is unsent and reports whether the socket still works.
func (o *outlet) write(p []byte) bool {
	o.unsent = append(o.unsent, p...)
	for len(o.unsent) > 0 {
		n, err := unix.Write(o.fd, o.unsent)
		switch {
		case err == nil:
			o.unsent = o.unsent[n:]
		case errors.Is(err, unix.EAGAIN):
			return true
		case !errors.Is(err, unix.EINTR):
			o.unsent = nil
			return false
		}
	}
	o.unsent = nil
	return true
}

// flush sends the answers of this turn. If that breaks the connection, the session has ended when it returns.
func (s *session) flush() {
	out := s.shard.out
	if len(out) == 0 {
		return
	}
	s.shard.out = out[:0]
	if o := s.outlet; o == nil || o.fd < 0 {
		s.conn.Write(out)
	} else if !o.write(out) {
		s.end(broken)
		s.vanish() // nothing else will: the connection is closed, and the poll need not be running
	}
	if s.unsent() > 0 || s.conn.Lagging() {
		s.watchOutlet()
	}
}

// unsent returns the number of bytes that the client has to read before more can be sent.
func (s *session) unsent() int {
	if o := s.outlet; o != nil && o.fd >= 0 {
		return len(o.unsent)
	}
	return s.conn.Unsent()
}

// watchOutlet starts to poll.
func (s *session) watchOutlet() {
	o := s.needOutlet()
	if !o.timer.Running() {
		o.delay, o.quiet, o.before = firstPoll, 0, s.unsent()
		s.shard.loop.StartTimer(&o.timer, o.delay)
	}
}

// poll looks whether the client has read.
func (s *session) poll() {
	if s.shard.closed {
		return
	}
	o := s.outlet
	if o.fd >= 0 && !o.write(nil) {
		s.end(broken)
	}
	if unsent := s.unsent(); unsent < o.before {
		o.delay, o.quiet = firstPoll, 0
	} else {
		o.quiet += o.delay
		o.delay = min(2*o.delay, lastPoll)
	}
	if s.stalled {
		s.resume()
		s.regulate()
	}
	if s.phase == gone {
		return
	}
	o.before = s.unsent()
	switch {
	case s.phase == ended && o.before == 0:
		s.hangUp()
	case s.phase == serving && s.conn.PeerLost(), s.phase != serving && o.quiet >= patience:
		s.end(broken)
		s.hangUp()
	case (o.before > 0 || s.conn.Lagging()) && !o.timer.Running():
		s.shard.loop.StartTimer(&o.timer, o.delay)
	}
}
