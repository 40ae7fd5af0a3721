package server

import (
	"errors"
	"net"
	"path/filepath"
	"strings"

	"dreadlock/reactor"
	"dreadlock/server/takeover"
)

// PassedKey begins the keys of listeners that systemd has passed, before their names: see [takeover.Listener].
const PassedKey = "fd:"

// key names the socket of a way, which is none of those that are passed, to a process that takes over. Parameters are not part of it.
func (w *way) key() string {
	if w.scheme == "unix" {
		return "unix:" + filepath.Clean(w.socket.Path)
	}
	return "tcp:" + strings.ToLower(w.address)
}

// takePassed opens a way by the socket that the predecessor has for it, and reports whether there is one. Nothing about it changes that the
// predecessor, which still serves, would notice: that is left to what is to be done when this process owns it.
func (srv *Server) takePassed(w *way, s *opened) (passed bool, err error) {
	if srv.cfg.Predecessor == nil {
		return false, nil
	}
	l := srv.cfg.Predecessor.TakeKey(s.key)
	if l == nil && w.scheme == "tcp" {
		l = srv.cfg.Predecessor.Take(func(l *takeover.Listener) bool { return l.Address() == spelled(w.address) })
	}
	if l == nil {
		return false, nil
	}
	if w.scheme == "unix" {
		adopted, err := l.ListenUnix(w.socket)
		if err != nil {
			return true, err
		}
		s.Listener, s.own = adopted, func() error { return w.socket.Own(adopted) }
		return true, nil
	}
	listener, err := l.Listen()
	if err != nil {
		return true, err
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		_ = listener.Close()
		return true, errors.New("what the predecessor has passed is no TCP socket")
	}
	adopted := reactor.Adopt(tcp, srv.cfg.KeepAlive)
	s.Listener, s.own = adopted, adopted.SetOptions
	return true, nil
}

// spelled returns the address of a way as that of its socket is written.
func spelled(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		return ""
	}
	if host == "" {
		host = "::"
	}
	return net.JoinHostPort(host, port)
}

// own does with all sockets what the predecessor would have noticed, and closes those that no option wants any more. The
// predecessor serves no more. What fails is only logged: the daemon must go on.
func (srv *Server) own(entrances []*entrance) {
	log := &srv.cfg.Log
	for _, e := range entrances {
		if e.own == nil {
			continue
		}
		if err := e.own(); err != nil {
			log.Warn().Err(err).Str("listen", e.url).Msg("a socket that was taken over keeps the options that it had")
		}
	}
	for {
		l := srv.cfg.Predecessor.Take(func(l *takeover.Listener) bool { return !strings.HasPrefix(l.Key, takeover.AdminKey) })
		if l == nil {
			return
		}
		l.Discard()
		if name, ok := strings.CutPrefix(l.Key, PassedKey); ok { // systemd goes on listening there
			log.Warn().Str("socket", name).Msg(NotServed)
		} else {
			log.Info().Str("socket", l.Key).Msg("a socket that was taken over is closed: no --listen names it")
		}
	}
}

// NotServed warns of a socket on which systemd listens, and clients wait for ever.
const NotServed = "a socket that systemd has passed is not served: name it by --listen fd://NAME, or remove it from the .socket unit"
