package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"dreadlock/server/noise"
)

const (
	// maxOpen is the number of connections that are served at a time, at all addresses. The others of [MaxConnections] are
	// those that were accepted and wait for their place, one at each address.
	maxOpen = MaxConnections - MaxAddresses - 1
	// maxRequests is the number of requests at a time that hold their connection's place. What is left of maxOpen is the reserve
	// for health checks, and for whoever is told that the others are too many.
	maxRequests = maxOpen - 7
	// newcomerTime is the time that a connection has to send its request before another one may get its place. A request
	// comes right after the connection, so it is short: of many that say nothing, one leaves after another.
	newcomerTime = 5 * time.Millisecond
)

// limit bounds the connections of all listeners together. A new connection always gets a place, and soon: if all are taken, one
// that has no request under way is closed for it. Of these it is the one that has been silent longest, at the address that
// has the most of them, so who has few is not pushed out by who has many.
//
// Its mutex guards the connections as well, and is held only for a look at all of them.
type limit struct {
	streams *streams

	mu   sync.Mutex
	open map[*limitedConn]struct{} // at most maxOpen
	busy int                       // requests that hold a place, at most maxRequests
}

func newLimit() *limit {
	return &limit{streams: newStreams(), open: make(map[*limitedConn]struct{}, maxOpen)}
}

// share returns a listener that takes its places from the limit.
func (l *limit) share(listener net.Listener) net.Listener {
	return &limitedListener{Listener: listener, limit: l, closed: make(chan struct{})}
}

// enter gives a connection a place. It reports false if closed is closed first.
func (l *limit) enter(c *limitedConn, closed <-chan struct{}) bool {
	for {
		wait, ok := l.tryEnter(c)
		if ok {
			return true
		}
		select {
		case <-time.After(wait): // at most newcomerTime
		case <-closed:
			return false
		}
	}
}

// tryEnter gives a connection a place, or says how long it is to wait before another try.
func (l *limit) tryEnter(c *limitedConn) (wait time.Duration, ok bool) {
	l.mu.Lock()
	now := time.Now()
	var victim *limitedConn
	if len(l.open) >= maxOpen {
		victim = l.victim()
		if left := newcomerTime - now.Sub(victim.since); left > 0 {
			l.mu.Unlock()
			return left, false
		}
		delete(l.open, victim)
	}
	c.since = now
	l.open[c] = struct{}{}
	l.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close() // what was reading from it ends
	}
	return 0, true
}

// victim returns the connection that leaves for another one. There is always one: fewer requests hold a place than there are
// places. The caller has the mutex.
func (l *limit) victim() *limitedConn {
	crowd := make(map[noise.Source]int, maxOpen)
	for c := range l.open {
		if c.requests == 0 {
			crowd[c.from]++
		}
	}
	var victim *limitedConn
	for c := range l.open {
		switch {
		case c.requests > 0:
		case victim == nil, crowd[c.from] > crowd[victim.from],
			crowd[c.from] == crowd[victim.from] && c.since.Before(victim.since):
			victim = c
		}
	}
	return victim
}

// leave gives a place back, if the connection has one.
func (l *limit) leave(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// touch says that a connection is not silent.
func (l *limit) touch(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.since = time.Now()
}

// hold keeps a connection from losing its place as long as a request is under way, until release. It reports false if there
// are too many such requests.
func (l *limit) hold(c *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy >= maxRequests {
		return false
	}
	l.busy++
	c.requests++
	return true
}

// release undoes hold.
func (l *limit) release(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	c.requests--
	c.since = time.Now()
}

// placeKey finds the connection of a request in its context.
type placeKey struct{}

// remember is for [http.Server.ConnContext].
func (l *limit) remember(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, placeKey{}, c)
}

// placeOf returns the connection of a request.
func placeOf(r *http.Request) *limitedConn { return r.Context().Value(placeKey{}).(*limitedConn) }

// seeing passes on all requests.
func (l *limit) seeing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.touch(placeOf(r))
		next.ServeHTTP(w, r)
	})
}

// holding passes on requests while they hold the place of their connection, and refuses those beyond maxRequests. It comes
// after the guard: who may not ask holds no place.
func (l *limit) holding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := placeOf(r)
		if !l.hold(c) {
			w.Header().Set("Retry-After", "1")
			fail(w, http.StatusServiceUnavailable, "too many requests at a time")
			return
		}
		defer l.release(c)
		next.ServeHTTP(w, r)
	})
}

type limitedListener struct {
	net.Listener
	limit  *limit
	once   sync.Once
	closed chan struct{}
}

// Accept waits for a connection, then for its place. After an error other than [net.ErrClosed], Accept can be called again.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			err = passing{err}
		}
		return nil, err
	}
	c := &limitedConn{Conn: conn, limit: l.limit, from: noise.Remote(conn.RemoteAddr())}
	if !l.limit.enter(c, l.closed) {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close ends Accept.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn has a place until it is closed, or until another one gets it.
type limitedConn struct {
	net.Conn
	limit *limit
	from  noise.Source

	// These belong to the mutex of the limit.
	requests int       // that hold the place
	since    time.Time // when it was accepted, its last request came, or the last one that holds the place has ended
}

func (c *limitedConn) Close() error {
	defer c.limit.leave(c)
	return c.Conn.Close()
}

// passing is an error after which [http.Server] accepts again, with a pause. It knows some of them, but takes a lack of memory
// or a connection that was lost early for the end of the listener: see accept(2).
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }
func (p passing) Unwrap() error { return p.error }
