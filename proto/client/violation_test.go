package client

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"dreadlock/proto"
)

// A server that is not a lock daemon is recognized at its first answer, and not asked again.
func TestNoAnswerToLock(t *testing.T) {
	for _, answer := range []string{
		"\n",
		"\r\n",
		"l\r\n",
		"l locked\n",
		"l locked \r\n",
		"L locked\r\n",
		"u unlocked\r\n",
		"e\r\n",
		"e \r\n",
		"f 1\r\n",
		"o owned\r\n",
		"n named 60000 00000000000000af\r\n",
		"e locked\n",
		"+PONG\r\n",
		strings.Repeat("x", 10*maxAnswer),
		"e " + strings.Repeat("x", maxAnswer) + "\r\n",
	} {
		t.Run(fmt.Sprintf("%.20q", answer), func(t *testing.T) {
			var attempts atomic.Int32
			c := newClient(t, listen(t, func(conn *net.TCPConn) {
				attempts.Add(1)
				takeLine(conn)
				reply(conn, answer)
				for takeLine(conn) {
				}
			}), Options{})
			_, err := c.TryLock(patient(t), "a")
			wantErr(t, err, ErrProtocol)
			if n := attempts.Load(); n != 1 {
				t.Errorf("%d attempts", n)
			}
			if len(err.Error()) > 300 {
				t.Errorf("%d bytes: %.99s", len(err.Error()), err)
			}
		})
	}
}

// A server that speaks first, such as one of SSH.
func TestGreeting(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		reply(conn, "SSH-2.0-x\r\n")
		for takeLine(conn) {
		}
	}), Options{})
	for range 50 {
		_, err := c.TryLock(patient(t), "a")
		wantErr(t, err, ErrProtocol)
	}
}

func TestHalfAnAnswer(t *testing.T) {
	for _, answer := range []string{"l", "l locked", "l locked\r", "e too many"} {
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn)
			reply(conn, answer)
		}), Options{Attempts: 2})
		_, err := c.TryLock(patient(t), "a")
		wantErr(t, err, ErrConnectionLost, io.ErrUnexpectedEOF)
	}
}

// An answer may arrive in pieces.
func TestAnswerInPieces(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		for _, answer := range []string{"l locked\r\n", "u unlocked\r\n"} {
			takeLine(conn)
			for i := range answer {
				reply(conn, answer[i:i+1])
			}
		}
		takeLine(conn)
	}), Options{})
	mustUnlock(t, mustLock(t, c, "a"))
}

// An error may have any text, such as one of a newer server. Its connection is not used again.
func TestServerErrors(t *testing.T) {
	for _, text := range []string{"already locked", "deadlock", "kicked", "e e"} {
		ended := make(chan struct{})
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn)
			reply(conn, "e "+text+"\r\n")
			takeLine(conn)
			close(ended)
		}), Options{})
		_, err := c.TryLock(patient(t), "a")
		wantText(t, err, text)
		mustEnd(t, "the end of the connection", ended)
	}
}

// Whatever a server answers to an unlock, the key is released: at the latest by the end of the connection.
func TestAnswersToUnlock(t *testing.T) {
	for _, tc := range []struct {
		answer, text string
	}{
		{"e not owner\r\n", "not owner"},
		{"e not locked\r\n", "not locked"},
		{"l locked\r\n", ""},
		{"t timeout\r\n", ""},
		{"unlocked\r\n", ""},
	} {
		ended := make(chan struct{})
		c := newClient(t, listen(t, func(conn *net.TCPConn) {
			takeLine(conn)
			reply(conn, "l locked\r\n")
			takeLine(conn)
			reply(conn, tc.answer)
			takeLine(conn)
			close(ended)
		}), Options{})
		err := mustLock(t, c, "a").Unlock(patient(t))
		if tc.text != "" {
			wantText(t, err, tc.text)
		} else {
			wantErr(t, err, ErrProtocol)
		}
		mustEnd(t, "the end of the connection", ended)
	}
}

// A second answer to one command is an error: otherwise the next command would take it for its own.
func TestAnswerTooMany(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		reply(conn, "t timeout\r\nl locked\r\n")
		takeLine(conn)
	}), Options{})
	for range 50 {
		_, err := c.TryLock(patient(t), "a")
		wantErr(t, err, ErrProtocol)
	}
}

// An answer right before the end of the connection counts, also if both are there when the caller looks.
func TestAnswerAndEnd(t *testing.T) {
	sock, other := net.Pipe()
	_, _ = sock.Close(), other.Close()
	cn := &conn{sock: sock, server: &introduction{}, answers: make(chan proto.Answer, 1), ended: make(chan struct{}), err: io.EOF}
	close(cn.ended)
	for range 50 {
		cn.answers <- proto.Answer{Reply: proto.TimedOut}
		_, err := cn.lock(patient(t), request{key: "a"})
		wantErr(t, err, ErrTimeout)
	}
	_, err := cn.lock(patient(t), request{key: "a"})
	wantErr(t, err, ErrConnectionLost, io.EOF)
}
