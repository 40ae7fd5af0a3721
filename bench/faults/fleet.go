package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"dreadlock/bench/fleet/etcdtest"
)

// fleetSize is the number of members of etcd, and of daemons.
const fleetSize = 3

// settleTime is how long it may take after the last fault until every key can be had again at every daemon: leases have expired, and a
// new leader gives them their whole time once more.
const settleTime = 30 * time.Second

// fleet is a fleet of daemons, each with links of its own to the members of etcd, and the history of its clients.
//
//	clients ──► daemon 0 ──► links ──► member 0
//	        ──► daemon 1 ──► links ──► member 1
//	        ──► daemon 2 ──► links ──► member 2
type fleet struct {
	t        *trial
	cluster  *etcdtest.Cluster
	etcd     *clientv3.Client
	nodes    []*node
	records  *lab // has the clients and their history
	resource resource
	ttl      time.Duration

	mu    sync.Mutex
	count map[string]int // faults that were made
}

// node is a daemon of a fleet, over all of its starts.
type node struct {
	name    string
	address string
	links   []*link // to each member
	options []string

	// fallible says that the daemon may end any connection, for what happens to it or to etcd.
	fallible bool
	// slack is how long after a client is seen to wait at one daemon those who ask at another one have to stand behind it. noOrder: that
	// is not known.
	slack time.Duration
	// takeovers says that the daemon is taken over.
	takeovers bool

	mu     sync.Mutex
	daemon *daemon  // that was started last
	doubts []*doubt // in their order
}

// fleetOptions say what fleet a case needs.
type fleetOptions struct {
	ttl      time.Duration // of the leases; 0 for 10 s
	fallible bool          // see node
	slack    time.Duration // see node
	members  []string      // options of the members
	// takeovers says that the daemons are taken over.
	takeovers bool
}

// newFleet starts a fleet, and returns when all of its daemons are in touch.
func (t *trial) newFleet(o fleetOptions) *fleet {
	if o.ttl == 0 {
		o.ttl = 10 * time.Second
	}
	f := &fleet{t: t, records: &lab{t: t, history: &history{}}, ttl: o.ttl, count: make(map[string]int)}
	f.resource.keys = make(map[string]*written)
	var err error
	if o.takeovers {
		if err := adoptOrphans(); err != nil {
			t.fatal("adopt orphans: %w", err)
		}
		t.install(asItself(2))
	}
	if f.cluster, err = etcdtest.Start(etcdtest.Options{Program: t.options.Members, Dir: t.dir, Args: o.members}); err != nil {
		t.fatal("%w", err)
	}
	t.cleanup(f.cluster.Stop)
	quiet := clientv3.Config{Endpoints: f.cluster.Endpoints(), Logger: zap.NewNop(), DialTimeout: patience}
	ctx, cancel := context.WithTimeout(t.ctx, 2*patience)
	defer cancel()
	if _, err = f.cluster.AwaitLeader(ctx, quiet); err != nil {
		t.fatal("%w", err)
	}
	if f.etcd, err = clientv3.New(quiet); err != nil {
		t.fatal("%w", err)
	}
	t.cleanup(func() { _ = f.etcd.Close() })
	for i := range fleetSize {
		n := &node{name: "d" + strconv.Itoa(i), address: t.freeAddress(), fallible: o.fallible, slack: o.slack}
		var urls []string
		for _, m := range f.cluster.Members {
			l, err := newLink(strings.TrimPrefix(m.URL, "http://"))
			t.must(err)
			t.cleanup(l.close)
			n.links = append(n.links, l)
			urls = append(urls, "http://"+l.address)
		}
		n.options = []string{"--fleet", strings.Join(urls, ","), "--fleet-ttl", o.ttl.String(), "--fleet-advertise", n.address}
		if n.takeovers = o.takeovers; !o.takeovers {
			n.options = append(n.options, "--loops", "2")
		}
		f.nodes = append(f.nodes, n)
		f.startDaemon(n)
	}
	for _, n := range f.nodes {
		f.awaitTouch(n)
	}
	return f
}

// prepareFleets completes the options for fleets, and prints the seed. What was made for them is to be removed at the end.
func (o *Options) prepareFleets() (remove func(), err error) {
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1<<32) + 1
	}
	fmt.Fprintf(o.Progress, "seed %d\n", o.Seed) //nolint:errcheck // progress
	if o.Members != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "dreadlock-members-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) } // it is in the directory for temporary files
	if o.Members, err = etcdtest.Find(dir); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// freeAddress returns an address of this machine at which nobody listens.
