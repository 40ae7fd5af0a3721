package server

import (
	"context"
	"sync"

	"dreadlock/lockmgr"
	"dreadlock/proto"
	"dreadlock/server/api"
)

// kick is an operator's wish to end a session. The loops of the keys that this frees say which they are, and the last of them
// logs it: a kick is always logged, whatever becomes of who has asked for it.
type kick struct {
	server *Server
	by     string        // who asks: the address, and the user where it is known
	done   chan struct{} // closed when all keys are freed

	mu      sync.Mutex
	session *session // nil before it begins
	left    int      // loops that have not freed the keys yet
	held    int      // keys that were freed
	keys    []string // the first of them
}

// maxNamedKey is how much is kept of the name of a key that a kick frees, in bytes.
const maxNamedKey = 64

func (srv *Server) newKick(by string) *kick {
	return &kick{server: srv, by: by, done: make(chan struct{})}
}

// begin says whom it is about, and on how many loops the session may hold keys.
func (k *kick) begin(s *session, loops int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session, k.left = s, loops
}

// frees takes note of the keys of one loop that the session loses: those of an owner, which has not been closed yet. There are
// none if it is nil.
func (k *kick) frees(o *lockmgr.Owner) {
	k.mu.Lock()
	if o != nil {
		k.held += o.Keys()
		o.Each(func(h lockmgr.Holding) bool {
			if len(k.keys) < api.NamedKeys {
				k.keys = append(k.keys, quoted(string(h.Key)))
			}
			return len(k.keys) < api.NamedKeys
		})
	}
	k.left--
	last := k.left == 0
	k.mu.Unlock()
	if last {
		k.log()
		close(k.done)
	}
}

// quoted returns a key, or its beginning if it is long.
func quoted(key string) string {
	if len(key) <= maxNamedKey {
		return key
	}
	return key[:maxNamedKey] + "..."
}

// log logs the kick.
func (k *kick) log() {
	s := k.session
	held, keys := k.freed()
	s.described(k.server.cfg.Log.Warn().Uint64("connection", uint64(s.id()))).
		Str("by", k.by).Int("held_keys", held).Strs("keys", keys).Msg("client kicked: an operator asked for it")
}

// freed returns the number of keys that were freed so far, and the first of them.
func (k *kick) freed() (held int, keys []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held, k.keys[:len(k.keys):len(k.keys)]
}

// Kick closes a connection: the keys that it holds go to their first waiters. by says who asks for it: it is logged.
func (srv *Server) Kick(ctx context.Context, id api.ConnectionID, by string) error {
	type walk struct {
		sessions bagWalk
		kicked   bool
	}
	k := srv.newKick(by)
	done := false
	err := srv.seek(ctx, func() (bool, error) {
		found, err := queryAll(ctx, srv, func(sh *shard, w *walk) (more bool) {
			more = sh.roster.sessions.walk(&w.sessions, sessionsPerStep, func(s *session) bool {
				if s.id() == id {
					s.kick(k)
					w.kicked = true
				}
				return !w.kicked
			})
			return more && !w.kicked
		})
		for _, w := range found {
			done = done || w.kicked
		}
		return done, err
	})
	switch {
	case err != nil:
		return err
	case !done:
		return notConnected(id)
	}
	select {
	case <-k.done: // its other loops have heard of it too
	case <-ctx.Done():
	}
	return nil
}

// kick ends the session and its connection at once, even if the client has not read all its answers. One that waits is told:
// its client would take the end for a loss, and ask again.
func (s *session) kick(k *kick) {
	s.setKick(k)
	s.roster.shard.journal.kicked(s)
	if s.phase >= ended {
		k.begin(s, 1)
		k.frees(nil)
		s.conn.Close()
		return
	}
	loops := 1
	for _, o := range s.remoteOwners {
		if o != nil {
			loops++
		}
	}
	k.begin(s, loops)
	if s.phase == serving && s.outstanding > 0 && s.request.kind == proto.Lock {
		s.reply(proto.Lock, proto.Kicked)
		s.flush()
	}
	s.end(kicked)
	s.conn.Close()
}
