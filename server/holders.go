package server

import (
	"context"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// maxNamed is the number of keys that the log names at a time.
const maxNamed = 100

// LogHolders logs who holds what, whatever the level of the log: a line for each of the first [maxNamed] keys by name, and how
// many more there are. Safe from any goroutine; the error wraps [api.ErrUnavailable].
func (srv *Server) LogHolders(ctx context.Context) error {
	page, err := srv.Keys(ctx, api.KeyQuery{Limit: maxNamed})
	if err != nil {
		return err
	}
	nameKeys(srv.cfg.Log.Log, page.Keys, "key held")
	if more := page.Matching - len(page.Keys); more > 0 {
		srv.cfg.Log.Log().Int("keys", more).Msg("more keys held: they are not named")
	}
	return nil
}

// nameKeys logs a line for each of the keys, with who holds it.
func nameKeys(begin func() *zerolog.Event, keys []api.Key, text string) {
	for i := range keys {
		k := &keys[i]
		line := begin().Str("key", k.Key).Uint64("connection", uint64(k.Holder.Connection)).Str("client", k.Holder.Address)
		line = called(line, k.Holder.Identity, k.Holder.Name, k.Holder.Owner)
		line.Str("held", api.Age(k.HeldSeconds)).Int("waiters", k.Waiters).Msg(text)
	}
}
