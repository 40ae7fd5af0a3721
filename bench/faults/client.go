package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// client is one connection whose commands and answers are recorded. It belongs to one goroutine at a time.
type client struct {
	lab     *lab
	session *session
	conn    net.Conn
	in      *bufio.Reader
	next    int // the oldest operation without an answer
}

// dialer makes a connection to the daemon.
type dialer func(ctx context.Context) (net.Conn, error)

// dial connects a client. It stops the case if the daemon cannot be reached.
func (l *lab) dial(from dialer) *client {
	c, err := l.tryDial(from)
	l.t.must(err)
	return c
}

// tryDial connects a client.
func (l *lab) tryDial(from dialer) (*client, error) {
	ctx, cancel := context.WithTimeout(l.t.ctx, patience)
	defer cancel()
	conn, err := from(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	c := &client{lab: l, session: l.history.add(), conn: conn, in: bufio.NewReader(conn)}
	l.keep(c)
	return c, nil
}

// command returns an operation that is about to be sent.
func command(v verb, key string, timeout time.Duration) operation {
	return operation{verb: v, key: key, timeout: timeout, answered: never, queued: never}
}

// text returns the command as it is sent.
func (op *operation) text() string {
	if op.verb == lock {
		return fmt.Sprintf("lock %s %d\r\n", op.key, op.timeout.Milliseconds())
	}
	return op.verb.String() + " " + op.key + "\r\n"
}

// send sends commands in one write. Their answers are read with answer.
func (c *client) send(commands ...operation) {
	var text strings.Builder
	at := now()
	for _, op := range commands {
		op.sent = at
		c.session.operations = append(c.session.operations, op)
		text.WriteString(op.text())
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.end(err)
		return
	}
	if _, err := c.conn.Write([]byte(text.String())); errors.Is(err, os.ErrDeadlineExceeded) {
		c.lab.t.violate("session %d: the daemon reads nothing for %s", c.session.id, patience)
		c.end(err)
	}
	// After any other error the read of the answer finds the end as well, with what was answered before.
}

// answer reads the answer of the oldest command that has none. It is empty if the connection has ended.
func (c *client) answer() string { return c.answerWithin(patience) }

// answerWithin is answer for commands that may take a while. It is a violation if the answer takes longer.
func (c *client) answerWithin(limit time.Duration) string {
	if c.next == len(c.session.operations) || c.session.ended != never {
		return ""
	}
	op := &c.session.operations[c.next]
	if err := c.conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		c.end(err)
		return ""
	}
	line, err := c.in.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c.session.lostAt() == never {
			c.lab.t.violate("session %d: %s %s was not answered within %s", c.session.id, op.verb, op.key, limit)
		}
		c.session.mayEnd() // so that it is reported once
		return ""
	}
	if err != nil {
		c.end(err)
		return ""
	}
	op.reply, op.answered = strings.TrimSuffix(line, "\r\n"), now()
	c.session.alive = max(c.session.alive, op.sent) // else there would be no answer
	c.next++
	return op.reply
}

// want reads answers and compares them. A wrong one is a violation, and so is a missing one, unless the connection may have ended.
func (c *client) want(replies ...string) {
	for _, want := range replies {
		if c.next == len(c.session.operations) {
			c.lab.t.fatal("session %d: it has sent no command to wait for", c.session.id)
		}
		op := c.session.operations[c.next]
		if got := c.answer(); got != want {
			if got != "" || c.session.lostAt() == never {
				c.lab.t.violate("session %d: %s %s: want %q, got %q", c.session.id, op.verb, op.key, want, got)
			}
			return
		}
	}
}

// lock locks a key and returns the answer, which is empty if the connection has ended.
func (c *client) lock(key string, timeout time.Duration) string {
	c.send(command(lock, key, timeout))
	return c.answerWithin(timeout + patience)
}

// unlock unlocks a key and returns the answer.
func (c *client) unlock(key string) string {
	c.send(command(unlock, key, 0))
	return c.answer()
}

// mustLock locks keys that must be free. It stops the case if one is not.
func (c *client) mustLock(keys ...string) {
	for _, key := range keys {
		if got := c.lock(key, 0); got != locked {
			c.lab.t.fatal("session %d: lock %s: want %q, got %q", c.session.id, key, locked, got)
		}
	}
}

// waits sends a lock that has to wait, and returns when the daemon has it in the queue as the nth waiter: from then on the
// order of arrival is known.
func (c *client) waits(key string, nth int) {
	c.send(command(lock, key, time.Hour))
	c.lab.awaitQueue(key, nth)
	c.session.operations[len(c.session.operations)-1].queued = now()
}

// confirm looks whether the daemon has the latest command in the queue of its key. Then its order of arrival is known.
func (c *client) confirm() { c.confirmAt(c.lab.daemon) }

// confirmAt is confirm for the daemon that the client is connected to.
func (c *client) confirmAt(d *daemon) {
	var k struct {
		Queue []struct {
			Address string `json:"address"`
		} `json:"queue"`
	}
	op := &c.session.operations[len(c.session.operations)-1]
	if d.get("/api/v1/keys/"+op.key+"?queue=1000", &k) != nil {
		return
	}
	for _, w := range k.Queue {
		if w.Address == c.conn.LocalAddr().String() {
			op.queued = now()
		}
	}
}

// end notes that the connection has ended, which err says, and closes it.
func (c *client) end(err error) {
	if c.session.ended == never {
		c.session.ended, c.session.cause = now(), err
	}
	_ = c.conn.Close()
}

// seesEnd reports whether the connection ends in time, without another answer.
func (c *client) seesEnd() bool { return c.seesEndWithin(patience) }

// seesEndWithin is seesEnd for an end that may take a while.
func (c *client) seesEndWithin(limit time.Duration) bool {
	if c.session.ended != never {
		return true
	}
	if c.conn.SetReadDeadline(time.Now().Add(limit)) != nil {
		return true
	}
	rest, err := c.in.ReadString('\n')
	switch {
	case rest != "":
		c.lab.t.violate("session %d: want the end of the connection, got %q", c.session.id, rest)
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false
	}
	c.end(err)
	return true
}

// close closes the connection with a FIN.
func (c *client) close() {
	c.session.mayEnd()
	_ = c.conn.Close()
}

// reset closes the connection with an RST.
func (c *client) reset() {
	c.session.mayEnd()
	if sock, ok := c.conn.(*net.TCPConn); ok {
		_ = sock.SetLinger(0)
	}
	_ = c.conn.Close()
}

// closeWrite closes the sending side.
func (c *client) closeWrite() {
	c.session.mayEnd()
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
