package admin

import (
	"os"
	"strings"

	"dreadlock/server/takeover"
	"dreadlock/server/unixsock"
)

// PassOn returns the listeners for a process that takes over. They are the caller's. Safe from any goroutine.
func (s *Server) PassOn() (passed []*takeover.Listener, err error) {
	for _, l := range s.open() {
		var lock *os.File
		if socket, ok := l.raw.(*unixsock.Listener); ok {
			lock = socket.Lock()
		}
		p, err := takeover.NewListener(l.key, l.raw, lock)
		if err != nil {
			return passed, err
		}
		passed = append(passed, p)
	}
	return passed, nil
}

// Leave says that another process serves at all addresses: nothing is removed when this one stops. Safe from any goroutine.
func (s *Server) Leave() {
	for _, l := range s.open() {
		if socket, ok := l.raw.(*unixsock.Listener); ok {
			socket.Leave()
		}
	}
}

// open returns all listeners, with that of the default socket. Safe from any goroutine.
func (s *Server) open() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*listener(nil), s.listeners...)
}

// own makes the listeners of a predecessor that serves no more those of this process alone.
func (s *Server) own() {
	for _, l := range s.open() {
		if l.own == nil {
			continue
		}
		if err := l.own(); err != nil {
			s.cfg.Log.Warn().Err(err).Str("address", l.url).Msg("an address of the admin interface keeps the options that it had")
		}
	}
}

// DiscardPassed closes what a predecessor, which serves no more, has passed of its admin interface, and what no option wants any
// more. Nil has passed nothing.
func DiscardPassed(p *takeover.Predecessor) {
	for {
		l := p.Take(func(l *takeover.Listener) bool { return strings.HasPrefix(l.Key, takeover.AdminKey) })
		if l == nil {
			return
		}
		l.Discard()
	}
}
