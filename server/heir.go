package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// heir makes a server out of the estate of its predecessor. The loops stand still, and are as new; after an error the server is of no
// use. Sessions go to any loop, and keys to those of their hashes, which are others than before:
//
//	plan     a loop for each session
//	adopt    the sessions, on their loops
//	link     keys to those who hold them and wait for them
//	restore  tables, timers and turns, on their loops
//	verify   what is there is what was left
type heir struct {
	inheritance
	server *Server
	estate *estate
	parts  []partHeir
	now    time.Duration // not before anything in the estate

	arrivals []*newcomerHeir
	sessions map[uint64]*newcomerHeir // by the number of the connection
	loops    []loopHeir
}

// inheritance is what an estate comes with.
type inheritance struct {
	// carried is the number of sockets, and next returns the next one, in the order of the sessions.
	carried   int
	next      func() (fd int, err error)
	entrances []*entrance
	// room is the number of connections that each loop can adopt, half-closed ones aside.
	room []int
	// adopt makes a socket a connection of the client, on its loop.
	adopt func(sh *shard, client reactor.Client, fd int, state reactor.ConnState) error
	// each runs f for all shards, on their loops and perhaps at the same time.
	each func(f func(sh *shard)) error
}

// partHeir is what a loop of the predecessor has left.
type partHeir struct {
	*loopLeft
	entrances []*entrance
	hashes    []uint64    // of the keys
	formers   [][]*former // by former and shard; nil where it has no keys
	places    []*place
}

// newcomerHeir is a session that was handed over.
type newcomerHeir struct {
	left     *sessionLeft
	identity *identity
	loop     int
	token    uint64   // of its latest grant
	socket   int      // -1 if it has not come, or is not carried
	session  *session // nil until it is adopted
}

// loopHeir is what a loop gets.
type loopHeir struct {
	sessions []*newcomerHeir
	keys     []lockmgr.Restored
	formers  []formerHeir
	lines    *linesHeir // nil without a fleet
	unknown  bool       // it has keys of the unknown owner
	waits    []*request
	size     estateSize
	digest   digest
}

// formerHeir is somebody who has ended, and had keys of the loop.
type formerHeir struct {
	*former
	ended, until time.Duration
}

// badEstate returns an error about the estate.
func badEstate(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errEstate, fmt.Errorf(format, args...))
}

// restore makes the server what its predecessor was, and returns the digest of that. The error says what is wrong with the estate, or
// why this server cannot go on with it.
func (srv *Server) restore(e *estate, parts []*loopLeft, i inheritance) (digest, error) {
	h := &heir{
		inheritance: i, server: srv, estate: e, sessions: make(map[uint64]*newcomerHeir), loops: make([]loopHeir, len(srv.shards)),
		now: max(e.At, srv.shards[0].loop.Now()),
	}
	for _, p := range parts {
		h.parts = append(h.parts, partHeir{loopLeft: p})
	}
	session, err := srv.inheritFleet(e.Fleet)
	if err != nil {
		return digest{}, err
	}
	for _, step := range []func() error{
		h.plan,
		h.adoptAll,
		func() error { return h.link(session) },
		func() error { return h.onEach(h.restoreLoop) },
		h.verify,
	} {
		if err := step(); err != nil {
			return digest{}, err
		}
	}
	h.finish()
	return h.digest(), nil
}

