package server

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
)

const (
	// sessionsPerStep is the number of sessions that are looked at in one turn.
	sessionsPerStep = 512
	// keysPerStep is the number of held keys after which no more are listed in one turn, of sessions that may hold many.
	keysPerStep = 2048
)

// Connections returns a page of the connections.
func (srv *Server) Connections(ctx context.Context, q api.ConnectionQuery) (*api.ConnectionPage, error) {
	limit, err := parseLimit(q.Limit)
	if err != nil {
		return nil, err
	}
	const order = "connection"
	after, err := parseCursor(order, q.Cursor)
	if err != nil {
		return nil, err
	}
	all := page[*sighting]{limit: limit}
	found, err := srv.sight(ctx, limit, after, api.ListedKeys, func(sh *shard, s *session) bool {
		return (!q.Holding || s.keys > 0) && (!q.Waiting || sh.waits(s)) && hasAddress(s.address, q.Address)
	})
	if err != nil {
		return nil, err
	}
	sighted, next := all.merge(order, found)
	connections, err := srv.complete(ctx, sighted, api.ListedKeys)
	if err != nil {
		return nil, err
	}
	return &api.ConnectionPage{Connections: connections, Matching: all.matching, Next: next}, nil
}

// Connection returns one connection.
func (srv *Server) Connection(ctx context.Context, id api.ConnectionID) (*api.Connection, error) {
	var sighted []*sighting
	err := srv.seek(ctx, func() (bool, error) {
		found, err := srv.sight(ctx, 1, nil, api.MaxLimit, func(_ *shard, s *session) bool { return s.id == id })
		all := page[*sighting]{limit: 1}
		sighted, _ = all.merge("", found)
		return len(sighted) > 0, err
	})
	if err != nil {
		return nil, err
	}
	if len(sighted) == 0 {
		return nil, notConnected(id)
	}
	connections, err := srv.complete(ctx, sighted, api.MaxLimit)
	if err != nil {
		return nil, err
	}
	return &connections[0], nil
}

// seekTime bounds how long a connection is sought that may be on its way from loop to loop.
const seekTime = 100 * time.Millisecond

// seek looks for a connection until it is found, or none has moved while it looked: one that moves may be on no loop, or
// on each when that is not looked at. Where connections move all the time it gives up after some tries.
func (srv *Server) seek(ctx context.Context, look func() (found bool, err error)) error {
	for delay := time.Millisecond; ; delay *= 2 {
		arrived := srv.arrived.Load()
		if found, err := look(); found || err != nil {
			return err
		}
		if srv.departed.Load() == arrived || delay > seekTime || !pause(ctx, delay) {
			return nil
		}
	}
}

func notConnected(id api.ConnectionID) error {
	return fmt.Errorf("%w: there is no connection %d", api.ErrNotFound, id)
}

// hasAddress reports whether an address, as text, begins with the prefix.
func hasAddress(address netip.AddrPort, prefix string) bool {
	var buf [64]byte
	return prefix == "" || hasPrefix(address.AppendTo(buf[:0]), prefix)
}

// sighting is what the loop of a session knows of it.
type sighting struct {
	connection   api.Connection
	remoteOwners []*remoteOwner // the owners in them are those of other loops
}

// sight returns, for each shard, the first of its sessions behind a cursor that are wanted, each with some of its keys.
func (srv *Server) sight(
	ctx context.Context, limit int, after *rank, keys int, wanted func(*shard, *session) bool,
) ([]*page[*sighting], error) {
	type walk struct {
		page  page[*sighting]
		begun bool
		next  int // sessions below have not been looked at
	}
	found, err := ask(ctx, srv, func(sh *shard, w *walk) (more bool) {
		if !w.begun {
			*w = walk{begun: true, page: page[*sighting]{limit: limit, after: after}, next: len(sh.roster.sessions)}
		}
		w.next = min(w.next, len(sh.roster.sessions))
		for looked, listed := 0, 0; w.next > 0 && looked < sessionsPerStep && listed < keysPerStep; looked++ {
			w.next--
			s := sh.roster.sessions[w.next]
			if !wanted(sh, s) {
				continue
			}
			if n := -int64(s.id); wants(&w.page, n, "") {
				c := sh.sight(s, keys)
				listed += len(c.connection.Holds)
				w.page.add(rank{n, strconv.FormatUint(uint64(s.id), 10)}, c)
			}
		}
		return w.next > 0
	})
	pages := make([]*page[*sighting], 0, len(found))
	for _, w := range found {
		pages = append(pages, &w.page)
	}
	return pages, err
}

