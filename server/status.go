package server

import (
	"context"
	"fmt"
	"os"
	"time"

	"dreadlock/server/api"
)

// Status returns what the server is and what it has counted.
func (srv *Server) Status(ctx context.Context) (*api.Status, error) {
	type tally struct {
		counters        counters
		messages, wakes uint64
		keys, waiters   int
		memory          int64
		resting         int
		hold, wait      float64 // seconds of the oldest
		lines           int
		tries           uint64
	}
	found, err := queryAll(ctx, srv, func(sh *shard, t *tally) (more bool) {
		traffic := sh.loop.Traffic()
		*t = tally{counters: sh.counters, messages: traffic.Messages, wakes: traffic.WakeUps,
			keys: sh.table.Keys(), waiters: sh.table.Waiters(), memory: sh.memory() + sh.roster.search.readOn, resting: sh.table.Resting(),
			hold: sh.secondsSinceOldest(sh.table.OldestHold()), wait: sh.secondsSinceOldest(sh.table.OldestWait())}
		if ls := sh.lines; ls != nil {
			t.lines, t.tries = len(ls.byKey), ls.tries
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	service := srv.now()
	if service == nil {
		return nil, fmt.Errorf("%w: it is stopping", api.ErrUnavailable)
	}
	standing, deadlocks := srv.detector.known()
	var sum tally
	for _, t := range found {
		sum.counters.add(&t.counters)
		sum.messages += t.messages
		sum.wakes += t.wakes
		sum.keys += t.keys
		sum.waiters += t.waiters
		sum.memory += t.memory
		sum.resting += t.resting
		sum.hold = max(sum.hold, t.hold)
		sum.wait = max(sum.wait, t.wait)
		sum.lines += t.lines
		sum.tries += t.tries
	}
	host, _ := os.Hostname() // there is no name where the kernel does not tell one
	st := &api.Status{
		Version:           srv.cfg.Version,
		Host:              host,
		PID:               os.Getpid(),
		Address:           service.address,
		Listen:            service.listen,
		Started:           service.began,
		UptimeSeconds:     time.Since(service.began).Seconds(),
		Loops:             srv.cfg.Loops,
		Connections:       int(srv.connections.Load()),
		MaxConnections:    srv.cfg.MaxConnections,
		HeldKeys:          sum.keys,
		Waiters:           sum.waiters,
		OldestHoldSeconds: sum.hold,
		OldestWaitSeconds: sum.wait,
		Deadlocks:         len(standing),
		RestingKeys:       sum.resting,
		Takeover:          srv.takeover,
		Drain:             srv.drain.state(),
		Counters:          sum.counters.words(srv.refused()),

		MemoryBytes:      sum.memory,
		MemoryLimitBytes: srv.budget.limit,
	}
	st.LockDelaySeconds = srv.cfg.LockDelay.Seconds()
	st.GrantsInSeconds = max(time.Until(srv.grantsAt()), 0).Seconds()
	st.Counters.AcceptErrors = srv.acceptErrors.counts()
	if store := srv.cfg.Fleet; store != nil {
		st.Fleet = store.Status()
		st.Fleet.Lines, st.Fleet.Tries = sum.lines, sum.tries
	}
	if srv.cfg.Certificates != nil {
		st.CertificateExpires = srv.cfg.Certificates.Expires()
	}
	st.Counters.Messages, st.Counters.WakeUps = sum.messages+sum.counters.before.Messages, sum.wakes+sum.counters.before.WakeUps
	st.Counters.DeadlocksFound, st.Counters.DeadlocksBroken = deadlocks, srv.detector.broken.Load()
	st.Counters.TakeoversFailed = srv.takeoversFailed.Load()
	return st, nil
}

// Deadlocks returns the deadlocks that stand. The detector knows them, so that no loop is asked.
func (srv *Server) Deadlocks(context.Context) (*api.Deadlocks, error) {
	if !srv.serves() { // there may be no shards yet
		return nil, errNotServing
	}
	loop := srv.shards[0].loop
	standing, found := srv.detector.known()
	d := &api.Deadlocks{
		Cycles:   []api.Cycle{},
		Found:    found,
		Broken:   srv.detector.broken.Load(),
		Breaking: srv.cfg.BreakDeadlocks,
	}
	for _, c := range standing {
		cycle := api.Cycle{ID: c.number, Found: c.found}
		for _, e := range c.waits {
			since := loop.Time(e.since)
			who := e.who.more()
			cycle.Waits = append(cycle.Waits, api.Wait{
				Peer: api.Peer{
					Connection: e.waiter.connection, Address: e.who.address.String(), Identity: who.proven,
					Name: who.name, Owner: e.waiter.owner,
				},
				WaitsFor:      e.key,
				Since:         since,
				WaitedSeconds: time.Since(since).Seconds(),
				HeldBy:        e.holder.connection,
			})
		}
		d.Cycles = append(d.Cycles, cycle)
	}
	return d, nil
}
