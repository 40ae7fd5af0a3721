package bench

import "fmt"

// Goal is a bound on a figure of the daemon, and whether the daemon keeps it.
type Goal struct {
	Number  int     `json:"number"`
	Server  string  `json:"server"` // the daemon with its loops
	What    string  `json:"what"`
	Got     Stat    `json:"got"`
	Target  float64 `json:"target"`
	AtLeast bool    `json:"at_least"` // Got must be at least Target; otherwise at most
	Unit    string  `json:"unit"`     // "x" of a ratio
	// Measured is false if the figure is missing: a peer is not installed, or the case was not run.
	Measured bool `json:"measured"`
	// Met says whether the median keeps the bound; for a count of faults, whether every round does.
	Met bool `json:"met"`
}

// Figure is the measured value as text.
func (g Goal) Figure() string {
	if !g.Measured {
		return "-"
	}
	return spread(g.Got, "%.4g")
}

// Bound is the target as text.
func (g Goal) Bound() string {
	sign := "<="
	if g.AtLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %g %s", sign, g.Target, g.Unit)
}

// Verdict says whether the goal is met.
func (g Goal) Verdict() string {
	switch {
	case !g.Measured:
		return "not measured"
	case g.Met:
		return "met"
	}
	return "NOT MET"
}

// The targets in the order of the goals.
const (
	maxEchoCPU      = 1.15   // times the echo server
	maxOthersCPU    = 1.0    // times redis and memcached
	minContended    = 0.8    // times uncontended
	minPipelined    = 14.0   // commands for each round trip of the echo server
	maxQueueCPU     = 1.3    // times the cost with a hundred waiters
	minHandOver     = 0.7    // times the rate of one loop
	maxLate         = 15.0   // ms, for 99.9 % of the waits
	maxIdleMemory   = 1536.0 // bytes
	maxChurnCPU     = 1.5    // times the echo server, which gnet accepts for
	maxChurnOthers  = 1.3    // times memcached
	maxAloneLatency = 1.0    // times redis
	maxTLSCPU       = 1.3    // times plain TCP
	maxUnixVisit    = 0.75   // times plain TCP
	maxFleetCPU     = 1.3    // times a daemon that is alone
	maxTakeMany     = 20.0   // ms, with 1,000 connections
	maxTakeMost     = 150.0  // ms, with 15,000
)

// CheckGoals returns the goals of the daemon with its default number of loops and with one loop.
func CheckGoals(c *Comparison) []Goal {
	var goals []Goal
	for _, daemon := range distinct(peersDaemon) {
		k := &goalKeeper{comparison: c, daemon: daemon, server: daemon.Name()}
		k.check(Peer{Kind: GnetEcho, Loops: daemon.loops()}.Name())
		goals = append(goals, k.goals...)
	}
	return goals
}

// AtLeast returns the goal that the throughput of a server is at least so many times that of another one, on the same workload.
func (c *Comparison) AtLeast(number int, what string, w *Workload, server, other string, times float64) Goal {
	k := &goalKeeper{comparison: c, server: server}
	k.atLeast(number, what+", relative to "+other, k.times(w, Throughput, w, other), times)
	return k.goals[0]
}

// goalKeeper checks the goals of one server.
type goalKeeper struct {
	comparison *Comparison
	daemon     Peer
	server     string // its name
	goals      []Goal
}

