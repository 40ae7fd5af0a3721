package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
)

const (
	// sessionsPerStep is the number of sessions that are examined in one turn.
	sessionsPerStep = 512
	// keysPerStep is the number of listed keys after which a turn ends: a session may hold many.
	keysPerStep = 2048
)

// Connections returns a page of the connections.
func (srv *Server) Connections(ctx context.Context, q api.ConnectionQuery) (*api.ConnectionPage, error) {
	if q.Order == "" {
		q.Order = api.ByConnection
	}
	number, ok := connectionNumbers[q.Order]
	if !ok {
		return nil, fmt.Errorf("%w: order %.64q: want connection, held or wait", api.ErrQuery, q.Order)
	}
	limit, err := parseLimit(q.Limit)
	if err != nil {
		return nil, err
	}
	order := string(q.Order)
	after, err := parseCursor(order, q.Cursor)
	if err != nil {
		return nil, err
	}
	end, err := srv.beginWalk(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	all := page[*snapshot]{limit: limit}
	walk := connectionWalk{limit: limit, after: after, keys: api.ListedKeys, number: number}
	walk.wanted = func(sh *shard, s *session) bool {
		return (!q.Holding || s.keys > 0) && (!q.Waiting || sh.waits(s)) && hasAddress(s.address(), q.Address) && isClient(s, q.Client)
	}
	found, err := srv.snapshots(ctx, &walk)
	if err != nil {
		return nil, err
	}
	snapshots, next := all.merge(order, found)
	connections, err := srv.addRemoteKeys(ctx, snapshots, api.ListedKeys)
	if err != nil {
		return nil, err
	}
	return &api.ConnectionPage{Connections: connections, Matching: all.matching, Next: next}, nil
}

// Connection returns one connection.
func (srv *Server) Connection(ctx context.Context, id api.ConnectionID) (*api.Connection, error) {
	end, err := srv.beginWalk(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var snapshots []*snapshot
	walk := connectionWalk{limit: 1, keys: api.MaxLimit, number: connectionNumbers[api.ByConnection]}
	walk.wanted = func(_ *shard, s *session) bool { return s.id() == id }
	err = srv.seek(ctx, func() (bool, error) {
		found, err := srv.snapshots(ctx, &walk)
		all := page[*snapshot]{limit: 1}
		snapshots, _ = all.merge("", found)
		return len(snapshots) > 0, err
	})
	if err != nil {
		return nil, err
	}
	if len(snapshots) == 0 {
		return nil, notConnected(id)
	}
	connections, err := srv.addRemoteKeys(ctx, snapshots, api.MaxLimit)
	if err != nil {
		return nil, err
	}
	return &connections[0], nil
}

// seekTime bounds how long a connection is sought that may be moving from loop to loop.
const seekTime = 100 * time.Millisecond

// seek looks for a connection until it is found, or until no connection has moved during a look: one that moves may be on
// no loop, or on each loop just when that is not examined. If connections move all the time it gives up after some looks.
func (srv *Server) seek(ctx context.Context, look func() (found bool, err error)) error {
	for delay := time.Millisecond; ; delay *= 2 {
		arrived := srv.arrived.Load()
		if found, err := look(); found || err != nil {
			return err
		}
		if srv.departed.Load() == arrived || delay > seekTime {
			return nil
		}
		if !pause(ctx, delay) {
			return unavailable(ctx)
		}
	}
}

func notConnected(id api.ConnectionID) error {
	return fmt.Errorf("%w: there is no connection %d", api.ErrNotFound, id)
}

// hasAddress reports whether an address, as text, starts with the prefix.
func hasAddress(a address, prefix string) bool {
	var buf [64]byte
	switch {
	case prefix == "":
		return true
	case a.IsValid():
		return hasPrefix(a.AppendTo(buf[:0]), prefix)
	}
	return strings.HasPrefix(a.String(), prefix)
}

// snapshot is what the loop of a session knows of it.
type snapshot struct {
	at           rank
	connection   api.Connection
	remoteOwners []*remoteOwner // each belongs to its own loop
}

func (s *snapshot) rank() rank { return s.at }

// connectionNumbers return the number by which each order sorts, the greatest first.
var connectionNumbers = map[api.ConnectionOrder]func(*shard, *session) int64{
	api.ByConnection: func(_ *shard, s *session) int64 { return -int64(s.id()) },
	api.ByHeld:       func(_ *shard, s *session) int64 { return int64(s.keys) },
	api.ByWaited: func(sh *shard, s *session) int64 {
		if !sh.waits(s) {
			return math.MinInt64
		}
		return -int64(s.waitsSince())
	},
}

// connectionWalk says which sessions are sought.
type connectionWalk struct {
	limit  int   // of the sessions of each shard
	after  *rank // nil for the first ones
	keys   int   // that are listed of each
	number func(*shard, *session) int64
	wanted func(*shard, *session) bool
}

// snapshots returns, for each shard, the first of its sessions that are sought.
func (srv *Server) snapshots(ctx context.Context, sought *connectionWalk) ([]*page[*snapshot], error) {
	type walk struct {
		page     page[*snapshot]
		sessions bagWalk
	}
	found, err := queryAll(ctx, srv, func(sh *shard, w *walk) (more bool) {
		w.page.limit, w.page.after = sought.limit, sought.after
		listed := 0
		var name []byte
		return sh.roster.sessions.walk(&w.sessions, sessionsPerStep, func(s *session) bool {
			if !sought.wanted(sh, s) {
				return true
			}
			n := sought.number(sh, s)
			if name = fmt.Appendf(name[:0], "%020d", s.id()); w.page.wants(n, name) { // names of one length sort as their numbers do
				c := sh.snapshot(s, sought.keys)
				c.at = rank{n, string(name)}
				listed += len(c.connection.Holds)
				w.page.add(c)
			}
			return listed < keysPerStep
		})
	})
	pages := make([]*page[*snapshot], 0, len(found))
	for _, w := range found {
		pages = append(pages, &w.page)
	}
	return pages, err
}

// snapshot returns what the session's loop knows of it, with at most the given number of keys.
func (sh *shard) snapshot(s *session, keys int) *snapshot {
	c := api.Connection{
		Peer:             s.peer(),
		Since:            sh.loop.Time(s.since),
		ConnectedSeconds: sh.secondsSince(s.since),
		Loop:             sh.index,
		State:            api.Idle,
		Held:             int(s.keys),
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
	if sh.waits(s) {
		c.WaitedSeconds = sh.secondsSince(s.waitsSince())
		if c.WaitsFor = string(s.request.key); s.remoteShard == noShard {
			c.WaitsFor = string(s.request.waitsFor())
		}
	}
	return &snapshot{connection: c, remoteOwners: slices.Clone(s.remoteOwners)}
}

// waitsSince returns since when a session waits that does.
func (s *session) waitsSince() time.Duration {
	if s.remoteShard == noShard {
		return s.request.waiter.Since()
	}
	return s.sentAt
}

// answersWithin is the time after which a lock that another loop has not answered is taken to wait there. Only that loop
// knows, and while it is asked the session may go on.
const answersWithin = time.Millisecond

// waits reports whether the session waits for a key.
func (sh *shard) waits(s *session) bool {
	if s.phase != serving || s.outstanding == 0 {
		return false
	}
	if s.remoteShard == noShard {
		a := s.request.behind()
		return s.request.waiter.Queued() || a != nil && !a.try
	}
	return s.request.kind == proto.Lock && s.request.timeout > 0 && sh.loop.Now()-s.sentAt >= answersWithin
}

// addRemoteKeys adds the keys that the connections hold on other loops than their own, up to a limit for each connection.
func (srv *Server) addRemoteKeys(ctx context.Context, snapshots []*snapshot, limit int) ([]api.Connection, error) {
	type walk struct {
		next int // of the snapshots
		held map[api.ConnectionID][]string
	}
	found, err := queryAll(ctx, srv, func(sh *shard, w *walk) (more bool) {
		if w.held == nil {
			w.held = make(map[api.ConnectionID][]string)
		}
		for listed := 0; w.next < len(snapshots) && listed < keysPerStep; w.next++ {
			c := snapshots[w.next]
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
		return w.next < len(snapshots)
	})
	if err != nil {
		return nil, err
	}
	connections := make([]api.Connection, 0, len(snapshots))
	for _, s := range snapshots {
		c := s.connection
		for _, w := range found {
			c.Holds = append(c.Holds, w.held[c.Connection]...)
		}
		c.Holds = c.Holds[:min(len(c.Holds), limit)]
		connections = append(connections, c)
	}
	return connections, nil
}
