package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dreadlock/server"
	"dreadlock/server/takeover"
)

// passedSocket is a socket that systemd has passed to this process.
type passedSocket struct {
	file  *os.File
	name  string // LISTEN_FD_3 and so on if it has none
	taken bool
}

// passedSockets are the sockets that systemd, or systemd-socket-activate, has passed to this process, in its order: see
// sd_listen_fds(3). To a process that takes over, its predecessor has passed them.
type passedSockets struct {
	all         []*passedSocket
	predecessor *takeover.Predecessor // nil if there is none
}

// inheritSockets returns what was passed to this process, once. Child processes inherit neither the sockets nor the
// variables that tell of them.
func inheritSockets(predecessor *takeover.Predecessor) *passedSockets {
	p := &passedSockets{predecessor: predecessor}
	for _, file := range activation.Files(true) {
		p.all = append(p.all, &passedSocket{file: file, name: file.Name()})
	}
	return p
}

// passed reports whether there are any.
func (p *passedSockets) passed() bool {
	return len(p.all) > 0 || p.predecessor != nil && slices.ContainsFunc(p.predecessor.Listeners, func(key string) bool {
		return strings.HasPrefix(key, server.PassedKey)
	})
}

// takeInherited adds those of the predecessor. Only a way that asks for such sockets takes them: another one may take them by
// their address.
func (p *passedSockets) takeInherited() {
	for p.predecessor != nil {
		l := p.predecessor.Take(func(l *takeover.Listener) bool { return strings.HasPrefix(l.Key, server.PassedKey) })
		if l == nil {
			return
		}
		p.all = append(p.all, &passedSocket{file: l.Socket, name: strings.TrimPrefix(l.Key, server.PassedKey)})
	}
}

// listeners hands out the sockets of a name, or all of them if it is empty, each of them once. There are none if none were
// passed. The error says what to change in the unit.
func (p *passedSockets) listeners(name string) ([]server.PassedSocket, error) {
	p.takeInherited()
	var found []server.PassedSocket
	for _, s := range p.all {
		if s.taken || name != "" && s.name != name {
			continue
		}
		l, err := s.take()
		if err != nil {
			for _, l := range found {
				_ = l.Close()
			}
			return nil, err
		}
		found = append(found, server.PassedSocket{Listener: l, Name: s.name})
	}
	if len(found) == 0 && len(p.all) > 0 {
		return nil, fmt.Errorf("no socket of this name was passed, only %s: FileDescriptorName= in the .socket unit names one", p.names())
	}
	return found, nil
}

// take makes a listener of the socket.
func (s *passedSocket) take() (net.Listener, error) {
	if !s.listens() {
		return nil, fmt.Errorf("the socket %s does not listen for connections: want ListenStream= and Accept=no in the .socket unit", s.name)
	}
	l, err := net.FileListener(s.file) // of a duplicate
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", s.name, err)
	}
	_ = s.file.Close()
	s.taken = true
	return l, nil
}

// listens reports whether it is a listening socket of streams. net.FileListener takes others as well.
func (s *passedSocket) listens() bool {
	fd := int(s.file.Fd())
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	accepting, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && accepting != 0
}

// closeRest closes the sockets that nobody has taken, with a warning: systemd goes on listening there, and clients would
// wait for ever.
func (p *passedSockets) closeRest(log zerolog.Logger) {
	for _, s := range p.all {
		if s.taken {
			continue
		}
		log.Warn().Str("socket", s.name).Msg(server.NotServed)
		_ = s.file.Close()
	}
}

// names returns the names of all sockets, for a message.
func (p *passedSockets) names() string {
	var names []string
	for _, s := range p.all {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}
