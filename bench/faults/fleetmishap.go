package faults

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// mishap is something that goes wrong for a while in a fleet, and is well again when do returns.
type mishap struct {
	name string
	do   func(f *fleet, rng *rand.Rand)
}

// mishaps are all that there are.
var mishaps = []*mishap{
	stopsMember, killsMember, stopsEtcd, stopsDaemon, killsDaemon, restartsDaemon, hangsLinks, cutsLinks, cutsMember, resetsLinks,
	revokesLease, compacts, movesLeader, fillsQuota, takesOver, takesOverBehind,
}

var (
	stopsMember     = &mishap{"a member stopped", (*fleet).stopMember}
	killsMember     = &mishap{"a member killed", (*fleet).killMember}
	stopsEtcd       = &mishap{"all of etcd stopped", (*fleet).stopEtcd}
	stopsDaemon     = &mishap{"a daemon stopped", (*fleet).stopDaemon}
	killsDaemon     = &mishap{"a daemon killed", (*fleet).killDaemon}
	restartsDaemon  = &mishap{"a daemon restarted", (*fleet).restartDaemon}
	hangsLinks      = &mishap{"the links of a daemon hang", func(f *fleet, rng *rand.Rand) { f.cutDaemon(rng, hangs) }}
	cutsLinks       = &mishap{"the links of a daemon cut", func(f *fleet, rng *rand.Rand) { f.cutDaemon(rng, refuses) }}
	cutsMember      = &mishap{"a member cut off from all daemons", (*fleet).cutMember}
	resetsLinks     = &mishap{"connections to etcd reset", (*fleet).resetLinks}
	revokesLease    = &mishap{"a lease revoked", (*fleet).revokeLease}
	compacts        = &mishap{"history compacted", (*fleet).compact}
	movesLeader     = &mishap{"the leader moved", (*fleet).moveLeader}
	fillsQuota      = &mishap{"the quota filled", (*fleet).fillQuota}
	takesOver       = &mishap{"a takeover", func(f *fleet, rng *rand.Rand) { f.takeOver(rng, f.randomNode(rng)) }}
	takesOverBehind = &mishap{"a takeover of a daemon that was cut off", (*fleet).takeOverBehind}
)

// trouble has things go wrong for a time, one after another, with pauses of at most that length.
func (f *fleet) trouble(rng *rand.Rand, length, pause time.Duration, from ...*mishap) {
	for end := time.Now().Add(length); time.Now().Before(end) && !f.t.stopped(); f.t.pause(upTo(rng, pause)) {
		m := from[rng.IntN(len(from))]
		f.note(m.name)
		m.do(f, rng)
	}
}

// upTo returns a random time of at most that length, and not much less than a quarter of it.
func upTo(rng *rand.Rand, length time.Duration) time.Duration {
	return length/4 + time.Duration(rng.Int64N(int64(length)*3/4+1))
}

func (f *fleet) randomNode(rng *rand.Rand) *node { return f.nodes[rng.IntN(len(f.nodes))] }

func (f *fleet) stopMember(rng *rand.Rand) {
	m := f.cluster.Members[rng.IntN(fleetSize)]
	f.t.must(m.Pause())
	f.t.pause(upTo(rng, 3*time.Second))
	f.t.must(m.Resume())
}

func (f *fleet) killMember(rng *rand.Rand) {
	m := f.cluster.Members[rng.IntN(fleetSize)]
	m.Kill()
	f.t.pause(upTo(rng, 2*time.Second))
	f.t.must(m.Start())
	f.t.pause(2 * time.Second) // so that it is one of the majority again
}

// stopEtcd stops all members for so long that all daemons lose touch.
func (f *fleet) stopEtcd(*rand.Rand) {
	for _, m := range f.cluster.Members {
		f.t.must(m.Pause())
	}
	f.t.pause(f.ttl + time.Second)
	for _, m := range f.cluster.Members {
		f.t.must(m.Resume())
	}
}

// stopDaemon stops a daemon, for less than its lease lasts or for more.
func (f *fleet) stopDaemon(rng *rand.Rand) {
	n := f.randomNode(rng)
	end := n.begin(false)
	n.process().signal(syscall.SIGSTOP)
	f.t.pause(upTo(rng, 2*f.ttl))
	n.process().signal(syscall.SIGCONT)
	end()
}

func (f *fleet) killDaemon(rng *rand.Rand) {
	n := f.randomNode(rng)
	n.process().kill()
	f.t.pause(upTo(rng, 2*time.Second))
	f.startDaemon(n)
}

func (f *fleet) restartDaemon(rng *rand.Rand) {
	n := f.randomNode(rng)
	n.process().stop()
	f.startDaemon(n)
}

