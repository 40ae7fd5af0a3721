package faults

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// FleetCases returns the cases of fleets, in the order in which they are shown.
func FleetCases() []*Case {
	const (
		exclusive = "no two holders, tokens rise, one answer a command, no early timeout"
		noneLost  = exclusive + "; no connection ends"
		short     = 5 * time.Second // of a lease
		quota     = "--quota-backend-bytes=16777216"
	)
	return []*Case{
		fleetCase("calm", "none", noneLost+"; order across daemons", fleetOptions{slack: commit}),
		{
			Name: "fleet-order", Fault: "none; clients line up at daemons at random, a commit apart",
			Promise: "they have the key in that order", run: testFleetOrder,
		},
		fleetCase("members-stop", "a member of etcd is stopped (SIGSTOP) for up to 3 s, again and again", noneLost,
			fleetOptions{slack: noOrder}, stopsMember),
		fleetCase("members-kill", "a member is killed and started again, again and again", noneLost,
			fleetOptions{slack: noOrder}, killsMember),
		fleetCase("members-cut", "a member hangs for all daemons, or their connections are reset", noneLost,
			fleetOptions{slack: noOrder}, cutsMember, resetsLinks),
		fleetCase("leader", "the leader is moved, again and again", noneLost+"; order across daemons",
			fleetOptions{slack: 2 * time.Second}, movesLeader),
		fleetCase("compaction", "history is compacted every second or two, each time after a daemon was cut off", noneLost,
			fleetOptions{slack: noOrder}, compacts),
		fleetCase("quota", "the quota of etcd is filled and freed", noneLost,
			fleetOptions{slack: commit, members: []string{quota}}, fillsQuota),
		fleetCase("takeover", "a daemon is taken over about every second, by one with 1 to 3 loops; sometimes it has just been cut off",
			noneLost+"; order across daemons; each keeps its lease", fleetOptions{slack: 2 * time.Second, takeovers: true},
			takesOver, takesOver, takesOver, takesOverBehind),
		fleetCase("etcd-gone", "all members are stopped for longer than a lease", exclusive,
			fleetOptions{ttl: short, fallible: true, slack: noOrder}, stopsEtcd),
		fleetCase("daemons-kill", "daemons are killed, or stopped in order, and started again", exclusive+"; order across daemons",
			fleetOptions{ttl: short, fallible: true, slack: commit}, killsDaemon, restartsDaemon),
		fleetCase("daemons-cut", "a daemon is cut off from etcd for up to two leases: its links hang or end", exclusive,
			fleetOptions{ttl: short, fallible: true, slack: noOrder}, hangsLinks, cutsLinks),
		fleetCase("revoke", "leases are revoked by hand", exclusive+", but for what a daemon grants before it knows",
			fleetOptions{ttl: short, fallible: true, slack: noOrder}, revokesLease),
		fleetCase("daemons-stop", "a daemon is stopped (SIGSTOP) for up to two leases",
			"tokens rise always; the rest for what is granted before and after",
			fleetOptions{ttl: short, fallible: true, slack: noOrder}, stopsDaemon),
		{
			Name: "fleet-stale", Fault: "a daemon is stopped for 20 s while its clients go on to write",
			Promise: "a resource that checks tokens lets no second writer in; they see the end of their connections when it goes on",
			run:     testStaleWriters,
		},
		fleetCase("everything", "all of these at random", "tokens rise always; the rest where the daemon was not stopped",
			fleetOptions{ttl: short, fallible: true, slack: noOrder, members: []string{quota}, takeovers: true}, mishaps...),
	}
}

// commit is how long after somebody is seen to wait at one daemon of a fleet without faults those who ask at another one stand behind.
const commit = 500 * time.Millisecond

// fleetCase returns a case in which clients compete while something goes wrong, again and again.
func fleetCase(name, fault, promise string, o fleetOptions, from ...*mishap) *Case {
	return &Case{Name: "fleet-" + name, Fault: fault, Promise: promise, run: func(t *trial) string {
		clients, length, pause := fleetClients{count: 12, length: 24 * time.Second, think: 5 * time.Millisecond}, 20*time.Second, time.Second
		if t.options.Long {
			clients, length = fleetClients{count: 24, length: time.Minute}, 58*time.Second
		}
		rng := rand.New(rand.NewPCG(t.options.Seed, 0))
		f := t.newFleet(o)
		t.parallel(2, func(i int) {
			switch {
			case i == 0:
				f.compete(clients, t.options.Seed)
			case len(from) > 0:
				f.trouble(rng, length, pause, from...)
			}
		})
		f.heal()
		f.settle(clients.keyNames())
		return f.finish()
	}}
}

// testStaleWriters stops a daemon whose clients hold keys and write to the resource without an end. Clients of the others wait for these
// keys, get them, and write.
func testStaleWriters(t *trial) string {
	const keys, stopped, atOnce = 5, 20 * time.Second, 5 * time.Second
	f := t.newFleet(fleetOptions{ttl: 5 * time.Second, fallible: true, slack: noOrder})
	stale, others := f.nodes[0], f.nodes[1:]
	old := make([]*client, keys)
	for k := range old {
		old[k] = f.dial(stale)
		old[k].mustLock(fleetKey(k))
	}
	began := time.Now().Add(time.Second) // of the stop
	var heirs [keys]time.Duration
	t.parallel(2*keys+1, func(i int) {
		switch {
		case i == 2*keys:
			t.pause(time.Until(began))
			end := stale.begin(false)
			stale.process().signal(syscall.SIGSTOP)
			t.pause(stopped)
			stale.process().signal(syscall.SIGCONT)
			end()
		case i < keys:
			c := old[i]
			c.send(command(fence, fleetKey(i), 0))
			token := f.token(c)
			f.use(c, fleetKey(i), token, time.Second+stopped+atOnce)
			if c.session.ended == never {
				t.violate("a client of the daemon that was stopped still has its connection %s after that, and its lease has ended", atOnce)
			}
			if len(c.session.refused) == 0 {
				t.violate("the resource has refused no write of a client of the daemon that was stopped")
			}
		default:
			key := fleetKey(i - keys)
			for n := 0; n == 0 || time.Since(began) < stopped; n++ {
				c := f.dial(others[n%len(others)])
				if got := c.lock(key, stopped); got != locked {
					t.violate("lock %s: %q, while the daemon that held it is stopped", key, got)
					return
				}
				if n == 0 {
					heirs[i-keys] = time.Since(began)
				}
				c.send(command(fence, key, 0))
				f.use(c, key, f.token(c), 50*time.Millisecond)
				if len(c.session.refused) > 0 {
					t.violate("the resource has refused a write of the new holder of %s", key)
				}
				c.unlock(key)
				c.close()
			}
		}
	})
	f.heal()
	last := time.Duration(0)
	for _, took := range heirs {
		last = max(last, took)
	}
	f.settle((&fleetClients{}).keyNames())
	return fmt.Sprintf("the next holders after %s; %s", seconds(last), f.finish())
}

// token reads the answer to a fence that was sent.
func (f *fleet) token(c *client) (token uint64) {
	reply := c.answer()
	if _, err := fmt.Sscanf(reply, tokenIs+" %d", &token); err != nil {
		f.t.fatal("read a token: %q: %w", reply, err)
	}
	return token
}
