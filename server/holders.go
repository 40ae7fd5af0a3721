package server

import (
	"context"

	"github.com/rs/zerolog"

	"dreadlock/server/api"
)

// maxNamed is the number of keys that the log names at a time.
const maxNamed = 100

// LogHolders logs who holds what, whatever the level of the log, and which keys rest: a line for each of the first [maxNamed]
// keys by name, and how many more there are. Safe from any goroutine; the error wraps [api.ErrUnavailable].
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

// nameKeys logs a line for each of the keys, with who holds it, or has held it if it rests.
func nameKeys(begin func() *zerolog.Event, keys []api.Key, text string) {
	for i := range keys {
		k := &keys[i]
		line := begin().Str("key", k.Key)
		if k.Holder.Connection != 0 {
			line = line.Uint64("connection", uint64(k.Holder.Connection)).Str("client", k.Holder.Address)
		}
		line = called(line, k.Holder.Identity, k.Holder.Name, k.Holder.Owner)
		line = line.Str("held", api.Age(k.HeldSeconds)).Int("waiters", k.Waiters)
		if k.FreesInSeconds > 0 {
			line.Str("free_in", api.Age(k.FreesInSeconds)).Msg("key rests: nobody holds it until it goes to the next")
			continue
		}
		line.Msg(text)
	}
}
