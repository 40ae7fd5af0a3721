package client

import (
	"context"
	"io"
	"net"
	"testing"
)

// wantLost expects that a holder is told of its loss in every way.
func wantLost(t *testing.T, l *Lock, reasons ...error) {
	t.Helper()
	mustEnd(t, "the loss", l.Lost())
	mustEnd(t, "the end of the context", l.Context().Done())
	reasons = append(reasons, ErrConnectionLost)
	wantErr(t, context.Cause(l.Context()), reasons...)
	for range 2 {
		wantErr(t, l.Unlock(patient(t)), reasons...)
	}
}

func TestServerEndsWhileHeld(t *testing.T) {
	address, stop := startServer(t, nil)
	c := newClient(t, address, Options{})
	a, b := mustLock(t, c, "a"), mustLock(t, c, "b")
	stop()
	wantLost(t, a)
	wantLost(t, b)
	startServer(t, at(address))
	mustUnlock(t, mustLock(t, c, "a"))
}

// A holder is told of its loss without asking, and no other lock is affected.
func TestConnectionEndsWhileHeld(t *testing.T) {
	address, _ := startServer(t, nil)
	r := startRelay(t, address)
	through, direct := newClient(t, r.address, Options{}), newClient(t, address, Options{})
	lost, kept := mustLock(t, through, "a"), mustLock(t, direct, "b")
	r.cut()
	wantLost(t, lost)
	next := mustLock(t, direct, "a")
	mustUnlock(t, next)
	if isClosed(kept.Lost()) {
		t.Error("the other lock is lost too")
	}
	mustUnlock(t, kept)
}

// An answer to a holder that asked for nothing can only mean that the lock is gone.
func TestUnaskedAnswerToHolder(t *testing.T) {
	say := make(chan string, 1)
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		reply(conn, "l locked\r\n")
		reply(conn, <-say)
		takeLine(conn) // the end
	}), Options{})
	for word, reason := range map[string]error{
		"e evicted\r\n":  nil,
		"u unlocked\r\n": ErrProtocol,
		"l locked\r\n":   ErrProtocol,
	} {
		l := mustLock(t, c, "a")
		say <- word
		if reason != nil {
			wantLost(t, l, reason)
			continue
		}
		wantLost(t, l)
		wantText(t, context.Cause(l.Context()), "evicted")
	}
}

// The grant and the end of the connection arrive together: the caller gets an error, or a lock that is lost at once.
func TestGrantAndEnd(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		reply(conn, "l locked\r\n")
	}), Options{Attempts: 1})
	for range 100 {
		l, err := c.TryLock(patient(t), "a")
		if err != nil {
			wantErr(t, err, ErrConnectionLost, io.EOF)
			continue
		}
		wantLost(t, l, io.EOF)
	}
}

// A connection that ends during an unlock frees the key as well. That is not a loss: the holder has finished its work.
func TestConnectionEndsWhileUnlocking(t *testing.T) {
	c := newClient(t, listen(t, func(conn *net.TCPConn) {
		takeLine(conn)
		reply(conn, "l locked\r\n")
		takeLine(conn)
	}), Options{})
	l := mustLock(t, c, "a")
	wantErr(t, l.Unlock(patient(t)), ErrConnectionLost)
	wantErr(t, context.Cause(l.Context()), ErrUnlocked)
	if isClosed(l.Lost()) {
		t.Error("lost by Unlock")
	}
}
