package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"dreadlock/reactor"
	"dreadlock/server/api"
	"dreadlock/server/takeover"
)

// How a server takes over from its predecessor: the other side of handover.go, handoverpause.go and handoverend.go.
//
//	listeners ──► loops ──► room for the connections ──► prepared
//	──► estate ──► stand still, restore, verify ──► ready, commit, ack ──► begin
//	──► the predecessor has left: what it could not hand over ends
//
// Nothing happens before the ack that a client could see.

const (
	// estateTime is how long the predecessor may take from when this process is prepared.
	estateTime = 30 * time.Second
	// restoreTime is how long this process may take to restore everything. The predecessor has given up before.
	restoreTime = 10 * time.Second
	// spareRoom is for connections that come while this process prepares, beside a quarter of those that there are.
	spareRoom = 256
)

// startOf returns the time 0 of the server: that of its predecessor, if it has one.
func (srv *Server) startOf() (start time.Time) {
	if p := srv.cfg.Predecessor; p != nil {
		start = reactor.StartedAt(p.Start)
	}
	return start
}

// inheritor returns what takes over from the predecessor, nil if there is none.
func (srv *Server) inheritor(entrances []*entrance) func(context.Context, *reactor.Heir) error {
	p := srv.cfg.Predecessor
	if p == nil {
		return nil
	}
	return func(ctx context.Context, h *reactor.Heir) error {
		err := srv.takeOverFrom(ctx, p, h)
		if err != nil {
			p.Refuse(err) // at once: it may stand still
			return err
		}
		srv.own(entrances)
		srv.logInherited()
		return nil
	}
}

// takeOverFrom does everything that must be done before the server can serve in place of its predecessor, and begins.
func (srv *Server) takeOverFrom(ctx context.Context, p *takeover.Predecessor, h *reactor.Heir) error {
	if err := srv.prepareFleet(ctx, p.Fleet); err != nil {
		return err
	}
	room, err := srv.roomFor(p.Connections)
	if err != nil {
		return err
	}
	if err := h.MakeBlanks(ctx, room); err != nil {
		return err
	}
	defer pauseCollector()()
	if err := p.Prepared(ctx, takeover.Prepared{Room: room, Version: srv.cfg.Version}); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, estateTime)
	defer cancel()
	file, announced, descriptors, err := p.Receive(bounded)
	if err != nil {
		return err
	}
	defer descriptors.Close()
	s, err := h.Stand(ctx, restoreTime)
	if err != nil {
		return err
	}
	digest, err := srv.restoreFrom(bounded, h, s, file, descriptors)
	if err != nil {
		return err
	}
	if !s.Commit() {
		return errors.New("it has taken too long to restore everything")
	}
	if err := p.TakeOver(ctx, digest.bytes()); err != nil {
		return err
	}
	h.Begin(p.KeepAlive)
	srv.takeover.At = time.Now()
	srv.takeover.PauseSeconds = (time.Since(srv.startOf()) - announced.Since).Seconds()
	srv.takeover.Closed = announced.Closed
	return nil
}

// restoreFrom reads the estate and restores it, on loops that stand still.
func (srv *Server) restoreFrom(
	ctx context.Context, h *reactor.Heir, s *reactor.Standstill, file []byte, descriptors *takeover.Descriptors,
) (sum digest, err error) {
	e, parts, err := readEstate(file)
	if err != nil {
		return sum, err
	}
	carried := descriptors.Left()
	loops := make([]*reactor.Loop, len(srv.shards))
	sum, err = srv.restore(e, parts, inheritance{
		carried:   carried,
		next:      func() (int, error) { return descriptors.Next(ctx) },
		entrances: slices.Clone(srv.entrances),
		room:      h.Room(),
		each: func(f func(sh *shard)) error {
			return s.Each(func(l *reactor.Loop) {
				loops[l.Index()] = l
				f(srv.shards[l.Index()])
			})
		},
		adopt: func(sh *shard, client reactor.Client, fd int, state reactor.ConnState) error {
			return loops[sh.index].Adopt(client, fd, state)
		},
	})
	p := srv.cfg.Predecessor
	srv.takeover = &api.Takeover{
		Count: e.Takeovers + 1, FromPID: p.PID, FromVersion: p.Version, PID: os.Getpid(), Version: srv.cfg.Version,
		Connections: carried, HeldKeys: e.Size.Keys, Waiters: e.Size.Waiters,
	}
	return sum, err
}

// roomFor returns for how many connections room is to be made, or why there is too little for those that are announced.
func (srv *Server) roomFor(announced int) (int, error) {
	limit, reserved := openFiles(), reservedDescriptors(srv.cfg.Loops, len(srv.ways))
	if announced > limit-reserved {
		return 0, fmt.Errorf("the limit on open files is %d, which leaves room for %d connections, and there are %d: "+
			"raise it with ulimit -n or LimitNOFILE=", limit, max(limit-reserved, 0), announced)
	}
	return min(announced+announced/4+spareRoom, limit-reserved), nil
}

// logInherited says what was taken over.
func (srv *Server) logInherited() {
	t := srv.takeover
	srv.logTakeover(t).Int("pid", t.PID).Int("from_pid", t.FromPID).Str("from_version", t.FromVersion).Uint64("count", t.Count).
		Msg("dreadlock has taken over")
}

// awaitPredecessor waits until the predecessor has left, and ends what it could not hand over: until then a client of those may
// take a key for its own. The server serves: before that nothing reaches its loops.
func (srv *Server) awaitPredecessor(ctx context.Context) {
	p := srv.cfg.Predecessor
	hangs := func() {
		srv.cfg.Log.Warn().Int("from_pid", p.PID).Msg("the process that has handed over does not end: it is killed")
		if srv.cfg.Hangs != nil {
			srv.cfg.Hangs()
		}
	}
	if p.AwaitEnd(ctx, hangs) {
		eachShard(ctx, srv, srv.shards, (*shard).endAbsent)
	}
}
