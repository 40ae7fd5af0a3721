package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// stopTime bounds how long the loops may take to say what is held when the server stops.
const stopTime = 300 * time.Millisecond

// losses are the keys that a shard, or all of them, lose when the server stops.
type losses struct {
	keys, waiters int
	resting       int
	named         []api.Key // at most maxNamed of them
	cursor        uint64    // of the walk that names them
}

// stop closes all shards while their loops still run, and says what was held. From then on nothing is granted, answered
// or released, until the process ends: whoever holds a key keeps it until his connection is closed, which tells him that
// it is lost.
func (srv *Server) stop() {
	srv.begin(nil) // if it stops before it was ready
	connections := srv.connections.Load()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	done, missing := eachShard(ctx, srv, srv.shards, (*shard).close)
	_ = srv.eventLog.catchUp(ctx) // what it cannot get now is in no log
	srv.ending()
	var sum losses
	for _, l := range done {
		sum.keys += l.keys
		sum.waiters += l.waiters
		sum.resting += l.resting
		sum.named = append(sum.named, l.named...)
	}
	if missing > 0 || sum.keys+sum.resting > 0 {
		srv.heldAtStop.Store(true)
	}
	srv.logLosses(&sum)
	log := &srv.cfg.Log
	if missing > 0 {
		log.Warn().Int("loops", missing).Msg("busy loops are stopped without counting what they hold")
	}
	summary, text := log.Info(), "dreadlock stops: no key was held"
	if sum.keys > 0 || missing > 0 {
		summary, text = log.Warn(), "dreadlock stops: the keys that were held are lost"
	}
	summary.Int64("connections", connections).Int("held_keys", sum.keys).Int("waiters", sum.waiters).Msg(text)
	srv.drain.end(sum.keys, sum.waiters)
}

// close is a step of a loop task: it closes the shard, and names some of the keys that are held in it.
func (sh *shard) close(l *losses) (more bool) {
	sh.closed = true // from here on the table stays as it is
	l.keys, l.waiters, l.resting = sh.table.Keys(), sh.table.Waiters(), sh.table.Resting()
	l.cursor = sh.table.Walk(l.cursor, bucketsPerStep, func(h lockmgr.Holding) {
		if len(l.named) < maxNamed && !h.Closed && !isPlace(h) {
			l.named = append(l.named, sh.describe(h))
		}
	})
	return l.cursor != 0 && len(l.named) < maxNamed
}

// logLosses names the lost keys, with who held them: the first maxNamed by name of those that the shards have named.
func (srv *Server) logLosses(sum *losses) {
	slices.SortFunc(sum.named, func(a, b api.Key) int { return cmp.Compare(a.Key, b.Key) })
	named := sum.named[:min(len(sum.named), maxNamed)]
	nameKeys(srv.cfg.Log.Warn, named, "key lost")
	if more := sum.keys - len(named); more > 0 {
		srv.cfg.Log.Warn().Int("keys", more).Msg("more keys lost: they are not named")
	}
}
