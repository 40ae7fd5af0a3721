package reactor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Listener is an address that this process, and no other, may listen on.
//
// The loops listen with SO_REUSEPORT, each on a socket of its own, and the kernel would let a second daemon do the same
// and take half the clients: two lock tables. So before the loops start, the address is bound without that option,
// which fails if anybody listens there. Two starts in the same instant would both find it free; they are kept apart by
// an abstract Unix socket that is named after the port and held until the loops listen.
type Listener struct {
	address string
	probe   int // bound, and not listening: keeps the port while nobody listens yet
	guard   *net.UnixListener
}

// guardWait is the time that a start waits for another one on the same port to come to its end.
const guardWait = 5 * time.Second

// Listen takes the address host:port. Without a host, or with "[::]", that is every address of the machine, of both IP
// families; port 0 is a free port. Errors are those of a listening socket, syscall.EADDRINUSE above all.
func Listen(address string) (*Listener, error) {
	l := &Listener{probe: -1}
	if err := l.take(address); err != nil {
		l.release()
		return nil, fmt.Errorf("listen %s: %w", address, err)
	}
	return l, nil
}

func (l *Listener) take(address string) error {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	if tcp.IP.Equal(net.IPv6unspecified) {
		tcp.IP = nil
	}
	if tcp.Port != 0 {
		if l.guard, err = takeGuard(tcp.Port); err != nil {
			return err
		}
	}
	if l.probe, err = bindAlone(tcp); err != nil {
		return err
	}
	if tcp.Port, err = boundPort(l.probe); err != nil {
		return err
	}
	l.address = tcp.String()
	return nil
}

// Address returns the address as host:port, with the port that was chosen if it was 0.
func (l *Listener) Address() string { return l.address }

// Close gives the address up, if it has not been served.
func (l *Listener) Close() { l.release() }

// release ends the guard: somebody listens, so that another start finds the address taken.
func (l *Listener) release() {
	if l.probe >= 0 {
		_ = unix.Close(l.probe)
		l.probe = -1
	}
	if l.guard != nil {
		_ = l.guard.Close()
		l.guard = nil
	}
}

// takeGuard returns when no other process is starting on the port.
func takeGuard(port int) (*net.UnixListener, error) {
	name := &net.UnixAddr{Net: "unix", Name: "@dreadlock-start-" + strconv.Itoa(port)}
	deadline := time.Now().Add(guardWait)
	for {
		guard, err := net.ListenUnix("unix", name)
		switch {
		case err == nil:
			return guard, nil
		case !errors.Is(err, unix.EADDRINUSE):
			return nil, err
		case time.Now().After(deadline):
			return nil, fmt.Errorf("another daemon has been starting on this port for %s: %w", guardWait, unix.EADDRINUSE)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the other start says nothing when it is done
	}
}

// bindAlone binds a socket to the address as gnet will, but shares it with no listening socket. Without an IP address
// it takes both families, or IPv4 on a machine without IPv6.
func bindAlone(tcp *net.TCPAddr) (fd int, err error) {
	if ip := tcp.IP.To4(); ip != nil {
		return bindReusable(unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip)})
	}
	sa := &unix.SockaddrInet6{Port: tcp.Port}
	if len(tcp.IP) > 0 {
		sa.Addr = [16]byte(tcp.IP.To16())
	}
	if tcp.Zone != "" {
		link, err := net.InterfaceByName(tcp.Zone)
		if err != nil {
			return -1, err
		}
		sa.ZoneId = uint32(link.Index)
	}
	fd, err = bindReusable(unix.AF_INET6, sa)
	if errors.Is(err, unix.EAFNOSUPPORT) && len(tcp.IP) == 0 {
		tcp.IP = net.IPv4zero
		return bindAlone(tcp)
	}
	return fd, err
}

// bindReusable binds a socket to an address that may still have connections of an earlier daemon, which would keep it
// from being bound otherwise.
func bindReusable(family int, sa unix.Sockaddr) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// boundPort returns the port of a bound socket.
func boundPort(fd int) (int, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port, nil
	case *unix.SockaddrInet6:
		return sa.Port, nil
	}
	return 0, fmt.Errorf("a TCP socket has an address of type %T", sa)
}
