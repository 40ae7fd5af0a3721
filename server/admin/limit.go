package admin

import (
	"net"
	"sync"
)

// limit bounds the connections of all listeners together: each has a place, and so has each listener that waits for one. So
// an address where nobody has asked for a while has a place for the next one, however many crowd at another.
type limit chan struct{}

// share returns a listener that takes its places from the limit.
func (l limit) share(listener net.Listener) net.Listener {
	return &limitedListener{Listener: listener, places: l, closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	places limit
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a place, then for a connection. The others stay in the kernel's queue.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	leave := sync.OnceFunc(func() { <-l.places })
	conn, err := l.Listener.Accept()
	if err != nil {
		leave()
		return nil, err
	}
	return &limitedConn{conn, leave}, nil
}

// Close ends Accept.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn has a place until it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
