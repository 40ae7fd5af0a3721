package server

import "dreadlock/server/api"

// identity is what is known about a client: where it is, and what makes it more than an address. It is immutable, so that any loop
// may read it, and an event may keep it: a change makes another one.
type identity struct {
	connection api.ConnectionID // 0 if it has no session
	address    address
	about      *about // nil if that is all
}

// about is what a client has proved, what it has said about itself, and what others have done to it. Most have none of that. It
// is immutable, like the identity.
type about struct {
	proven  string // who it is by its certificate or, on a Unix socket, by the kernel; empty if nothing says so
	name    string // what the connection is called; empty if it has no name
	owner   string // to whom it belongs; empty if it has said nothing
	kick    *kick  // who has kicked it, nil if nobody has
	changes int    // how often the owner has changed: the same number means the same owner all the time
	lease   int64  // of the daemon of the fleet that it is; 0 if it is a client of this one
}

// more returns what is known about the client beside its address.
func (i *identity) more() about {
	if i.about == nil {
		return about{}
	}
	return *i.about
}

// with returns an identity of which more is known.
func (i *identity) with(a about) *identity {
	return &identity{connection: i.connection, address: i.address, about: &a}
}

// known returns what is known about the client. Safe from any goroutine.
func (s *session) known() *identity { return s.identity.Load() }

// id returns the number of the connection. Safe from any goroutine.
func (s *session) id() api.ConnectionID { return s.known().connection }

// address returns the address of the client. Safe from any goroutine.
func (s *session) address() address { return s.known().address }

// owned reports whether the connection belongs to an owner. Safe from any goroutine.
func (s *session) owned() bool {
	a := s.known().about
	return a != nil && a.owner != ""
}

// setKick says that somebody has kicked the connection.
func (s *session) setKick(k *kick) {
	a := s.known().more()
	a.kick = k
	s.identity.Store(s.known().with(a))
}

// setName gives the connection a name.
func (s *session) setName(name string) {
	a := s.known().more()
	a.name = name
	s.identity.Store(s.known().with(a))
}

// setOwner makes the connection one of the owner's. If it holds a key, a wait of the owner on another connection may now lead
// back to the owner.
func (s *session) setOwner(owner string) {
	a := s.known().more()
	if a.owner == owner {
		return
	}
	a.owner = owner
	a.changes++
	s.identity.Store(s.known().with(a))
	if s.keys > 0 {
		s.roster.server.detector.notify()
	}
}
