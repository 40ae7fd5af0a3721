package reactor

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A connection is handed to another process while the loops of both stand still: its socket, and a [ConnState]. The process that
// has it changes nothing, so it can go on if the other one fails:
//
//	Conn.Export ──► socket, ConnState ──► Loop.Adopt ──► ... ──► Heir.Begin: the first byte is read or written
//
// Until then an adopted connection is in no epoll instance. What is asked of it is noted, and output is kept.

// ConnState is what a connection is beside its socket. It is made for encoding/gob: fields may be added, and what is missing
// is zero. All times are since the start of the reactor, which both processes have in common: see [Config.Start].
type ConnState struct {
	TCP        bool          // else it is a Unix socket
	HalfClosed bool          // the peer has ended its side
	Paused     bool          // reading is paused
	WasPaused  bool          // it has been paused at any time
	WantsRest  bool          // a piece was asked for by [Conn.ReadRest]
	WantsSip   bool          // a piece was asked for by [Conn.Sip]
	Last       bool          // it is to be closed after its output
	Judged     bool          // the peer is watched by us, not by the kernel: something was written
	Doubted    bool          // the kernel was told to be patient with the peer
	Heard      uint32        // seconds: when something came from the peer
	Unsent     []byte        // output that waits for the peer
	Taken      time.Duration // when the peer last took some of that
}

// watchLater is the interest of an adopted connection until it begins: it is in no epoll instance.
const watchLater interest = unix.EPOLLEXCLUSIVE

// adopted reports whether the connection has not begun yet, after it was adopted.
func (c *Conn) adopted() bool { return c.watching == watchLater }

// Export returns the socket and the state of a connection that is open and not encrypted, for another process. Nothing changes. The
// state refers to the connection's memory, so it must be encoded while the loop stands still.
func (c *Conn) Export() (fd int, state ConnState) {
	if !c.IsOpen() || c.tls != nil {
		panic(fmt.Sprintf("reactor: a connection in the state %d is exported, encrypted: %t", c.state, c.tls != nil))
	}
	state = ConnState{
		TCP: c.tcp, HalfClosed: c.state == halfClosed,
		Paused: c.paused, WasPaused: c.wasPaused, WantsRest: c.wantsRest, WantsSip: c.wantsSip, Last: c.last,
		Judged: c.judgement != nil, Doubted: c.judgement != nil && c.judgement.doubts,
		Heard: c.heard,
	}
	if c.Unsent() > 0 {
		state.Unsent, state.Taken = c.output.unsent, c.output.taken
	}
	return c.fd, state
}

// Encrypted reports whether the connection has TLS.
func (c *Conn) Encrypted() bool { return c.tls != nil }

// Farewell tells the peer of an encrypted connection that nothing more comes: by TLS, unless output is unsent, then by the end of
// the stream. It is for a process that is about to exit, and closes nothing. What has come and was not read is dropped, or the
// kernel would answer it by a reset, which may overtake the rest.
func (c *Conn) Farewell() {
	if !c.IsOpen() || c.tls == nil {
		return
	}
	c.CloseWrite()
	l := c.loop
	if l.buf == nil {
		l.buf = make([]byte, readPiece)
	}
	for range maxRests {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, l.buf) })
		if n <= 0 || err != nil {
			return
		}
	}
}

// Adopt makes a connection of client from the socket fd and the state that [Conn.Export] has returned. The loop must stand still
// before [Heir.Begin], and have room: see [Heir.Room]. From now on the socket is the connection's, and fd may be closed. Until Begin
// the client hears nothing, and never Opened. What it writes, pauses or asks for is noted; it must not call CloseWrite, which the peer
// would see. After an error, fd is still the caller's.
func (l *Loop) Adopt(client Client, fd int, state ConnState) error {
	c := client.Conn()
	adopted := Conn{
		client: client, loop: l, fd: fd, watching: watchLater, state: halfClosed,
		tcp: state.TCP, heard: state.Heard,
		paused: state.Paused, wasPaused: state.WasPaused, wantsRest: state.WantsRest, wantsSip: state.WantsSip, last: state.Last,
	}
	if !state.HalfClosed {
		sock, err := l.takeBlank(fd)
		if err != nil {
			return err
		}
		adopted.sock, adopted.fd, adopted.state = sock, sock.Fd(), connected
	}
	*c = adopted
	if state.HalfClosed {
		l.halfClosed[c] = struct{}{}
	} else {
		c.sock.SetContext(c)
	}
	if len(state.Unsent) > 0 {
		c.output = &output{unsent: state.Unsent, taken: state.Taken}
		c.recount()
	}
	if state.Judged {
		c.judgement = newJudgement(c)
		c.judgement.doubts = state.Doubted
	}
	l.adopted = append(l.adopted, c)
	return nil
}

// begin serves the connections that the loop has adopted, which have had the given silence. It runs in a turn.
func (l *Loop) begin(had silence) {
	for _, c := range l.adopted {
		c.begin(had)
	}
	l.adopted = nil
}

// begin serves an adopted connection. One for which that fails ends.
func (c *Conn) begin(had silence) {
	c.watching = watchNothing
	if !c.IsOpen() {
		return
	}
	if c.state == connected {
		want := c.wanted()
		if err := watchAdopted(c.loop.epoll, c.fd, want); err != nil {
			c.end(fmt.Errorf("take over a connection: %w", err))
			return
		}
		c.watching = want
	}
	if s := c.loop.reactor.silence; c.tcp && s != had {
		c.adjustSilence(s)
	}
	if c.wantsRest {
		c.loop.readers = append(c.loop.readers, c)
	}
	if c.wantsSip {
		c.loop.sippers = append(c.loop.sippers, c)
	}
	if c.Unsent() > 0 {
		c.watchOutput()
	}
	switch {
	case c.judgement != nil:
		c.lookIn(lookTime)
	case c.Unsent() > 0:
		c.judge()
	}
}

// adjustSilence gives the socket the options that it would have inherited from a listener: see setInherited.
func (c *Conn) adjustSilence(s silence) {
	c.keepAlive()
	if c.judgement == nil {
		c.limitUnacknowledged(s.limit)
	}
	if c.judgement != nil && c.judgement.doubts {
		limitBackoff(c.fd, s.patience())
	} else {
		limitBackoff(c.fd, s.backoff())
	}
}