func (k *goalKeeper) check(echo string) {
	for _, w := range []Workload{loadFew, loadMany} {
		label := fmt.Sprintf("server time per command, %d connections, relative to ", w.Connections)
		k.atMost(1, label+echo, k.times(&w, ServerCPU, &w, echo), maxEchoCPU, "x")
		k.atMost(1, label+peerRedis.Name(), k.times(&w, ServerCPU, &w, peerRedis.Name()), maxOthersCPU, "x")
		k.atMost(1, label+peerMemcached.Name(), k.times(&w, ServerCPU, &w, peerMemcached.Name()), maxOthersCPU, "x")
	}
	k.atLeast(2, "throughput with 50 shared keys relative to own keys, 500 connections",
		k.times(&loadContended, Throughput, &loadRivals, k.server), minContended)
	k.atLeast(3, "pipelined commands, 16 pairs per write, relative to round trips of "+echo,
		k.times(&loadPipelined, Throughput, &loadFew, echo), minPipelined)
	k.atMost(4, "server time per enqueue, queue of 10,000 relative to 100",
		k.times(&loadLongQueue, EnqueueCPU, &loadShortQueue, k.server), maxQueueCPU, "x")
	k.atMost(4, "server time per hand-over, queue of 10,000 relative to 100",
		k.times(&loadLongQueue, HandOverCPU, &loadShortQueue, k.server), maxQueueCPU, "x")
	if k.server != peerDaemon1.Name() {
		k.atLeast(4, "hand-overs per second relative to one loop, queue of 100",
			k.times(&loadShortQueue, Throughput, &loadShortQueue, peerDaemon1.Name()), minHandOver)
		k.atLeast(4, "hand-overs per second relative to one loop, queue of 10,000",
			k.times(&loadLongQueue, Throughput, &loadLongQueue, peerDaemon1.Name()), minHandOver)
	}
	k.never(5, "timeouts that came early", k.figure(&loadInFlight, Early))
	k.atMost(5, "lateness of timeouts, 99.9 %, 10,000 waits at half load", k.figure(&loadInFlight, LateP999), maxLate, "ms")
	k.atMost(6, "memory per connection that holds a key", k.figure(&loadIdle, IdleMemory), maxIdleMemory, "bytes")
	k.atMost(7, "server time per connect, lock, unlock, close, relative to "+echo,
		k.times(&loadVisits, ServerCPU, &loadVisits, echo), maxChurnCPU, "x")
	k.atMost(7, "server time per connect, lock, unlock, close, relative to "+peerMemcached.Name(),
		k.times(&loadVisits, ServerCPU, &loadVisits, peerMemcached.Name()), maxChurnOthers, "x")
	k.atMost(8, "median latency with one connection, relative to "+peerRedis.Name(),
		k.times(&loadAlone, LatencyP50, &loadAlone, peerRedis.Name()), maxAloneLatency, "x")
	k.atMost(9, "server time per command with TLS, 50 connections, relative to plain TCP",
		ratio(k.over(overTLS, &loadFew), ServerCPU, k.over("", &loadFew), ServerCPU), maxTLSCPU, "x")
	k.atMost(9, "server time per connect, lock, unlock, close over a Unix socket, relative to TCP",
		ratio(k.over(overUnix, &loadVisits), ServerCPU, k.over("", &loadVisits), ServerCPU), maxUnixVisit, "x")
	k.atMost(10, "longest answer in a takeover, 1,000 connections", k.figure(&loadTakeMany, Answer), maxTakeMany, "ms")
	k.atMost(10, "longest answer in a takeover, 15,000 connections", k.figure(&loadTakeMost, Answer), maxTakeMost, "ms")
	k.atMost(11, "server time per command in a fleet, 50 connections with keys of their own, relative to a daemon that is alone",
		ratio(k.over(inFleet, &loadFew), ServerCPU, k.over("", &loadFew), ServerCPU), maxFleetCPU, "x")
	k.atMost(11, "server time per connect, lock, unlock, close in a fleet, relative to a daemon that is alone",
		ratio(k.over(inFleet, &loadVisits), ServerCPU, k.over("", &loadVisits), ServerCPU), maxFleetCPU, "x")
}

// over returns the cell of a workload on the server, reached by a way; nil if it was not measured.
func (k *goalKeeper) over(way string, w *Workload) *Cell {
	p := k.daemon
	p.Way = way
	return k.comparison.Cell(w.Name(), p.Name())
}

// times divides a figure of the server by one of another server, possibly on another workload.
func (k *goalKeeper) times(w *Workload, m Metric, otherWorkload *Workload, other string) Stat {
	return ratio(k.comparison.Cell(w.Name(), k.server), m, k.comparison.Cell(otherWorkload.Name(), other), m)
}

func (k *goalKeeper) figure(w *Workload, m Metric) Stat {
	if cell := k.comparison.Cell(w.Name(), k.server); cell != nil {
		return newStat(cell.values(m))
	}
	return Stat{}
}

func (k *goalKeeper) atMost(number int, what string, got Stat, target float64, unit string) {
	k.add(Goal{Number: number, What: what, Got: got, Target: target, Unit: unit, Met: got.Median <= target})
}

// atLeast adds a lower bound on a ratio.
func (k *goalKeeper) atLeast(number int, what string, got Stat, target float64) {
	k.add(Goal{Number: number, What: what, Got: got, Target: target, Unit: "x", AtLeast: true, Met: got.Median >= target})
}

// never adds a goal about faults, which no round may have.
func (k *goalKeeper) never(number int, what string, got Stat) {
	k.add(Goal{Number: number, What: what, Got: got, Unit: "waits", Met: got.Max == 0})
}

func (k *goalKeeper) add(g Goal) {
	g.Server = k.server
	g.Measured = g.Got.Rounds > 0
	g.Met = g.Met && g.Measured
	k.goals = append(k.goals, g)
}
