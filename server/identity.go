package server

import "dreadlock/server/api"

// identity is what is known about a client: where it is, what it has proved, and what it has said about itself. It is
// immutable, so that any loop may read it, and an event may keep it: a change makes another one.
type identity struct {
	connection api.ConnectionID // 0 if it has no session
	address    address

	lease int64 // of the daemon of the fleet that it is; 0 if it is a client of this one

	proven  string // who it is by its certificate or, on a Unix socket, by the kernel; empty if nothing says so
	name    string // what the connection is called; empty if it has no name
	owner   string // to whom it belongs; empty if it has said nothing
	kick    *kick  // who has kicked it, nil if nobody has
	changes int    // how often the owner has changed: the same number means the same owner all the time
}

// who returns what is known about the client. Safe from any goroutine.
func (s *session) who() identity { return *s.identity.Load() }

// known is who without a copy. Safe from any goroutine.
func (s *session) known() *identity { return s.identity.Load() }

// setKick says that somebody has kicked the connection.
func (s *session) setKick(k *kick) {
	i := s.who()
	i.kick = k
	s.identity.Store(&i)
}

// setName gives the connection a name.
func (s *session) setName(name string) {
	i := s.who()
	i.name = name
	s.identity.Store(&i)
}

// setOwner makes the connection one of the owner's. If it holds a key, a wait of the owner on another connection may now lead
// back to the owner.
func (s *session) setOwner(owner string) {
	i := s.who()
	if i.owner == owner {
		return
	}
	i.owner = owner
	i.changes++
	s.identity.Store(&i)
	if s.keys > 0 {
		s.roster.server.detector.notify()
	}
}
