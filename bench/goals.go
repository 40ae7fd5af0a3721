package bench

import "fmt"

// Goal is one thing that the daemon must achieve, and whether it did.
type Goal struct {
	Number  int     `json:"number"`
	Server  string  `json:"server"` // the daemon, with its loops
	What    string  `json:"what"`
	Got     Stat    `json:"got"`
	Target  float64 `json:"target"`
	AtLeast bool    `json:"at_least"` // Got must be at least Target; else at most
	Unit    string  `json:"unit"`     // "x" of a ratio
	// Measured is false if what the goal is about was not measured: a peer is not installed, or the case was not run.
	Measured bool `json:"measured"`
	// Met says whether the median keeps the target, and for a count of faults whether every round does.
	Met bool `json:"met"`
}

// Figure is what was measured, as text.
func (g Goal) Figure() string {
	if !g.Measured {
		return "-"
	}
	return spread(g.Got, "%.4g")
}

// Bound is the target, as text.
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

// The targets, in the order of the goals.
const (
	maxEchoCPU      = 1.15 // times the echo server
	maxOthersCPU    = 1.0  // times redis and memcached
	minContended    = 0.8  // times uncontended
	minPipelined    = 14.0 // commands for each round trip of the echo server
	maxLineCPU      = 1.3  // times that of a hundred waiters
	minHandOver     = 0.7  // times that of one loop
	maxLate         = 15.0 // ms, for all but one of a thousand
	maxIdleMemory   = 1536.0
	maxChurnCPU     = 1.2 // times the echo server
	maxAloneLatency = 1.0 // times redis
)

// CheckGoals returns all goals for the daemon with its default number of loops and with one loop.
func CheckGoals(c *Comparison) []Goal {
	var goals []Goal
	for _, daemon := range distinct(peersDaemon) {
		k := &goalKeeper{comparison: c, server: daemon.Name()}
		k.check(Peer{Kind: GnetEcho, Loops: daemon.loops()}.Name())
		goals = append(goals, k.goals...)
	}
	return goals
}

// goalKeeper checks the goals of one server.
type goalKeeper struct {
	comparison *Comparison
	server     string
	goals      []Goal
}

func (k *goalKeeper) check(echo string) {
	for _, w := range []Workload{loadFew, loadMany} {
		label := fmt.Sprintf("server time of a command, %d connections, to ", w.Connections)
		k.atMost(1, label+echo, k.times(&w, ServerCPU, &w, echo), maxEchoCPU, "x")
		k.atMost(1, label+peerRedis.Name(), k.times(&w, ServerCPU, &w, peerRedis.Name()), maxOthersCPU, "x")
		k.atMost(1, label+peerMemcached.Name(), k.times(&w, ServerCPU, &w, peerMemcached.Name()), maxOthersCPU, "x")
	}
	k.atLeast(2, "throughput on 50 shared keys to that on own keys, 500 connections",
		k.times(&loadContended, Throughput, &loadRivals, k.server), minContended)
	k.atLeast(3, "commands pipelined, 16 pairs a write, to round trips of "+echo,
		k.times(&loadPipelined, Throughput, &loadFew, echo), minPipelined)
	k.atMost(4, "server time of an enqueue, a line of 10,000 to one of 100",
		k.times(&loadLongLine, EnqueueCPU, &loadShortLine, k.server), maxLineCPU, "x")
	k.atMost(4, "server time of a hand-over, a line of 10,000 to one of 100",
		k.times(&loadLongLine, HandOverCPU, &loadShortLine, k.server), maxLineCPU, "x")
	if k.server != peerDaemon1.Name() {
		k.atLeast(4, "hand-overs a second to one loop, line of 100",
			k.times(&loadShortLine, Throughput, &loadShortLine, peerDaemon1.Name()), minHandOver)
		k.atLeast(4, "hand-overs a second to one loop, line of 10,000",
			k.times(&loadLongLine, Throughput, &loadLongLine, peerDaemon1.Name()), minHandOver)
	}
	k.never(5, "waits that ended early", k.figure(&loadInFlight, Early))
	k.atMost(5, "lateness of 99.9 % of 10,000 waits at half load", k.figure(&loadInFlight, LateP999), maxLate, "ms")
	k.atMost(6, "memory of a connection that holds a key", k.figure(&loadIdle, IdleMemory), maxIdleMemory, "bytes")
	k.atMost(7, "server time of connect, lock, unlock, close to "+echo,
		k.times(&loadVisits, ServerCPU, &loadVisits, echo), maxChurnCPU, "x")
	k.atMost(8, "median latency of one connection to "+peerRedis.Name(),
		k.times(&loadAlone, LatencyP50, &loadAlone, peerRedis.Name()), maxAloneLatency, "x")
}

// times divides a figure of the server by that of another one, perhaps on another workload.
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

// atLeast is about ratios.
func (k *goalKeeper) atLeast(number int, what string, got Stat, target float64) {
	k.add(Goal{Number: number, What: what, Got: got, Target: target, Unit: "x", AtLeast: true, Met: got.Median >= target})
}

// never is about faults, of which no round may have one.
func (k *goalKeeper) never(number int, what string, got Stat) {
	k.add(Goal{Number: number, What: what, Got: got, Unit: "waits", Met: got.Max == 0})
}

func (k *goalKeeper) add(g Goal) {
	g.Server = k.server
	g.Measured = g.Got.Rounds > 0
	g.Met = g.Met && g.Measured
	k.goals = append(k.goals, g)
}
