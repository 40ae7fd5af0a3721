package reactor

import (
	"time"

	"golang.org/x/sys/unix"
)

// A TCP peer that acknowledges nothing is gone, or alive and does not read. The kernel can be told to end a connection when
// something is unacknowledged for too long (TCP_USER_TIMEOUT); it then ends both kinds. That is good enough for the few
// bytes of an answer, which find room in the buffers of any peer that is alive. When more is under way, the limit is
// lifted, and peerLost tells the kinds apart: a peer that is alive answers when it is asked whether it has room.

const (
	// checkBytes is how much is written before the kernel is asked what became of it: less than the smallest buffer of
	// a peer.
	checkBytes = 1 << 10
	// bulkBytes is how much may be unacknowledged right after it was written, because the peer may be late to say so.
	bulkBytes = 4 << 10
	// unansweredPackets is the number of packets without an answer after which silence means something. A kernel leaves out
	// an answer to a probe of its window that comes within half a second of the last, and the latest packet may be too
	// young for one.
	unansweredPackets = 3
)

// lag is what is known about a peer that does not take what it is sent.
type lag struct {
	received uint32 // packets that had come from it at the last look
	resent   uint32 // packets that had been sent to it again by then
}

// peerLost reports whether the host of a lagging peer is gone: packets to it find no answer, and none came for as long as
// a silent connection is kept. It learns from call to call.
func (c *Conn) peerLost() bool {
	lag := c.output.lag
	if lag == nil || !c.IsOpen() {
		return false
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	if info.Segs_in != lag.received {
		lag.received, lag.resent = info.Segs_in, info.Total_retrans
	}
	silent := time.Duration(info.Last_ack_recv) * time.Millisecond
	unanswered := info.Total_retrans - lag.resent + uint32(info.Probes)
	return unanswered >= unansweredPackets && silent >= c.loop.reactor.silence.limit
}

// check looks whether the peer takes what it is sent, after the latest bytes were written.
func (c *Conn) check(latest int) {
	c.unchecked = 0
	if !c.tcp {
		return
	}
	if n := c.unacknowledged(); n > latest || n >= bulkBytes {
		c.lift()
	}
}

// unacknowledged returns the number of bytes that the kernel still keeps for the peer.
func (c *Conn) unacknowledged() int {
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// lift lifts the limit on unacknowledged data and begins to watch the peer. The kernel is to ask a silent peer often
// enough to find out in time; before Linux 6.15 it may come to ask only every two minutes.
func (c *Conn) lift() {
	o := c.needOutput()
	c.watchPeer()
	if o.lag != nil || !c.tcp {
		return
	}
	o.lag = &lag{}
	c.limitUnacknowledged(0)
	often := max(c.loop.reactor.silence.limit/4, time.Second)
	_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(often.Milliseconds()))
}

// restore brings the limit back when everything has been acknowledged.
func (c *Conn) restore() {
	if o := c.output; o != nil && o.lag != nil && c.IsOpen() && len(o.unsent) == 0 && c.unacknowledged() == 0 {
		o.lag = nil
		c.limitUnacknowledged(c.loop.reactor.silence.limit)
	}
}

// keepAlive has the kernel probe a silent peer as it was told to: net.FileConn tells it something else.
func (c *Conn) keepAlive() {
	if !c.tcp {
		return
	}
	s := c.loop.reactor.silence
	// Fails only on a socket that has ended, which the loop is about to hear.
	_ = setOptions(c.fd, []option{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(s.idle.Seconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(s.interval.Seconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveProbes},
	})
}

// limitUnacknowledged sets how long data may be unacknowledged, 0 for ever.
func (c *Conn) limitUnacknowledged(limit time.Duration) {
	// Fails only on a socket that has ended, which the loop is about to hear.
	_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
}
