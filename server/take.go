package server

import (
	"context"
	"fmt"

	"dreadlock/lockmgr"
	"dreadlock/reactor"
	"dreadlock/server/api"
)

// taken tells a session on another loop that a key of its own was taken from it. It belongs to the loop of the key until it is
// posted, which is after the answer by which the session learned that it had the key.
type taken struct {
	message reactor.Message // Body: the taken
	session *session
	size    int // of the key, see [lockmgr.KeySize]
}

// Release takes a key from its holder, whose connection stays open, and passes it on as an unlock would. The holder is told nothing
// before it asks. The log says who wanted it.
func (srv *Server) Release(ctx context.Context, q *api.ReleaseQuery) (*api.Release, error) {
	hash := srv.seed.Hash([]byte(q.Key))
	if !srv.serves() { // there may be no shards yet
		return nil, errNotServing
	}
	type outcome struct {
		release *api.Release
		err     error
	}
	owner := srv.shardOf(hash)
	done, err := query(ctx, srv, srv.shards[owner:owner+1], func(sh *shard, o *outcome) (more bool) {
		o.release, o.err = sh.take(q, hash)
		return o.release == nil && o.err == nil
	})
	if err != nil {
		return nil, err
	}
	return done[0].release, done[0].err
}

// take takes a key from its holder. It returns nothing while that is too early: the holder has been granted a key, this one or
// another, and is about to be told.
func (sh *shard) take(q *api.ReleaseQuery, hash uint64) (*api.Release, error) {
	key := []byte(q.Key)
	h := sh.table.Find(hash, key)
	switch {
	case sh.closed:
		return nil, errNotServing
	case h.Owner == nil:
		return nil, notHeld(q.Key)
	case isPlace(h):
		return nil, fmt.Errorf("%w: %s has the key %.64q: ask there", api.ErrConflict, holderOf(h).peer().Where(), q.Key)
	case q.Connection != 0 && q.Connection != holderOf(h).peer().Connection, q.Token != 0 && q.Token != h.Token:
		return nil, fmt.Errorf("%w: connection %d holds the key %.64q, by the token %d", api.ErrConflict, holderOf(h).peer().Connection,
			q.Key, h.Token)
	case sh.grants.Has(h.Owner):
		return nil, nil //nolint:nilnil // neither done nor failed: it is tried again
	}
	was, former, ended := sh.describe(h), holderOf(h), h.Closed
	sh.table.Advance(sh.loop.Now())
	sh.journal.taking(q.By, func() { sh.table.Take(hash, key, &sh.grants) })
	if !ended { // otherwise it does not count its keys any more
		former.taken(sh, lockmgr.KeySize(len(key)))
	}
	r := &api.Release{Key: was.Key, Holder: was.Holder, Token: was.Token, HeldSeconds: was.HeldSeconds}
	if h = sh.table.Find(hash, key); h.Owner != nil {
		r.Next, r.Waiters = new(holderOf(h).peer()), h.Waiters
	}
	sh.logRelease(r, q.By)
	return r, nil
}

// logRelease says that an operator has taken a key from its holder.
func (sh *shard) logRelease(r *api.Release, by string) {
	event := sh.server.cfg.Log.Warn().Str("key", r.Key).Uint64("connection", uint64(r.Holder.Connection)).Str("client", r.Holder.Address)
	if r.Holder.Name != "" {
		event = event.Str("name", r.Holder.Name)
	}
	event = event.Uint64("token", r.Token).Float64("held_seconds", r.HeldSeconds).Str("by", by)
	if r.Next != nil {
		event = event.Uint64("next", uint64(r.Next.Connection))
	}
	event.Int("waiters", r.Waiters).Msg("key taken from its holder: an operator asked for it")
}

// taken has the session know that a key of the shard is not its own any more. It stays on its loop until then, since it counts the
// key.
func (s *session) taken(sh *shard, size int) {
	if home := s.roster; home.index != sh.index {
		note := &taken{session: s, size: size}
		note.message.Body = note
		sh.loop.Post(home.index, &note.message)
		return
	}
	s.lostKey(size)
}

// lostKey takes note that a key was taken from the session. If the server drains and that was all the session had, the next look
// ends it.
func (s *session) lostKey(size int) {
	s.roster.loop.AssertOn("session")
	if s.phase < ended {
		s.keys--
		s.keyBytes -= size
	}
}
