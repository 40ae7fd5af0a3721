package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"dreadlock/proto"
)

const (
	// maxAnswer bounds the length of an answer in bytes; proto.MaxReply is the longest that has numbers.
	maxAnswer = 256
	// maxAsked is the largest number of commands in one write: name, owner, lock, fence.
	maxAsked = 4
	// maxWrite bounds a write in bytes: two of its commands have a key, which may be long.
	maxWrite = 2*proto.MaxCommand + 2*(len("owner \r\n")+proto.MaxName)
	// sendBuffer is the size in bytes of a socket's buffer for what it sends, with room for what the kernel adds.
	sendBuffer = 4 * maxWrite
)

// conn is one connection to the server.
//
//	connected ─► asking ── timed out, unlocked ──► idle ── taken ──► asking
//	               │ ▲                              │
//	        locked ▼ │ Unlock                       │
//	              held ───────────────────────────► ended ◄── from every state
//
// It belongs to one goroutine at a time: the one that runs Lock or Unlock on it. While it is idle it belongs to the Client,
// and while it is held to whoever has mu. Its reader lives as long as the socket does, and sees the end of the connection in every
// state. At most the commands of one write are outstanding, and before them a heartbeat and the owners that it was given while
// it was held.
type conn struct {
	sock      net.Conn      // a *net.TCPConn, *tls.Conn or *net.UnixConn
	to        endpoint      // at its other end
	dialled   time.Time     // before it was
	tables    *tables       // of its client
	keepAlive time.Duration // Options.KeepAlive and Heartbeat
	heartbeat time.Duration
	out       []byte    // the commands to write; reused
	asked     time.Time // when they were written

	server  *introduction // the answer to the name; nil if it has none
	silence Silence       // what is done about it while the connection is held; follows from server
	owner   string        // that was said last; empty if none was
	older   bool          // the server is known not to have names, owners and tokens, which came together

	owed    atomic.Int32      // answers that are outstanding: set with a write, lowered by the reader
	aside   atomic.Int32      // answers to owners and a heartbeat that come before these, and that nobody waits for
	answers chan proto.Answer // has room for all that are owed
	ended   chan struct{}     // closed by the reader after the last answer
	err     error             // why the connection ended; constant once ended is closed

	mu      sync.Mutex
	over    bool  // ended is closed or about to be
	dropped error // why it is not to be used any more, whatever comes; nil unless drop was called
	holder  *Lock // notified when the connection ends; nil unless the connection is held
	joined  bool  // it has the owner of a wait that goes on under the holder
	pulse   pulse
}

func (c *Client) newConn(sock net.Conn, to endpoint, dialled time.Time) *conn {
	cn := &conn{
		sock: sock, to: to, dialled: dialled, tables: &c.tables, keepAlive: c.options.KeepAlive, heartbeat: c.options.Heartbeat,
		answers: make(chan proto.Answer, maxAsked), ended: make(chan struct{}),
	}
	cn.silence = agree(cn.isRemote(), cn.keepAlive, cn.heartbeat, nil)
	go cn.read()
	return cn
}

// request is what one write asks for.
type request struct {
	name, owner string // of the connection, said first; empty for what is not to be said
	key         string
	wait        time.Duration
	fence       bool // ask for the token of the grant
}

// append appends the commands of the request, and returns how many there are.
func (r *request) append(out []byte) ([]byte, int) {
	n := 1
	if r.name != "" {
		out, n = proto.AppendName(out, r.name), n+1
	}
	if r.owner != "" {
		out, n = proto.AppendOwner(out, r.owner), n+1
	}
	out = proto.AppendLock(out, r.key, r.wait)
	if r.fence {
		out, n = proto.AppendFence(out, r.key), n+1
	}
	return out, n
}

// lock asks for a key. Without an error the connection holds it. The error is ErrTimeout, ErrConnectionLost, ErrHandshake,
// ErrProtocol, a *ServerError, a *TablesError or that of the context; after all but the first the connection is closed. It is also
// errNameless if the connection ended before its name was answered.
func (c *conn) lock(ctx context.Context, r request) (token uint64, err error) {
	out, n := r.append(c.out[:0])
	c.out = out
	if err := c.send(ctx, n); err != nil {
		return 0, err
	}
	if r.name != "" {
		if err := c.named(ctx); err != nil {
			return 0, err
		}
		if err := c.tables.admit(ctx, c); err != nil {
			c.close()
			return 0, err
		}
	}
	if r.owner != "" {
		c.owner = r.owner
		if err := c.owned(ctx); err != nil {
			return 0, err
		}
	}
	locked, err := c.next(ctx)
	switch {
	case err != nil:
		return 0, err
	case locked.Reply != proto.Locked && locked.Reply != proto.TimedOut:
		return 0, c.reject(locked)
	}
	if r.fence {
		fenced, err := c.next(ctx)
		switch {
		case errors.Is(err, ErrConnectionLost):
			return 0, fmt.Errorf("%w, before the fencing token, which an older server does not have", err)
		case err != nil:
			return 0, err
		case !fits(locked.Reply, fenced.Reply):
			return 0, c.reject(fenced)
		}
		token = fenced.Token
	}
	if locked.Reply == proto.TimedOut {
		return 0, ErrTimeout
	}
	if c.silence.Heartbeat > 0 && time.Since(c.asked) >= c.silence.Lost/2 {
		return token, c.confirm(ctx, r.key)
	}
	return token, nil
}