// onEach runs f for all shards, on their loops.
func (h *heir) onEach(f func(sh *shard) error) error {
	errs := make([]error, len(h.loops))
	if err := h.each(func(sh *shard) { errs[sh.index] = f(sh) }); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// plan finds a loop for each session.
func (h *heir) plan() error {
	if h.estate.At < 0 || h.estate.Opens < 0 {
		return badEstate("it is of %s, and keys rest until %s", h.estate.At, h.estate.Opens)
	}
	carried := 0
	for i := range h.parts {
		p := &h.parts[i]
		h.openEntrances(p)
		for j := range p.Sessions {
			n, err := h.newArrival(p, &p.Sessions[j])
			if err != nil {
				return err
			}
			if n.left.Carried {
				carried++
			}
		}
	}
	if carried != h.carried {
		return badEstate("%d sockets come, and there are %d connections", h.carried, carried)
	}
	for i := range h.parts {
		h.prefer(&h.parts[i])
	}
	return h.place()
}

// openEntrances finds the entrances of a part. One that is gone has no listener.
func (h *heir) openEntrances(p *partHeir) {
	for _, left := range p.Entrances {
		i := slices.IndexFunc(h.entrances, func(e *entrance) bool { return e.url == left.URL && e.client == left.Client })
		if i < 0 {
			i = len(h.entrances)
			h.entrances = append(h.entrances, &entrance{way: &way{tls: left.TLS}, server: h.server, url: left.URL, client: left.Client})
		}
		p.entrances = append(p.entrances, h.entrances[i])
	}
}

func (h *heir) newArrival(p *partHeir, left *sessionLeft) (*newcomerHeir, error) {
	id := left.Identity.Connection
	switch {
	case id == 0 || id > h.estate.LastID:
		return nil, badEstate("a connection has the number %d, and the last one was %d", id, h.estate.LastID)
	case h.sessions[id] != nil:
		return nil, badEstate("connection %d is there twice", id)
	case left.Since < 0 || left.Since > h.now:
		return nil, badEstate("connection %d has come at %s, and it is %s", id, left.Since, h.now)
	}
	i, err := h.identity(p, &left.Identity)
	if err != nil {
		return nil, err
	}
	n := &newcomerHeir{left: left, identity: i, loop: -1, socket: -1}
	h.arrivals = append(h.arrivals, n)
	h.sessions[id] = n
	return n, nil
}

// identity makes what is known about a client.
func (h *heir) identity(p *partHeir, left *identityLeft) (*identity, error) {
	if left.Entrance < 0 || left.Entrance >= len(p.entrances) {
		return nil, badEstate("connection %d has come by entrance %d of %d", left.Connection, left.Entrance, len(p.entrances))
	}
	i := &identity{
		connection: api.ConnectionID(left.Connection),
		address:    address{AddrPort: left.Address, entrance: p.entrances[left.Entrance]},
	}
	a := about{proven: left.Proven, name: left.Name, owner: left.Owner, changes: left.Changes}
	if left.KickedBy != "" {
		a.kick = &kick{by: left.KickedBy}
	}
	if a != (about{}) {
		i.about = &a
	}
	return i, nil
}

// prefer has sessions go where the key is that they were granted last, or wait for.
func (h *heir) prefer(p *partHeir) {
	srv := h.server
	p.hashes = make([]uint64, len(p.Keys))
	for i := range p.Keys {
		k := &p.Keys[i]
		p.hashes[i] = srv.seed.Hash(k.Key)
		loop := srv.shardOf(p.hashes[i])
		if n := h.sessions[k.Session]; n != nil && k.Token >= n.token {
			n.loop, n.token = loop, k.Token
		}
		for j := range k.Queue {
			if n := h.sessions[k.Queue[j].Session]; n != nil && n.loop < 0 {
				n.loop = loop
			}
		}
	}
}

// place gives each session a loop that has room for it: first those that prefer one.
func (h *heir) place() error {
	room := slices.Clone(h.room)
	for _, preferring := range []bool{true, false} {
		for _, n := range h.arrivals {
			if (n.loop >= 0) != preferring {
				continue
			}
			if n.loop < 0 || room[n.loop] <= 0 {
				n.loop = slices.Index(room, slices.Max(room))
			}
			if n.left.Carried && !n.left.Conn.HalfClosed {
				if room[n.loop] <= 0 {
					return fmt.Errorf("there is no room for %d connections: the loops have room for %v", len(h.arrivals), h.room)
				}
				room[n.loop]--
			}
			to := &h.loops[n.loop]
			to.sessions = append(to.sessions, n)
		}
	}
	return nil
}
