package reactor

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A TCP peer that says nothing is idle, or alive and does not read, or gone. At any moment one of two judges that:
//
//   - The kernel, while all that was written has been acknowledged. It probes a silent peer (keepalive), and ends the
//     connection at the first probe that finds it silent for as long as TCP_USER_TIMEOUT says. It counts from the last
//     segment that came, as we do.
//   - We, from the first write on until we look and find that all has been acknowledged. The kernel is no judge of that: it
//     counts from the first transmission of what is unacknowledged, so that a grant to a peer that has been silent would
//     start its time afresh; and it ends a peer that is alive and does not read, which answers when it is asked whether it
//     has room, but acknowledges nothing.
//
// Both end the connection [silence.limit] after the last segment from its peer or soon after, whatever is written meanwhile.
// What is relied on of Linux is in net/ipv4/tcp_timer.c: tcp_keepalive_timer, retransmits_timed_out, tcp_probe_timer, and
// tcp_rtx_probe0_timed_out, which ends a peer whose window has closed over data that is under way, when it was silent for
// twice TCP_RTO_MAX_MS.

const (
	// lookTime is the time between two looks at a peer of which something is expected.
	lookTime = 250 * time.Millisecond
	// unansweredPackets is the number of packets without an answer after which silence means something. A kernel leaves out
	// an answer to a probe of its window that comes within half a second of the last, and the latest packet may be too
	// young for one.
	unansweredPackets = 3
	// probeInterval is the time between the probes of a silent peer by keepalive: how late the kernel may notice that its
	// time is up. All of them must find no answer: as many as the keepalive has seconds.
	probeInterval = time.Second
	// minBackoff is the least that TCP_RTO_MAX_MS can be.
	minBackoff = time.Second
	// ourTime is the TCP_USER_TIMEOUT while we judge. Without one, the kernel would end a peer that drops what it has no
	// room for after 15 retransmissions, although it answers each. 24 days is the most that it takes.
	ourTime = 20 * 24 * time.Hour
)

// silence says when a silent peer is taken for lost.
type silence struct {
	idle  time.Duration // before the first probe
	limit time.Duration // for everything
}

func silenceOf(keepAlive time.Duration) silence {
	return silence{idle: keepAlive, limit: 2 * keepAlive}
}

// backoff is the longest time between two packets to a peer of which something is expected: short enough for all of
// unansweredPackets within the limit.
func (s silence) backoff() time.Duration { return max(s.limit/6, minBackoff) }

// patience is the backoff for a peer that has begun to be silent: its double, which ends the connection in the kernel, must
// not be less than the limit, and what is sent before that suffices.
func (s silence) patience() time.Duration { return max(s.limit/2, minBackoff) }

// doubted is the silence after which patience is due: an answer is missing.
func (s silence) doubted() time.Duration { return s.limit / 4 }

// firstLook is the time from a write to the first look at a peer that has just been heard of. That is early enough if it
// vanishes now, and so rare that it costs nothing to speak of for those who send one command after the other.
func (s silence) firstLook() time.Duration { return max(s.limit/8, lookTime) }

// judgement is what a connection has while we judge its peer. It belongs to the connection.
type judgement struct {
	timer  Timer // Tag: the connection. Running, except while we look and while the connection moves
	doubts bool  // the kernel has been told to be patient

	// At the last look that found that something had come from the peer:
	received uint32 // packets that had come
	resent   uint32 // packets that had been sent again
	expired  uint8  // times that its acknowledgement was overdue
}

// judgements are kept for reuse: a connection that has nothing to say to its peer needs none.
var judgements = sync.Pool{New: func() any { return new(judgement) }}

func newJudgement(c *Conn) *judgement {
	j := judgements.Get().(*judgement)
	*j = judgement{timer: Timer{Tag: c}}
	return j
}

// hear notes that something came from the peer.
func (c *Conn) hear() { c.heard = uint32(c.loop.Now() / time.Second) }

