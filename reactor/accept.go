package reactor

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Accepting is a goroutine for each listener. A few carriers bring the connections of all to their loops, and wait there until a
// loop has taken what they bring; only who has to be prepared has a goroutine of his own before that:
//
//	acceptor: accept, Admit ──► (goroutine: Prepare) ──► carrier: enroll ──► loop: Handler.Accept, Client.Opened, then Data
//
// No error ends a listener. After one that is about a connection the next is accepted; in a shortage the acceptor pauses, and the
// connections wait in the kernel's queue.

const (
	// MaxPreparing is the number of connections of one listener whose [Listener.Prepare] runs at a time. The next ones wait in the
	// kernel's queue.
	MaxPreparing = 128
	// carriers is the number of connections that are brought to a loop at a time. Each takes two descriptors.
	carriers = 16

	firstPause = 5 * time.Millisecond
	longPause  = time.Second
	// warnEvery is the time between two warnings about the errors of one listener.
	warnEvery = time.Second
	// scarceTime is how long descriptors are counted before each connection, after there were too few.
	scarceTime = 10 * time.Second
	// patientErrors is the number of connections in a row that may fail, each by itself, before it is taken for a shortage.
	patientErrors = 16
)

// Listener is one way in.
type Listener struct {
	net.Listener
	// Admit is asked on the acceptor's goroutine for every connection. What it returns goes to [Handler.Accept]; without ok
	// the connection is closed at once. It must not block. Nil admits everything.
	Admit func(conn net.Conn) (info any, ok bool)
	// Prepare, if set, does what must be done before a loop gets the connection: read a header, shake hands. It runs on a
	// goroutine of its own, and must return soon when ctx is done. After an error the connection is closed.
	Prepare func(ctx context.Context, conn net.Conn, info any) (Prepared, error)
}

// Prepared is a connection's part of what [Listener.Prepare] has done.
type Prepared struct {
	// Input was read from the connection already, and is the client's first.
	Input []byte
	// TLS encrypts the connection, nil if nothing does.
	TLS *TLS
}

// acceptor takes the connections of one listener.
type acceptor struct {
	*Listener
	reactor   *Reactor
	preparing chan struct{} // a token for each connection that is prepared
	failed    int           // errors of accept in a row
	pause     time.Duration // after the next of them

	mu     sync.Mutex // the rest is reached by carriers as well
	untold int        // errors since the last warning
	warned time.Time  // when that was
	lacked time.Time  // when there were too few descriptors, last
}

// startAccepting serves all listeners until they are closed and ctx is done.
func (r *Reactor) startAccepting(ctx context.Context) {
	r.gate.start(ctx)
	for range carriers {
		r.transit.run(func() { r.carry(ctx) })
	}
	for _, l := range r.cfg.Listeners {
		a := &acceptor{Listener: l, reactor: r, preparing: make(chan struct{}, MaxPreparing)}
		r.transit.run(func() { a.run(ctx) })
	}
}

// run accepts until the listener is closed.
func (a *acceptor) run(ctx context.Context) {
	for {
		period := a.reactor.gate.wait(ctx)
		if period == nil {
			return
		}
		err := a.acceptOne(period)
		a.reactor.gate.end()
		switch {
		case err == nil:
			a.failed, a.pause = 0, 0
		case errors.Is(err, os.ErrDeadlineExceeded): // accepting pauses
		case errors.Is(err, net.ErrClosed), ctx.Err() != nil:
			return
		default:
			a.wait(ctx, err)
		}
	}
}

// acceptOne accepts a connection and sends it on its way.
func (a *acceptor) acceptOne(ctx context.Context) error {
	scarce := a.scarce()
	if scarce {
		if err := spareDescriptors(); err != nil {
			return err
		}
	}
	conn, err := a.Accept()
	if err == nil {
		a.take(ctx, conn, scarce)
	}
	return err
}

// scarce reports whether there have been too few descriptors lately.
func (a *acceptor) scarce() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.lacked.IsZero() && time.Since(a.lacked) < scarceTime
}

// spareDescriptors fails if there are not two free descriptors, which a connection takes on its way to a loop: accepted
// with the last one it would be lost.
func spareDescriptors() error {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	_ = unix.Close(fds[0]) // both are closed in any case, and nothing was written
	_ = unix.Close(fds[1])
	return nil
}

