package server

// identity is what a client has said about itself. It is immutable, so that any loop may read it: a session that learns more
// gets another one.
type identity struct {
	name    string // what the connection is called; empty if it has no name
	owner   string // to whom it belongs; empty if it has said nothing
	changes int    // how often the owner has changed: the same number means the same owner all the time
}

// who returns what the client has said about itself. Safe from any goroutine.
func (s *session) who() identity {
	if i := s.identity.Load(); i != nil {
		return *i
	}
	return identity{}
}

// setName gives the connection a name.
func (s *session) setName(name string) {
	i := s.who()
	i.name = name
	s.identity.Store(&i)
}

// setOwner makes the connection one of owner's. Who waits on another connection of the owner may now wait for a key that
// the owner itself holds on this one.
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