// judge begins to look at the peer, after something was written: soon if it may have been silent for long, as one that has
// waited for a key and is granted it.
func (c *Conn) judge() {
	c.judgement = newJudgement(c)
	if c.tcp {
		c.limitUnacknowledged(ourTime)
	}
	first := c.loop.reactor.silence.firstLook()
	if silent := c.loop.Now() - time.Duration(c.heard)*time.Second; silent >= first+time.Second {
		first = lookTime
	}
	c.lookIn(first)
}

// lookIn has look called after the time d, or up to lookTime later, so that a loop looks at many peers in one turn.
func (c *Conn) lookIn(d time.Duration) {
	c.loop.StartTimer(&c.judgement.timer, d+lookTime-c.loop.Now()%lookTime)
}

// stopJudging ends the looks at the peer, if there are any.
func (c *Conn) stopJudging() {
	if j := c.judgement; j != nil {
		c.loop.StopTimer(&j.timer)
		j.timer.Tag = nil
		judgements.Put(j)
		c.judgement = nil
	}
}

// look ends the connection of a peer that is lost, or that lingers and does not read. When everything has been acknowledged,
// it leaves the peer to the kernel.
func (c *Conn) look() {
	if !c.IsOpen() {
		return
	}
	lingers := c.last || c.state == halfClosed
	switch unsent := c.Unsent() > 0; {
	case !unsent && c.unacknowledged() == 0:
		c.leaveToKernel()
	case c.peerLost():
		c.end(os.NewSyscallError("write", unix.ETIMEDOUT))
	case lingers && unsent && c.loop.Now()-c.output.taken >= c.loop.reactor.cfg.Linger:
		c.end(errNotReading)
	default:
		c.lookIn(lookTime)
	}
}

// leaveToKernel ends our judgement: nothing is expected of the peer.
func (c *Conn) leaveToKernel() {
	if c.tcp {
		c.doubt(false)
		c.limitUnacknowledged(c.loop.reactor.silence.limit)
	}
	c.stopJudging()
}

// peerLost reports whether the host of the peer is gone: packets to it find no answer, and none came for as long as a silent
// connection is kept. It learns from call to call.
func (c *Conn) peerLost() bool {
	if !c.tcp {
		return false
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	j, s := c.judgement, &c.loop.reactor.silence
	if info.Segs_in != j.received {
		j.received, j.resent, j.expired = info.Segs_in, info.Total_retrans, info.Retransmits
	}
	silent := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	c.doubt(silent >= s.doubted())
	// What cannot leave, for want of a route, is not sent again but expires; what is dropped on the way out may count the other way.
	unanswered := max(info.Total_retrans-j.resent, uint32(info.Retransmits-j.expired)) + uint32(info.Probes)
	return unanswered >= unansweredPackets && silent >= s.limit
}

// doubt has the kernel be patient with a peer, or ask as often as usual.
func (c *Conn) doubt(doubts bool) {
	j, s := c.judgement, &c.loop.reactor.silence
	if doubts == j.doubts {
		return
	}
	j.doubts = doubts
	if doubts {
		limitBackoff(c.fd, s.patience())
	} else {
		limitBackoff(c.fd, s.backoff())
	}
}

// unacknowledged returns the number of bytes that the kernel still keeps for the peer.
func (c *Conn) unacknowledged() int {
	if !c.tcp {
		return 0
	}
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// keepAlive has the kernel probe a silent peer as it was told to: net.FileConn tells it something else.
func (c *Conn) keepAlive() {
	if c.tcp {
		// Fails only on a socket that has ended, which the loop is about to hear.
		_ = setOptions(c.fd, c.loop.reactor.silence.probes())
	}
}

// probes are the options of keepalive. The number of probes does not count where there is a TCP_USER_TIMEOUT.
func (s silence) probes() []option {
	return []option{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(s.idle.Seconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probeInterval.Seconds())},
	}
}

// limitUnacknowledged sets how long a silent peer is probed, and how long data may be unacknowledged.
func (c *Conn) limitUnacknowledged(limit time.Duration) {
	// Fails only on a socket that has ended, which the loop is about to hear.
	_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
}

// limitBackoff sets the longest time between two packets to a peer that does not acknowledge. Linux has that since 6.15;
// before, it may come to ask a peer that does not read only every two minutes.
func limitBackoff(fd int, limit time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(limit.Milliseconds()))
}
