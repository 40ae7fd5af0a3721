package server

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"dreadlock/reactor"
	"dreadlock/server/api"
)

// What follows is a takeover of a sim: another server goes on with its clients.

// hold has the loops execute nothing more.
func (s *sim) hold() {
	for _, l := range s.loops {
		l.turn(l.worker.hold)
	}
}

// goOn ends hold.
func (s *sim) goOn() {
	for _, l := range s.loops {
		l.turn(l.worker.goOn)
	}
}

// isSettled reports whether the loops could be taken over as they are.
func (s *sim) isSettled() bool {
	for _, l := range s.loops {
		if !l.worker.settled() || slices.ContainsFunc(l.mailbox, matters) {
			return false
		}
	}
	return true
}

// estate has the loops, which are held, come to rest, and returns what they leave.
func (s *sim) estate() (file []byte, sum digest, err error) {
	for rounds := 0; !s.isSettled(); rounds++ {
		if rounds == 10_000 {
			return nil, digest{}, errors.New("the loops do not come to rest")
		}
		for _, l := range s.loops {
			l.receive()
			l.goOn()
		}
	}
	var left []*loopEstate
	for _, l := range s.loops {
		one, err := l.worker.leave()
		if err != nil {
			return nil, digest{}, err
		}
		left = append(left, one)
	}
	legacy, err := s.server.fleetLegacy()
	if err != nil {
		return nil, digest{}, err
	}
	var buf bytes.Buffer
	err = s.server.newEstate(left, legacy).write(&buf)
	return buf.Bytes(), estateDigest(left), err
}

// takeOver has a server with other options go on with the clients. Those that cannot be carried are absent from then on. last is called before
// the server is another.
func (s *sim) takeOver(cfg Config, last func()) error {
	s.hold()
	file, want, err := s.estate()
	if err != nil {
		return err
	}
	last()
	before, ballast := s.server, s.ballast
	clients := s.absentClients()
	srv := newSimServer(cfg, before.moveAfter)
	srv.pace, srv.inherits = before.pace, true
	if s.sameSeed {
		srv.seed = before.seed
	}
	s.serve(srv)
	got, err := s.inherit(file, clients)
	if err != nil {
		return err
	}
	if got.sum != want.sum {
		return fmt.Errorf("the digest is %x, and it was %x", got.bytes(), want.bytes())
	}
	s.ballast = 0
	srv.budget.reserve(ballast)
	s.ballast = ballast
	for _, l := range s.loops {
		l.turn(func() {})
	}
	return s.check()
}

// inherit restores the server, which has the clients, from an estate.
func (s *sim) inherit(file []byte, clients map[api.ConnectionID]*simClient) (digest, error) {
	return s.inheritBy(file, clients)
}

// inheritBy is inherit by a server with some entrances.
func (s *sim) inheritBy(file []byte, clients map[api.ConnectionID]*simClient, entrances ...*entrance) (digest, error) {
	e, parts, err := readEstate(file)
	if err != nil {
		return digest{}, err
	}
	i := inheritance{room: make([]int, len(s.loops)), entrances: entrances}
	for _, p := range parts {
		for j := range p.Sessions {
			if p.Sessions[j].Carried {
				i.carried++
			}
		}
	}
	for loop := range i.room { // so that not all can go where they are best off
		i.room[loop] = (i.carried+len(s.loops)-1)/len(s.loops) + 1
	}
	i.next = func() (int, error) { return 0, nil }
	i.adopt = func(sh *shard, client reactor.Client, _ int, state reactor.ConnState) error {
		restored := client.(*session)
		c := clients[restored.id()]
		if c == nil {
			c = s.stranger(restored, state)
		}
		c.session, c.loop, c.absent = restored, s.loops[sh.index], false
		restored.conn = c
		return nil
	}
	i.each = func(f func(sh *shard)) error {
		for _, l := range s.loops {
			s.running = l
			f(l.worker.shard)
			s.running = nil
		}
		return nil
	}
	sum, err := s.server.restore(e, parts, i)
	for _, l := range s.loops {
		for _, restored := range l.worker.roster.sessions.members {
			if _, ok := restored.conn.(absent); !ok {
				continue
			}
			c := clients[restored.id()]
			switch {
			case c == nil:
				c = s.stranger(restored, reactor.ConnState{})
				c.encrypted, c.absent = true, true
			case !c.encrypted:
				return sum, fmt.Errorf("%s was not carried", c.name)
			}
			c.session, c.loop, c.open = restored, l, true
		}
	}
	return sum, err
}

// stranger returns a client whose connection nobody knows here: its estate comes from elsewhere.
func (s *sim) stranger(restored *session, state reactor.ConnState) *simClient {
	c := &simClient{
		name: fmt.Sprint("connection ", restored.id()), sim: s, open: true, fin: state.HalfClosed, half: state.HalfClosed, paused: state.Paused,
		wasHeld: state.WasPaused, last: state.Last, unsent: state.Unsent, deaf: len(state.Unsent) > 0,
	}
	c.moving.Body = c
	s.clients = append(s.clients, c)
	return c
}

// absentClients returns the clients that are connected, and makes them absent.
func (s *sim) absentClients() map[api.ConnectionID]*simClient {
	clients := make(map[api.ConnectionID]*simClient)
	for _, c := range s.clients {
		if c.open {
			clients[c.session.id()] = c
			c.absent, c.open = true, !c.encrypted
			if c.encrypted {
				c.inbox, c.unsent, c.session.counted = nil, nil, 0
			}
		}
	}
	return clients
}

// endAbsent has the predecessor end: the clients that were not carried see the end of their connections, and what they had is free.
func (s *sim) endAbsent() {
	for _, c := range s.clients {
		if c.absent && !c.ended {
			c.ended = true
			s.events = append(s.events, simEvent{client: c})
		}
	}
	for _, l := range s.loops {
		var walk bagWalk
		for more := true; more; {
			l.turn(func() { more = l.worker.shard.endAbsent(&walk) })
		}
	}
	for _, c := range s.clients {
		if c.absent {
			c.open = false
		}
	}
}