func (t *trial) freeAddress() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	t.must(err)
	defer ln.Close() //nolint:errcheck // nobody has connected to it
	return ln.Addr().String()
}

// startDaemon starts the daemon of a node, and returns when it serves.
func (f *fleet) startDaemon(n *node) {
	d := f.t.startDaemon(func(start func() error) error { return start() }, nil, n.address, n.options...)
	d.restarts = n.takeovers
	f.t.must(d.awaitReady())
	n.mu.Lock()
	defer n.mu.Unlock()
	n.daemon = d
}

// process returns the daemon that was started last.
func (n *node) process() *daemon {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.daemon
}

// dial connects to the daemon.
func (n *node) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", n.address)
}

// fleetStatus is what a daemon says about its fleet.
type fleetStatus struct {
	Fleet struct {
		InTouch bool   `json:"in_touch"`
		Reason  string `json:"reason"`
		Lease   string `json:"lease"`
	} `json:"fleet"`
}

// awaitTouch waits until a daemon is in touch with the fleet.
func (f *fleet) awaitTouch(n *node) {
	f.t.eventually(settleTime, "daemon "+n.name+" is in touch", func() error {
		var s fleetStatus
		if err := n.process().get("/api/v1/status", &s); err != nil {
			return err
		}
		if !s.Fleet.InTouch {
			return fmt.Errorf("it is not: %s", s.Fleet.Reason)
		}
		return nil
	})
}

// note counts a fault that was made.
func (f *fleet) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count[what]++
}

// heal ends all faults: all members and daemons run, and all links carry.
func (f *fleet) heal() {
	for _, m := range f.cluster.Members {
		if m.Runs() {
			f.t.must(m.Resume())
		} else {
			f.t.must(m.Start())
		}
	}
	for _, n := range f.nodes {
		for _, l := range n.links {
			l.set(carries)
		}
		if d := n.process(); d.running() {
			d.signal(syscall.SIGCONT)
		} else {
			f.startDaemon(n)
		}
	}
	for _, n := range f.nodes {
		f.awaitTouch(n)
	}
}

// settle checks, when the faults and the clients have ended, that every key can be had at every daemon: nobody would wait for ever.
func (f *fleet) settle(keys []string) {
	began := time.Now()
	for _, n := range f.nodes {
		c := f.dial(n)
		for _, key := range keys {
			left := max(settleTime-time.Since(began), time.Second)
			if got := c.lock(key, left); got != locked {
				f.t.violate("%s after the faults: daemon %s: lock %s: %q", settleTime, n.name, key, got)
			}
			if got := c.unlock(key); got != unlocked {
				f.t.violate("after the faults: daemon %s: unlock %s: %q", n.name, key, got)
			}
		}
		c.close()
	}
}

// dial connects a client to a daemon that must serve.
func (f *fleet) dial(n *node) *client {
	c := f.records.dial(n.dial)
	c.session.node = n
	return c
}

// finish checks the history, and returns what was measured.
func (f *fleet) finish() string {
	for _, c := range f.records.clients {
		c.close()
	}
	ended := 0
	for _, s := range f.records.history.sessions {
		if s.ended != never {
			ended++
		}
	}
	v := check(f.records.history)
	for _, what := range v.violations {
		f.t.violate("%s", what)
	}
	for _, what := range f.resource.twice {
		f.t.violate("the resource was written to by two sessions with one token: %s", what)
	}
	f.t.commands.Add(v.answered())
	grants := v.answers["lock "+locked]
	f.t.grants.Add(grants)
	for _, n := range f.nodes {
		d := n.process()
		if d.running() {
			d.stop()
		}
		d.checkLog()
	}
	if v.across == 0 && len(f.count) == 0 && !f.nodes[0].fallible {
		f.t.violate("no two waiters of different daemons competed whose order is known: the check of the order has checked nothing")
	}
	text := fmt.Sprintf("%d grants, %d pairs in confirmed order and %d of them over daemons, %d writes and %d refused, %d connections ended",
		grants, v.pairs, v.across, f.resource.writes, f.resource.refused, ended)
	for _, m := range mishaps {
		if times := f.count[m.name]; times > 0 {
			text += fmt.Sprintf("; %d x %s", times, m.name)
		}
	}
	return text
}