// cutDaemon cuts a daemon off from etcd, for less than its lease lasts or for more.
func (f *fleet) cutDaemon(rng *rand.Rand, how linkState) {
	n := f.randomNode(rng)
	for _, l := range n.links {
		l.set(how)
	}
	f.t.pause(upTo(rng, 2*f.ttl))
	for _, l := range n.links {
		l.set(carries)
	}
}

// cutMember cuts a member off from all daemons: it hangs, and the other members do not see that.
func (f *fleet) cutMember(rng *rand.Rand) {
	i := rng.IntN(fleetSize)
	for _, n := range f.nodes {
		n.links[i].set(hangs)
	}
	f.t.pause(upTo(rng, 3*time.Second))
	for _, n := range f.nodes {
		n.links[i].set(carries)
	}
}

func (f *fleet) resetLinks(rng *rand.Rand) {
	for _, l := range f.randomNode(rng).links {
		l.reset()
	}
}

// revokeLease revokes the lease of a daemon that is in touch.
func (f *fleet) revokeLease(rng *rand.Rand) {
	n := f.randomNode(rng)
	var s fleetStatus
	if err := n.process().get("/api/v1/status", &s); err != nil || s.Fleet.Lease == "" {
		return // it is not in touch
	}
	lease := s.Fleet.Lease
	id, err := strconv.ParseInt(lease, 16, 64)
	f.t.must(err)
	end := n.begin(true)
	defer end()
	if _, err := f.etcd.Revoke(f.t.ctx, clientv3.LeaseID(id)); err != nil {
		return // it has ended by itself
	}
	f.t.eventually(settleTime, "daemon "+n.name+" has another lease", func() error {
		if err := n.process().get("/api/v1/status", &s); err != nil {
			return err
		}
		if !s.Fleet.InTouch || s.Fleet.Lease == lease {
			return fmt.Errorf("it is in touch: %t, with the lease %s", s.Fleet.InTouch, s.Fleet.Lease)
		}
		return nil
	})
}

// compact removes the history of etcd, after a time in which a daemon has heard nothing of it, which then needs it.
func (f *fleet) compact(rng *rand.Rand) {
	n := f.randomNode(rng)
	for _, l := range n.links {
		l.set(hangs)
	}
	f.t.pause(time.Second)
	f.compactNow()
	for _, l := range n.links {
		l.reset()
		l.set(carries)
	}
}

// compactNow removes the history of etcd.
func (f *fleet) compactNow() {
	if got, err := f.etcd.Get(f.t.ctx, "/"); err == nil {
		_, _ = f.etcd.Compact(f.t.ctx, got.Header.Revision) // it may be compacted already
	}
}

// moveLeader has another member lead.
func (f *fleet) moveLeader(rng *rand.Rand) {
	for _, m := range f.cluster.Members {
		status, err := f.etcd.Status(f.t.ctx, m.URL)
		if err != nil || status.Leader != status.Header.MemberId {
			continue
		}
		all, err := f.etcd.MemberList(f.t.ctx)
		if err != nil {
			return // there is no majority: another fault
		}
		next := all.Members[rng.IntN(len(all.Members))]
		if next.ID == status.Leader {
			continue
		}
		to, err := clientv3.New(clientv3.Config{Endpoints: []string{m.URL}, Logger: f.etcd.GetLogger()})
		f.t.must(err)
		_, _ = to.MoveLeader(f.t.ctx, next.ID) // it may have lost an election since
		_ = to.Close()
		return
	}
}

// fillQuota fills the database until nothing more is written, and makes room after a while. It needs members with a small quota.
func (f *fleet) fillQuota(rng *rand.Rand) {
	const prefix = "/ballast/"
	ballast := strings.Repeat("x", 1<<20)
	full := false
	for i := 0; i < 100 && !full; i++ {
		_, err := f.etcd.Put(f.t.ctx, prefix+strconv.Itoa(i), ballast)
		full = err != nil && strings.Contains(err.Error(), "space exceeded")
	}
	if !full {
		f.t.fatal("the quota of etcd cannot be filled")
	}
	f.t.pause(upTo(rng, 3*time.Second))
	f.t.eventually(settleTime, "etcd has room again", func() error {
		got, err := f.etcd.Delete(f.t.ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		// It is an error if that was compacted before, by a try that came as far as this.
		_, _ = f.etcd.Compact(f.t.ctx, got.Header.Revision, clientv3.WithCompactPhysical())
		for _, m := range f.cluster.Members {
			if _, err := f.etcd.Defragment(f.t.ctx, m.URL); err != nil {
				return err
			}
		}
		_, err = f.etcd.AlarmDisarm(f.t.ctx, &clientv3.AlarmMember{})
		return err
	})
}
