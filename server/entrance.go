package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"dreadlock/reactor"
	"dreadlock/server/noise"
)

// entrance is an open socket of a way, where clients come in.
type entrance struct {
	*way
	server   *Server
	listener net.Listener
	url      string       // where it listens; --listen takes it
	client   string       // how the address of a client is shown that has none: on a Unix socket. Empty on TCP
	key      string       // names the socket to a process that takes over
	own      func() error // does what the predecessor would have noticed, when it serves no more; nil without one
}

// openWays opens all ways, or none.
func (srv *Server) openWays(ctx context.Context) (entrances []*entrance, err error) {
	defer func() {
		if err != nil {
			closeAll(entrances)
			entrances = nil
		}
	}()
	for _, w := range srv.ways {
		opened, err := srv.openWay(ctx, w)
		entrances = append(entrances, opened...)
		if err != nil {
			return entrances, err
		}
	}
	return entrances, nil
}

func closeAll(entrances []*entrance) {
	for _, e := range entrances {
		_ = e.listener.Close() // fails only if it is closed
	}
}

// openWay opens one way. What is open after an error is returned too.
func (srv *Server) openWay(ctx context.Context, w *way) (entrances []*entrance, err error) {
	sockets, err := srv.listen(ctx, w)
	for _, s := range sockets {
		e := srv.newEntrance(w, s)
		entrances = append(entrances, e)
		if w.scheme == "fd" && err == nil {
			err = srv.adopt(e)
		}
	}
	if err != nil && w.scheme != "tcp" { // whose errors are clear without it
		err = fmt.Errorf("--listen %s: %w", w.text, err)
	}
	return entrances, err
}

// opened is a socket of a way.
type opened struct {
	net.Listener
	key string       // see [entrance]
	own func() error // see [entrance]
}

// listen returns the sockets of a way: one, unless they were passed.
func (srv *Server) listen(ctx context.Context, w *way) ([]opened, error) {
	if w.scheme == "fd" {
		return srv.passed(w.name)
	}
	s := opened{key: w.key()}
	passed, err := srv.takePassed(w, &s)
	switch {
	case passed || err != nil:
	case w.scheme == "unix":
		s.Listener, err = w.socket.Listen()
	default:
		s.Listener, err = reactor.Listen(ctx, w.address, srv.cfg.KeepAlive)
	}
	if err != nil {
		return nil, err
	}
	return []opened{s}, nil
}

// passed returns the sockets of that name that the parent process has passed; all of them without a name.
func (srv *Server) passed(name string) (sockets []opened, err error) {
	var passed []PassedSocket
	if srv.cfg.Activated != nil {
		passed, err = srv.cfg.Activated(name)
	}
	switch {
	case err != nil:
		return nil, err
	case len(passed) > 0:
		for _, p := range passed {
			sockets = append(sockets, opened{Listener: p.Listener, key: PassedKey + p.Name})
		}
		return sockets, nil
	case name == "":
		return nil, errors.New("no sockets were passed (LISTEN_FDS): let systemd start it by a socket unit, or listen on an address")
	}
	return nil, fmt.Errorf("no socket of that name was passed (LISTEN_FDNAMES): want FileDescriptorName=%s in the socket unit", name)
}

// adopt takes over a socket that another process has opened.
func (srv *Server) adopt(e *entrance) error {
	switch l := e.listener.(type) {
	case *net.TCPListener:
		adopted := reactor.Adopt(l, srv.cfg.KeepAlive)
		e.listener = adopted
		if srv.cfg.Predecessor != nil {
			e.own = adopted.SetOptions
			return nil
		}
		if err := adopted.SetOptions(); err != nil {
			return fmt.Errorf("the passed socket %s: %w: want one of TCP itself, not of MPTCP", e.url, err)
		}
		return nil
	case *net.UnixListener:
		if len(e.proxies)+len(e.allowed) > 0 {
			return fmt.Errorf("%w: %s is a Unix socket, whose clients have no addresses: leave out proxy= and allow=", ErrOption, e.url)
		}
		return nil
	}
	return fmt.Errorf("%s is neither a TCP socket nor a Unix socket", e.listener.Addr())
}

func (srv *Server) newEntrance(w *way, s opened) *entrance {
	e := &entrance{way: w, server: srv, listener: s.Listener, key: s.key, own: s.own}
	scheme := "tcp"
	if w.tls {
		scheme = "tls"
	}
	switch addr := s.Addr().(type) {
	case *net.TCPAddr:
		e.url = scheme + "://" + hostPort(addr)
	case *net.UnixAddr:
		path := url.URL{Path: addr.Name}
		e.url = "unix://" + path.EscapedPath()
		if w.tls {
			e.url += "?tls=1"
		}
		e.client = "unix:" + addr.Name
	}
	return e
}

// listeners returns what the reactor accepts from.
func (srv *Server) listeners(entrances []*entrance) (listeners []*reactor.Listener) {
	for _, e := range entrances {
		listeners = append(listeners, &reactor.Listener{
			Listener: e.listener,
			Admit: func(conn net.Conn) (info any, ok bool) {
				return srv.admit(e, conn)
			},
			Prepare: srv.preparation(e),
		})
	}
	return listeners
}

// address returns where the entrance listens: host:port, or a URL if it is no TCP socket.
func (e *entrance) address() string {
	if addr, ok := e.listener.Addr().(*net.TCPAddr); ok {
		return hostPort(addr)
	}
	return e.url
}

// hostPort returns an address as --listen takes it, without a host if it is every one.
func hostPort(addr *net.TCPAddr) string {
	if addr.IP.Equal(net.IPv6unspecified) {
		return (&net.TCPAddr{Port: addr.Port}).String()
	}
	return addr.String()
}

// address is where a client is: at the other end of a TCP connection, or of a Unix socket.
type address struct {
	netip.AddrPort           // invalid for a Unix socket
	entrance       *entrance // by which the client came
}

// source returns what counts as one client in the log.
func (a address) source() noise.Source {
	if a.IsValid() {
		return noise.Address(a.Addr())
	}
	return noise.Socket(a.entrance.client)
}

// String returns host:port, or unix: and the path of the socket.
func (a address) String() string {
	if a.IsValid() {
		return a.AddrPort.String()
	}
	return a.entrance.client
}
