package faults

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// Clients that do not record what they do, since all of their answers are known beforehand. Each goes on until the end.

// fenceOn is fence, with its commands counted.
func (l *lab) fenceOn(key string) uint64 {
	unrecorded := l.unrecorded
	token := l.fence(key)
	l.unrecorded = unrecorded
	l.others.Add(2)
	return token
}

// until reports whether the end has not come, and the case goes on.
func (l *lab) until(end time.Time) bool { return time.Now().Before(end) && !l.t.stopped() }

// visit connects, locks, unlocks and ends, again and again.
func (l *lab) visit(end time.Time, n int) {
	key := fmt.Sprintf("visit%d", n)
	for l.until(end) {
		c := l.dial(l.near)
		c.mustLock(key)
		c.unlock(key)
		c.close()
		l.t.pause(5 * time.Millisecond)
	}
}

// stay waits for a time in which there may be none, one or more takeovers.
func (l *lab) stay() { l.t.pause(rand.N(1500 * time.Millisecond)) }

// raw is a connection whose answers are known beforehand, and checked but not recorded.
type raw struct {
	net.Conn
	lab *lab
	in  *bufio.Reader
	n   int // answers so far
}

func (l *lab) dialRaw() *raw {
	conn, err := l.near(l.t.ctx)
	l.t.must(err)
	return l.newRaw(conn)
}

// dialRawBy connects by the daemon's Unix socket, or by TCP. What does not read by a Unix socket is held back after little.
func (l *lab) dialRawBy(unix bool) *raw {
	if !unix {
		return l.dialRaw()
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(l.t.ctx, "unix", l.daemon.lock)
	l.t.must(err)
	return l.newRaw(conn)
}

func (l *lab) newRaw(conn net.Conn) *raw {
	l.t.cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(longWait))
	return &raw{Conn: conn, lab: l, in: bufio.NewReader(conn)}
}

// mustWrite writes all of it.
func (c *raw) mustWrite(text []byte) {
	_ = c.SetWriteDeadline(time.Now().Add(longWait))
	if _, err := c.Write(text); err != nil {
		c.lab.t.violate("another client: write: %v", err)
		c.lab.t.fatal("write: %w", err)
	}
}

// want reads answers, each as given, and counts the commands. It stops the case if one is missing or wrong.
func (c *raw) want(answer string, times int) {
	for range times {
		line, err := c.in.ReadSlice('\n')
		if err != nil || string(line) != answer+"\r\n" {
			c.lab.t.violate("another client, answer %d: want %q, got %q, %v", c.n, answer, line, err)
			c.lab.t.fatal("answers are lost")
		}
		c.n++
	}
	c.lab.others.Add(int64(times))
}

// sendAfterWait waits for a key and sends much behind that, so that it is held back. All is executed when it gets the key.
func (l *lab) sendAfterWait(end time.Time, n int) {
	gate, own := fmt.Sprintf("gate%d", n), fmt.Sprintf("own%d", n)
	const size = 200 << 10
	line := []byte("lock " + own + " 0\r\n")
	commands := size / len(line)
	for l.until(end) {
		keeper, sender := l.dialRaw(), l.dialRaw()
		keeper.mustWrite([]byte("lock " + gate + " 0\r\n"))
		keeper.want(locked, 1)
		sent := make(chan struct{})
		go func() { // it may be held back for as long as it waits
			defer close(sent)
			_, _ = sender.Write(append([]byte("lock "+gate+" 3600000\r\n"), bytes.Repeat(line, commands)...)) // an error costs answers
		}()
		l.stay()
		keeper.mustWrite([]byte("unlock " + gate + "\r\n"))
		keeper.want(unlocked, 1)
		sender.want(locked, 2)
		sender.want(alreadyLocked, commands-1)
		<-sent
		_ = sender.Close()
		_ = keeper.Close()
		l.awaitFree(gate, own)
	}
}

// awaitFree returns when nobody has the keys: the end of a connection takes a moment.
func (l *lab) awaitFree(keys ...string) {
	c := l.dialRaw()
	for _, key := range keys {
		c.mustWrite([]byte("lock " + key + " 5000\r\nunlock " + key + "\r\n"))
		c.want(locked, 1)
		c.want(unlocked, 1)
	}
	_ = c.Close()
}

// readLate sends until it is held back, since it does not read, and reads all answers later. What it sent last is part of a command.
func (l *lab) readLate(end time.Time, n int) {
	const refused = "unlock nobodys\r\n"
	more := bytes.Repeat([]byte(refused), 4000)
	for l.until(end) {
		c := l.dialRawBy(n%2 == 0)
		sent := 0
		for range 20 {
			_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			n, err := c.Write(more[sent%len(refused):]) // it goes on within the command
			if sent += n; err != nil {
				break
			}
		}
		l.stay()
		rest := (len(refused) - sent%len(refused)) % len(refused)
		written := make(chan struct{})
		go func() { // which may have to wait for the reading
			defer close(written)
			_ = c.SetWriteDeadline(time.Now().Add(longWait))
			_, _ = c.Write([]byte(refused[len(refused)-rest:])) // an error costs an answer
		}()
		c.want(notLocked, (sent+rest)/len(refused))
		<-written
		_ = c.Close()
	}
}

// halfClose sends commands, closes its sending side, and reads the answers later, to the end.
func (l *lab) halfClose(end time.Time, n int) {
	const commands = 15_000 // whose answers the daemon keeps, all of them
	for l.until(end) {
		c := l.dialRawBy(n%2 == 0)
		half, ok := c.Conn.(interface{ CloseWrite() error })
		if !ok {
			l.t.fatal("a %T has no sending side to close", c.Conn)
		}
		_, _ = c.Write(bytes.Repeat([]byte("unlock nobodys\r\n"), commands)) // an error costs answers
		_ = half.CloseWrite()
		l.stay()
		c.want(notLocked, commands)
		if rest, err := io.ReadAll(c.in); err != nil || len(rest) > 0 {
			l.t.violate("another client, half-closed, after all answers: %.40q, %v", rest, err)
		}
		_ = c.Close()
	}
}

// sendInPieces sends commands with pauses after every few bytes, and holds keys all the time.
func (l *lab) sendInPieces(end time.Time, n int) {
	key := "pieces" + strconv.Itoa(n)
	c := l.dialRaw()
	for l.until(end) {
		text := "lock " + key + " 1000\r\nfence " + key + "x\r\nunlock " + key + "\r\n"
		for len(text) > 0 {
			size := min(1+rand.N(6), len(text))
			c.mustWrite([]byte(text[:size]))
			text = text[size:]
			l.t.pause(rand.N(40 * time.Millisecond))
		}
		_ = c.SetReadDeadline(time.Now().Add(longWait))
		c.want(locked, 1)
		c.want(notLocked, 1)
		c.want(unlocked, 1)
	}
	_ = c.Close()
}
