package admin

import (
	"errors"
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

// Accept waits for a place, then for a connection. The others stay in the kernel's queue. After an error other than
// [net.ErrClosed], Accept can be called again.
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
		if !errors.Is(err, net.ErrClosed) {
			err = passing{err}
		}
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

// passing is an error after which [http.Server] accepts again, with a pause. It knows some of them, but takes a lack of memory
// or a connection that was lost early for the end of the listener: see accept(2).
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }
func (p passing) Unwrap() error { return p.error }