// take admits a connection and sends it on its way. If descriptors are scarce, it is on its loop when take returns.
func (a *acceptor) take(ctx context.Context, conn net.Conn, scarce bool) {
	e := &enrollment{acceptor: a, conn: conn}
	ok := true
	if a.Admit != nil {
		e.info, ok = a.Admit(conn)
	}
	if !ok {
		_ = conn.Close() // closed in any case, and nothing was written
		return
	}
	a.reactor.gate.follow()
	switch {
	case a.Prepare != nil:
		a.startPreparing(ctx, e)
	case scarce:
		e.enroll()
	default:
		e.send(ctx)
	}
}

// startPreparing prepares a connection on a goroutine of its own, when there is one free.
func (a *acceptor) startPreparing(ctx context.Context, e *enrollment) {
	select {
	case a.preparing <- struct{}{}:
	case <-ctx.Done():
		e.abandon(context.Cause(ctx))
		return
	}
	began := a.reactor.transit.run(func() {
		defer func() { <-a.preparing }()
		var err error
		if e.prepared, err = a.Prepare(ctx, e.conn, e.info); err != nil {
			if context.Cause(ctx) == errPaused { //nolint:errorlint // this very one
				err = errPaused // and not what it has done to Prepare
			}
			e.abandon(err)
			return
		}
		e.send(ctx)
	})
	if !began {
		e.abandon(net.ErrClosed)
	}
}

// carry brings connections to their loops until ctx is done.
func (r *Reactor) carry(ctx context.Context) {
	for {
		select {
		case e := <-r.arrivals:
			e.enroll()
		case <-ctx.Done():
			return
		}
	}
}

// wait reports an error of accept and, if it is a shortage, waits.
func (a *acceptor) wait(ctx context.Context, err error) {
	a.report(err)
	a.failed++
	if a.failed <= patientErrors && ofOneConnection(err) {
		return
	}
	a.pause = min(max(2*a.pause, firstPause), longPause)
	timer := time.NewTimer(a.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// report counts an error, and warns of it unless it has just warned of others.
func (a *acceptor) report(err error) {
	if a.reactor.cfg.AcceptFailed != nil {
		a.reactor.cfg.AcceptFailed(errorName(err))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.untold++
	now := time.Now()
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		a.lacked = now
	}
	if now.Sub(a.warned) < warnEvery {
		return
	}
	a.reactor.cfg.Log.Warn().Err(err).Stringer("address", a.Addr()).Int("errors", a.untold).
		Msg("connections cannot be accepted: " + cure(err))
	a.warned, a.untold = now, 0
}

// ofOneConnection reports whether an error of accept is about the connection that it would have been: see accept(2).
func ofOneConnection(err error) bool {
	return slices.ContainsFunc(errorsOfOne, func(one unix.Errno) bool { return errors.Is(err, one) })
}

var errorsOfOne = []unix.Errno{
	unix.ECONNABORTED, unix.ECONNRESET, unix.EINTR, unix.EPERM, unix.EPROTO, unix.ETIMEDOUT,
	unix.ENETDOWN, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH,
}

// cure says what to do about an error of accept.
func cure(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return "raise the limit on open files of this process (LimitNOFILE=, ulimit -n, prlimit)"
	case errors.Is(err, unix.ENFILE):
		return "raise the limit on open files of the machine (sysctl fs.file-max)"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		return "the machine needs more memory"
	case errors.Is(err, unix.EPERM):
		return "look for firewall rules that forbid them"
	case ofOneConnection(err):
		return "they were lost on the way; if there are many, look at the network of this machine"
	}
	return "the listening socket is broken; restart the daemon if that goes on"
}

// errorName returns the name of an errno, such as EMFILE, and "other" for an error that is none.
func errorName(err error) string {
	if number, ok := errors.AsType[unix.Errno](err); ok {
		switch name := unix.ErrnoName(number); {
		case number == unix.EOPNOTSUPP: // the same number as ENOTSUP
			return "EOPNOTSUPP"
		case name != "":
			return name
		}
	}
	return "other"
}
