package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dreadlock/proto"
)

// maxAnswer bounds the length of an answer in bytes; the longest that the daemon gives has 24.
const maxAnswer = 256

// conn is one connection to the server.
//
//	dialled ─► asking ── timed out, unlocked ──► idle ── taken ──► asking
//	             │ ▲                              │
//	      locked ▼ │ Unlock                       │
//	            held ───────────────────────────► ended ◄── from every state
//
// It belongs to one goroutine at a time, the one that runs Lock or Unlock with it, to the Client while it is idle, and
// to nobody while it is held. Its reader lives as long as the socket does, and sees the end of the connection in every
// state. At most one command is under way.
type conn struct {
	sock net.Conn
	out  []byte // the command; the owner's, and kept for its memory

	asking  atomic.Bool   // a command is under way: set by the owner, cleared by the reader with the answer
	answers chan string   // whole lines; has room for the one that is asked for
	ended   chan struct{} // closed by the reader when no answer will come any more
	err     error         // why; constant once ended is closed

	mu     sync.Mutex
	over   bool  // ended is closed or about to be
	holder *Lock // the lock to tell when the connection ends, if it is held
}

func newConn(sock net.Conn) *conn {
	c := &conn{sock: sock, answers: make(chan string, 1), ended: make(chan struct{})}
	go c.read()
	return c
}

// lock asks for a key and returns nil if the connection holds it now. The error is ErrTimeout, a *ServerError, an
// ErrProtocol, that of the context or an ErrConnectionLost. After all but the first the connection is closed.
func (c *conn) lock(ctx context.Context, key string, wait time.Duration) error {
	c.out = proto.AppendLock(c.out[:0], key, wait)
	answer, err := c.ask(ctx)
	if err != nil {
		return err
	}
	switch answer {
	case proto.Locked.Line():
		return nil
	case proto.TimedOut.Line():
		return ErrTimeout
	}
	return c.reject(answer)
}

// unlock gives a key up. After an error, one of those of lock, the connection is closed, which does the same.
func (c *conn) unlock(ctx context.Context, key string) error {
	c.out = proto.AppendUnlock(c.out[:0], key)
	answer, err := c.ask(ctx)
	if err != nil {
		return err
	}
	if answer == proto.Unlocked.Line() {
		return nil
	}
	return c.reject(answer)
}

// ask sends the command in out and returns the answer to it. After an error the connection is closed.
func (c *conn) ask(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		c.close()
		return "", err
	}
	c.asking.Store(true)
	// It does not block: the command before was answered, so the buffer of the socket is empty, and a command fits. If it
	// fails, then the reader sees why, and first what the server may have said before.
	_, _ = c.sock.Write(c.out)
	select {
	case answer := <-c.answers:
		return answer, nil
	case <-c.ended:
	case <-ctx.Done():
		c.close()
		return "", ctx.Err()
	}
	select {
	case answer := <-c.answers: // right before the end
		return answer, nil
	default:
	}
	var refusal *ServerError
	if errors.Is(c.err, ErrProtocol) || errors.As(c.err, &refusal) {
		return "", c.err
	}
	return "", lost(c.err)
}

// reject closes the connection for an answer that does not grant what was asked, and returns it as an error. What the
// server believes of this connection may not be what we believe: closed it holds nothing, for certain.
func (c *conn) reject(answer string) error {
	c.close()
	if refusal := refusalOf(answer); refusal != nil {
		return refusal
	}
	return fmt.Errorf("%w: %.60q", ErrProtocol, answer)
}

// hold makes l the holder, which is told when the connection ends. It fails if that has happened already.
func (c *conn) hold(l *Lock) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return lost(c.err)
	}
	c.holder = l
	return nil
}

// letGo takes the connection out of the hands of l, and reports whether it was in them.
func (c *conn) letGo(l *Lock) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder != l {
		return false
	}
	c.holder = nil
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

// read is the reader: it passes on the answers that are asked for, and ends with the connection.
func (c *conn) read() {
	err := c.pass()
	c.close()
	c.mu.Lock()
	c.err, c.over = err, true
	holder := c.holder
	c.holder = nil
	c.mu.Unlock()
	close(c.ended)
	if holder != nil {
		holder.lose(lost(err))
	}
}

// pass passes answers on until the connection ends or something comes that was not asked for.
func (c *conn) pass() error {
	in := bufio.NewReaderSize(c.sock, maxAnswer)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: %.60q and more", ErrProtocol, line)
		case errors.Is(err, io.EOF) && len(line) > 0:
			return fmt.Errorf("%w in the answer %q", io.ErrUnexpectedEOF, line)
		case err != nil:
			return err
		}
		answer := intern(line)
		if more := in.Buffered(); more > 0 { // a later request would take it for its own answer
			return fmt.Errorf("%w: %d bytes behind %.60q", ErrProtocol, more, answer)
		}
		if c.asking.CompareAndSwap(true, false) {
			c.answers <- answer
			continue
		}
		if refusal := refusalOf(answer); refusal != nil { // too many connections: it does not wait for a command
			return refusal
		}
		return fmt.Errorf("%w: %.60q was not asked for", ErrProtocol, answer)
	}
}

// intern returns a line as a string, the common ones without an allocation.
func intern(line []byte) string {
	switch string(line) {
	case proto.Locked.Line():
		return proto.Locked.Line()
	case proto.Unlocked.Line():
		return proto.Unlocked.Line()
	case proto.TimedOut.Line():
		return proto.TimedOut.Line()
	}
	return string(line)
}

// refusalOf returns an answer that begins with "e" as an error, nil for others.
func refusalOf(answer string) *ServerError {
	text, begins := strings.CutPrefix(answer, "e ")
	text, ends := strings.CutSuffix(text, "\r\n")
	if !begins || !ends {
		return nil
	}
	return &ServerError{Text: text}
}

// lost wraps the reason for which a connection ended.
func lost(reason error) error { return fmt.Errorf("%w: %w", ErrConnectionLost, reason) }
