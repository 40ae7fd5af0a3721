package reactor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listen takes the TCP address host:port. Without a host, or with "[::]", that is every address of the machine, of both IP
// families; port 0 is a free port. The kernel refuses an address on which anybody else listens. Errors are those of a
// listening socket, syscall.EADDRINUSE above all. A client whose host is silent for keepAlive is probed, and given up after
// twice that, or up to two seconds later.
func Listen(ctx context.Context, address string, keepAlive time.Duration) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).To4() != nil {
		network = "tcp4" // else 0.0.0.0 would be both families
	}
	config := net.ListenConfig{
		KeepAlive: -1, // so that Go leaves alone what accepted sockets inherit
		Control: func(_, _ string, socket syscall.RawConn) (err error) {
			if failed := socket.Control(func(fd uintptr) { err = setInherited(int(fd), keepAlive) }); failed != nil {
				return failed
			}
			return err
		},
	}
	config.SetMultipathTCP(false) // such a socket does not take all of the options
	for try := 1; ; try++ {
		l, err := config.Listen(ctx, network, address)
		switch {
		case err == nil:
			return l, nil
		case !collides(err) || try == listenTries:
			return nil, fmt.Errorf("listen %s: %w", address, bare(err))
		}
		time.Sleep(rand.N(maxCollisionPause)) //nolint:forbidigo // the other one says nothing when it is done
	}
}

// Two processes that begin to listen in one instant may refuse each other.
const (
	listenTries       = 10
	maxCollisionPause = 20 * time.Millisecond
)

// collides reports whether an address was free when it was bound and taken when it was to be listened on.
func collides(err error) bool {
	call, ok := errors.AsType[*os.SyscallError](err)
	return ok && call.Syscall == "listen" && errors.Is(err, unix.EADDRINUSE)
}

// bare returns an error of package net without the address, which the caller names.
func bare(err error) error {
	if op, ok := err.(*net.OpError); ok { //nolint:errorlint // this very one
		return op.Err
	}
	return err
}

// Adopted is a TCP listener that another program has opened.
type Adopted struct {
	*net.TCPListener
	silence silence
}

// Adopt makes a listener that gives the connections that it accepts the options of [Listen]. It changes nothing about the socket:
// see SetOptions.
func Adopt(l *net.TCPListener, keepAlive time.Duration) *Adopted {
	return &Adopted{TCPListener: l, silence: silenceOf(keepAlive)}
}

// SetOptions sets the options of the socket itself, as [Listen] does. Connections inherit them.
func (a *Adopted) SetOptions() error {
	socket, err := a.SyscallConn()
	if err != nil {
		return err
	}
	if failed := socket.Control(func(fd uintptr) { err = setInherited(int(fd), a.silence.idle) }); failed != nil {
		return failed
	}
	return err
}

// Accept returns the next connection. Package net has set another keepalive than that of the listener, unless it has opened that itself.
func (a *Adopted) Accept() (net.Conn, error) {
	conn, err := a.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if socket, err := conn.SyscallConn(); err == nil {
		// Fails only on a socket that has ended, which the loop is about to hear.
		_ = socket.Control(func(fd uintptr) { _ = setOptions(int(fd), a.silence.probes()) })
	}
	return conn, nil
}

// setInherited sets what the accepted sockets inherit from a listening one.
func setInherited(fd int, keepAlive time.Duration) error {
	s := silenceOf(keepAlive)
	limitBackoff(fd, s.backoff())
	return setOptions(fd, append(s.probes(),
		option{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		option{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.limit.Milliseconds())},
		option{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	))
}

type option struct{ level, name, value int }

func setOptions(fd int, options []option) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
	}
	return nil
}