// sight returns what the session's loop knows of it, with at most so many keys.
func (sh *shard) sight(s *session, keys int) *sighting {
	c := api.Connection{
		Peer:             s.peer(),
		Since:            sh.loop.Time(s.since),
		ConnectedSeconds: sh.secondsSince(s.since),
		Loop:             sh.index,
		State:            api.Idle,
		Held:             s.keys,
	}
	s.owner.Each(func(h lockmgr.Holding) bool {
		c.Holds = append(c.Holds, string(h.Key))
		return len(c.Holds) < keys
	})
	switch {
	case s.phase != serving:
		c.State = api.Ending
	case s.stalled || s.conn.Unsent() > 0:
		c.State = api.Lagging
	case sh.waits(s):
		c.State = api.Waiting
	}
	r := &s.request
	switch {
	case !sh.waits(s):
	case s.remoteShard == noShard:
		c.WaitsFor, c.WaitedSeconds = string(r.waiter.WaitsFor().Key), sh.secondsSince(r.since)
	default:
		c.WaitsFor, c.WaitedSeconds = string(r.key), sh.secondsSince(s.sentAt)
	}
	return &sighting{connection: c, remoteOwners: append([]*remoteOwner(nil), s.remoteOwners...)}
}

// answersWithin is the time after which a lock that another loop has not answered is taken for one that waits there: its
// loop alone knows, and what the loop knows of a session that may have moved on cannot be read.
const answersWithin = time.Millisecond

// waits reports whether the session waits for a key.
func (sh *shard) waits(s *session) bool {
	if s.phase != serving || s.outstanding == 0 {
		return false
	}
	if s.remoteShard == noShard {
		return s.request.waiter.Queued()
	}
	return s.request.kind == proto.Lock && s.request.timeout > 0 && sh.loop.Now()-s.sentAt >= answersWithin
}

// complete adds the keys that the connections hold on other loops than their own, up to a limit for each.
func (srv *Server) complete(ctx context.Context, sighted []*sighting, limit int) ([]api.Connection, error) {
	type walk struct {
		next int // of sighted
		held map[api.ConnectionID][]string
	}
	found, err := ask(ctx, srv, func(sh *shard, w *walk) (more bool) {
		if w.held == nil {
			w.held = make(map[api.ConnectionID][]string)
		}
		for listed := 0; w.next < len(sighted) && listed < keysPerStep; w.next++ {
			c := sighted[w.next]
			if sh.index >= len(c.remoteOwners) || c.remoteOwners[sh.index] == nil {
				continue
			}
			var keys []string
			c.remoteOwners[sh.index].owner.Each(func(h lockmgr.Holding) bool {
				keys = append(keys, string(h.Key))
				return len(keys) < limit
			})
			listed += len(keys)
			if len(keys) > 0 {
				w.held[c.connection.Connection] = keys
			}
		}
		return w.next < len(sighted)
	})
	if err != nil {
		return nil, err
	}
	connections := make([]api.Connection, 0, len(sighted))
	for _, s := range sighted {
		c := s.connection
		for _, w := range found {
			c.Holds = append(c.Holds, w.held[c.Connection]...)
		}
		c.Holds = c.Holds[:min(len(c.Holds), limit)]
		connections = append(connections, c)
	}
	return connections, nil
}

// Kick closes a connection: what it holds goes to those who wait for it.
func (srv *Server) Kick(ctx context.Context, id api.ConnectionID) error {
	type walk struct {
		begun, kicked bool
		next          int
	}
	done := false
	err := srv.seek(ctx, func() (bool, error) {
		found, err := ask(ctx, srv, func(sh *shard, w *walk) (more bool) {
			if !w.begun {
				w.begun, w.next = true, len(sh.roster.sessions)
			}
			w.next = min(w.next, len(sh.roster.sessions))
			for range sessionsPerStep {
				if w.next == 0 {
					return false
				}
				w.next--
				if s := sh.roster.sessions[w.next]; s.id == id {
					s.kick()
					w.kicked = true
					return false
				}
			}
			return w.next > 0
		})
		for _, w := range found {
			done = done || w.kicked
		}
		return done, err
	})
	if err == nil && !done {
		return notConnected(id)
	}
	return err
}

// kick ends the session and its connection at once, whatever the client has not read yet.
func (s *session) kick() {
	s.roster.server.cfg.Log.Info().Uint64("connection", uint64(s.id)).Stringer("client", s.address).Int("held_keys", s.keys).
		Msg("client kicked: an operator asked for it")
	s.end(kicked)
	s.conn.Close()
}
