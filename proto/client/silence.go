package client

import (
	"fmt"
	"syscall"
	"time"
)

// A client and its server lose each other without a word: a cable is pulled, a route is gone, in one direction or in both.
// Each then has a time after which it acts on that, and the holder must always be first: its work must have ended before the
// server gives the key to another.
//
// The server promises only this (reactor/silence.go): it keeps what a client holds for the time that it announced, counted
// from the last segment that came from the client. So while a lock is held, the client proves again and again that its
// segments arrive: by a heartbeat, a command that the server answers. At least until that time after the heartbeat was sent,
// the key is nobody else's. The holder gets half of it to notice, and the other half to end its work.
//
// The kernel is no help in this. Its probes are not counted by the kernel of the server as something that came; it takes an
// acknowledgement of the server's for a sign that its own segments arrive; it knows seconds only; and when it gives up, it
// sends a reset. If only the other direction is cut, that arrives, and the key is somebody else's before the holder has
// ended its work. For the same reason the client itself keeps the connection of a lock that was lost by silence: see lapse.

// Silence is what a lock and its server do about each other's silence.
type Silence struct {
	// Server is the time after which the server takes a client for lost whose host is silent, and gives its keys to the next
	// ones. 0: it never does, or is too old to say so.
	Server time.Duration
	// Lost is the time after which the lock is lost if the server is silent: at most half of Server, if that is known. With
	// heartbeats it is counted from the last one that was answered, when it was sent; without, from the last segment that
	// came. 0: never, as with a Unix socket, where the server's host cannot fall silent.
	Lost time.Duration
	// Heartbeat is the time between two heartbeats while the lock is held: at most half of Lost. 0: there are none.
	Heartbeat time.Duration
}

// agree returns what a lock does about silence: on a way with another host at its end or not, with the options of the
// client, and what the server has said; nil if it said nothing.
func agree(remote bool, keepAlive, heartbeat time.Duration, server *introduction) Silence {
	_, lost := probing(keepAlive)
	switch {
	case server == nil && remote:
		return Silence{Lost: lost}
	case server == nil:
		return Silence{}
	case heartbeat <= 0 && !remote:
		return Silence{Server: server.silence}
	case heartbeat <= 0 && server.silence == 0:
		return Silence{Lost: lost}
	}
	s := Silence{Server: server.silence, Lost: 2 * keepAlive}
	if s.Server > 0 {
		s.Lost = min(s.Lost, s.Server/2)
	}
	s.Heartbeat = s.Lost / 2
	if heartbeat > 0 {
		s.Heartbeat = min(s.Heartbeat, heartbeat)
	}
	return s
}

// err is the reason for which a lock is lost to silence.
func (s *Silence) err() error { return fmt.Errorf("no answer for %s: %w", s.Lost, syscall.ETIMEDOUT) }
