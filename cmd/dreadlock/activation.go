package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// passedSocket is a socket that systemd has passed to this process.
type passedSocket struct {
	file  *os.File // its name is that of the socket, LISTEN_FD_3 and so on if it has none
	taken bool
}

// passedSockets are the sockets that systemd, or systemd-socket-activate, has passed to this process, in its order: see
// sd_listen_fds(3).
type passedSockets []*passedSocket

// inheritSockets returns what was passed to this process, once. Child processes inherit neither the sockets nor the
// variables that tell of them.
func inheritSockets() passedSockets {
	var all passedSockets
	for _, file := range activation.Files(true) {
		all = append(all, &passedSocket{file: file})
	}
	return all
}

// listeners hands out the sockets of a name, or all of them if it is empty, each of them once. There are none if none were
// passed. The error says what to change in the unit.
func (p passedSockets) listeners(name string) ([]net.Listener, error) {
	var found []net.Listener
	for _, s := range p {
		if s.taken || name != "" && s.file.Name() != name {
			continue
		}
		l, err := s.take()
		if err != nil {
			for _, l := range found {
				_ = l.Close()
			}
			return nil, err
		}
		found = append(found, l)
	}
	if len(found) == 0 && len(p) > 0 {
		return nil, fmt.Errorf("no socket of this name was passed, only %s: FileDescriptorName= in the .socket unit names one", p.names())
	}
	return found, nil
}

// take makes a listener of the socket.
func (s *passedSocket) take() (net.Listener, error) {
	if !s.listens() {
		return nil, fmt.Errorf("the socket %s does not listen for connections: want ListenStream= and Accept=no in the .socket unit",
			s.file.Name())
	}
	l, err := net.FileListener(s.file) // of a duplicate
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", s.file.Name(), err)
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
func (p passedSockets) closeRest(log zerolog.Logger) {
	for _, s := range p {
		if s.taken {
			continue
		}
		log.Warn().Str("socket", s.file.Name()).
			Msg("a socket that systemd has passed is not served: name it by --listen fd://NAME, or remove it from the .socket unit")
		_ = s.file.Close()
	}
}

// names returns the names of all sockets, for a message.
func (p passedSockets) names() string {
	var names []string
	for _, s := range p {
		names = append(names, s.file.Name())
	}
	return strings.Join(names, ", ")
}