// fits reports whether the answer to a fence can follow that to a lock.
func fits(locked, fenced proto.Reply) bool {
	if locked == proto.Locked {
		return fenced == proto.Token
	}
	return fenced == proto.NotOwner || fenced == proto.NotLocked
}

// unlock releases a key. After an error, one of those of lock, the connection is closed, which releases it as well.
func (c *conn) unlock(ctx context.Context, key string) error {
	c.out = proto.AppendUnlock(c.out[:0], key)
	answer, err := c.ask(ctx, 1)
	if err != nil {
		return err
	}
	if answer.Reply == proto.Unlocked {
		return nil
	}
	return c.reject(answer)
}

// ask sends the commands in out, n of them, and returns the answer to the first. After an error the connection is closed.
func (c *conn) ask(ctx context.Context, n int) (proto.Answer, error) {
	if err := c.send(ctx, n); err != nil {
		return proto.Answer{}, err
	}
	return c.next(ctx)
}

// send sends the commands in out, n of them. The error is that of the context; the connection is closed then.
func (c *conn) send(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil {
		c.close()
		return err
	}
	c.owed.Store(int32(n))
	c.asked = time.Now()
	// Write does not block: all earlier commands but a heartbeat were answered, so the buffer of the socket is as good as empty,
	// and these fit. If it fails, the reader finds out why, and before that reads what the server may have sent.
	_, _ = c.sock.Write(c.out)
	return nil
}

// next returns the next answer that is owed. After an error the connection is closed.
func (c *conn) next(ctx context.Context) (proto.Answer, error) {
	select {
	case answer := <-c.answers:
		return answer, nil
	case <-c.ended:
	case <-ctx.Done():
		c.close()
		return proto.Answer{}, ctx.Err()
	}
	select {
	case answer := <-c.answers: // it came right before the end
		return answer, nil
	default:
	}
	var refusal *ServerError
	if errors.Is(c.err, ErrProtocol) || errors.Is(c.err, ErrHandshake) || errors.As(c.err, &refusal) {
		return proto.Answer{}, c.err
	}
	return proto.Answer{}, lost(c.err)
}

// reject closes the connection after an unexpected answer, which it returns as an error. Server and client may disagree
// about what this connection holds; once it is closed it holds nothing, for certain.
func (c *conn) reject(answer proto.Answer) error {
	c.close()
	return refusalOf(answer, "does not answer the command")
}

// hold makes l the holder, which is notified when the connection ends. It fails if the connection has ended already.
func (c *conn) hold(l *Lock) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return lost(c.err)
	case c.dropped != nil:
		return lost(c.dropped)
	}
	c.holder = l
	l.silence = c.silence
	if c.silence.Heartbeat > 0 {
		c.startPulse()
	}
	return nil
}

// letGo takes the connection from l, and reports whether l was the holder.
func (c *conn) letGo(l *Lock) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder != l {
		return false
	}
	c.holder, c.joined = nil, false
	c.stopPulse()
	return true
}

// alive reports whether the connection has not ended, as far as the reader knows.
func (c *conn) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// close closes the socket; the reader ends by that.
func (c *conn) close() { _ = c.sock.Close() }

// read is the reader: it passes on the answers that are outstanding, and ends with the connection.
func (c *conn) read() {
	err := c.pass()
	c.close()
	c.mu.Lock()
	if c.dropped != nil {
		err = c.dropped
	}
	c.err, c.over = err, true
	if c.pulse.timer != nil {
		c.pulse.timer.Stop()
	}
	if l := c.holder; l != nil {
		c.holder = nil
		l.lose(lost(err)) // before anybody can see that it is no longer the holder
	}
	c.mu.Unlock()
	close(c.ended)
	c.tables.remove(c)
}

// pass passes answers on until the connection ends or an answer comes that was not asked for.
func (c *conn) pass() error {
	in := bufio.NewReaderSize(c.sock, maxAnswer)
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		switch {
		case first && isAlert(err):
			return refused(err)
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: %.60q and more", ErrProtocol, line)
		case errors.Is(err, io.EOF) && len(line) > 0:
			return fmt.Errorf("%w in the answer %q", io.ErrUnexpectedEOF, line)
		case err != nil:
			return err
		}
		answer, err := proto.ParseReply(line)
		if err != nil {
			return fmt.Errorf("%w: %.60q", ErrProtocol, line)
		}
		owed, aside := c.owed.Load(), c.aside.Load()
		if more := in.Buffered(); more > 0 && owed+aside <= 1 { // a later command would take it for its own answer
			return fmt.Errorf("%w: %d bytes after %.60q", ErrProtocol, more, line)
		}
		if aside > 0 {
			if err := c.takeAside(answer); err != nil {
				return err
			}
			continue
		}
		if owed == 0 { // such as too many connections, which answers no command
			return refusalOf(answer, "was not asked for")
		}
		c.owed.Store(owed - 1)
		c.answers <- answer
	}
}

// refusalOf returns the error of a server as a *ServerError, and any other answer as an ErrProtocol.
func refusalOf(answer proto.Answer, wrong string) error {
	if answer.Text != "" {
		return &ServerError{Text: answer.Text}
	}
	return fmt.Errorf("%w: %q %s", ErrProtocol, answer.Reply.Outcome(), wrong)
}

// lost wraps the reason why a connection ended.
func lost(reason error) error { return fmt.Errorf("%w: %w", ErrConnectionLost, reason) }
