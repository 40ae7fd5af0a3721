package faults

import (
	"context"
	"net"
	"sync"
)

// linkState is what a link does with what it is given.
type linkState uint8

const (
	carries linkState = iota
	hangs             // keeps connections, and what is sent on them
	refuses           // ends all connections, and new ones
)

// link carries TCP connections to a member of etcd.
type link struct {
	address string // where it listens
	target  string
	ln      net.Listener
	running sync.WaitGroup

	mu    sync.Mutex
	cond  sync.Cond // for mu: the state has changed
	state linkState
	conns map[net.Conn]bool
	ended bool
}

// newLink returns a link to that address.
func newLink(target string) (*link, error) {
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{address: ln.Addr().String(), target: target, ln: ln, conns: make(map[net.Conn]bool)}
	l.cond.L = &l.mu
	l.running.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return // it is closed
			}
			l.running.Go(func() { l.join(near) })
		}
	})
	return l, nil
}

// set changes what the link does. One that hung and carries again passes on what it has kept.
func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	if state == refuses {
		l.endAll()
	}
	l.cond.Broadcast()
}

// endAll ends all connections. The caller has mu.
func (l *link) endAll() {
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// reset ends all connections. New ones are carried.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endAll()
}

// close ends the link.
func (l *link) close() {
	_ = l.ln.Close()
	l.mu.Lock()
	l.ended, l.state = true, refuses
	l.endAll()
	l.cond.Broadcast()
	l.mu.Unlock()
	l.running.Wait()
}

// passes waits while the link hangs, and reports whether it carries then.
func (l *link) passes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.state == hangs {
		l.cond.Wait()
	}
	return l.state == carries
}

// add notes connections, which are ended at once if the link carries none.
func (l *link) add(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		l.conns[conn] = true
		if l.state == refuses {
			_ = conn.Close()
		}
	}
}

// join carries one connection to its end.
func (l *link) join(near net.Conn) {
	l.add(near)
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, near)
		_ = near.Close()
	}()
	if !l.passes() {
		return
	}
	var dialer net.Dialer
	far, err := dialer.DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		return
	}
	l.add(far)
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, far)
		_ = far.Close()
	}()
	var there sync.WaitGroup
	there.Go(func() { l.carry(far, near) })
	l.carry(near, far)
	there.Wait()
}

// carry carries bytes, until one of the connections ends. Then both do.
func (l *link) carry(to, from net.Conn) {
	defer to.Close()   //nolint:errcheck // its end is all that matters
	defer from.Close() //nolint:errcheck // as above
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !l.passes() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
