package bench

import (
	"slices"
	"time"
)

// The workloads of the goals.
var (
	loadFew        = Workload{Kind: Uncontended, Connections: 50}
	loadMany       = Workload{Kind: Uncontended, Connections: 1000}
	loadRivals     = Workload{Kind: Uncontended, Connections: 500}
	loadContended  = Workload{Kind: Contended, Connections: 500, Keys: 50}
	loadPipelined  = Workload{Kind: Pipelined, Connections: 50, Pairs: 16}
	loadShortQueue = Workload{Kind: Waiters, Connections: 10_000, Queue: 100} // as many connections: only the queue is shorter
	loadMidQueue   = Workload{Kind: Waiters, Connections: 10_000, Queue: 1000}
	loadLongQueue  = Workload{Kind: Waiters, Connections: 10_000}
	loadInFlight   = Workload{Kind: Timeouts, Connections: 10_000, Share: 0.5}
	loadIdle       = Workload{Kind: Idle, Connections: 15_000}
	loadIdleWays   = Workload{Kind: Idle, Connections: 3000} // a handshake takes a while
	loadTakeFew    = Workload{Kind: Takeover, Connections: 100}
	loadTakeMany   = Workload{Kind: Takeover, Connections: 1000}
	loadTakeMost   = Workload{Kind: Takeover, Connections: 15_000}
	loadVisits     = Workload{Kind: Churn, Connections: 16}
	loadAlone      = Workload{Kind: Uncontended, Connections: 1}
)

// The servers of the goals.
var (
	peerDaemon    = Peer{Kind: Daemon}
	peerDaemon1   = Peer{Kind: Daemon, Loops: 1}
	peerEcho      = Peer{Kind: GnetEcho}
	peerEcho1     = Peer{Kind: GnetEcho, Loops: 1}
	peerThread    = Peer{Kind: EpollEcho, Loops: 1}
	peerRedis     = Peer{Kind: RedisPeer}
	peerMemcached = Peer{Kind: MemcachedPeer}
	peersAll      = []Peer{peerDaemon, peerEcho, peerDaemon1, peerEcho1, peerThread, peerRedis, peerMemcached}
	peersDaemon   = []Peer{peerDaemon, peerDaemon1}
	peersTLS      = []Peer{{Kind: Daemon, Way: overTLS}, {Kind: Daemon, Way: overTLS, Loops: 1}}
	peersUnix     = []Peer{{Kind: Daemon, Way: overUnix}, {Kind: Daemon, Way: overUnix, Loops: 1}}
	peersFleet    = []Peer{{Kind: Daemon, Way: inFleet}, {Kind: Daemon, Way: inFleet, Loops: 1}}
	peersWays     = slices.Concat(peersDaemon, peersTLS, peersUnix)
	peersEvery    = slices.Concat(peersAll, peersTLS, peersUnix, peersFleet)
)

// Suite returns the cases that the goals are about. They take about four minutes on a machine with two processors. Scale
// multiplies the length of every window.
func Suite(scale float64) []Case {
	window := func(w Workload, warmup, window time.Duration) Workload {
		w.Warmup = warmup
		w.Window = time.Duration(float64(window) * scale)
		return w
	}
	const ms = time.Millisecond
	cases := []Case{
		{Workload: window(loadFew, 100*ms, 400*ms), Peers: peersEvery, Rounds: 5},
		{Workload: window(loadMany, 1000*ms, 500*ms), Peers: peersAll, Rounds: 5},
		{Workload: window(loadRivals, 100*ms, 400*ms), Peers: peersDaemon, Rounds: 5},
		{Workload: window(loadContended, 100*ms, 400*ms), Peers: peersDaemon, Rounds: 5},
		{Workload: window(loadPipelined, 100*ms, 400*ms), Peers: peersDaemon, Rounds: 5},
		{Workload: window(loadAlone, 50*ms, 300*ms), Peers: append(slices.Clone(peersDaemon), peerEcho1, peerRedis), Rounds: 5},
		{Workload: window(loadVisits, 100*ms, 400*ms), Peers: peersEvery, Rounds: 5},
		{Workload: window(loadShortQueue, 50*ms, 400*ms), Peers: peersDaemon, Rounds: 4},
		{Workload: window(loadMidQueue, 50*ms, 400*ms), Peers: peersDaemon, Rounds: 2},
		{Workload: window(loadLongQueue, 0, 400*ms), Peers: peersDaemon, Rounds: 4},
		{Workload: window(loadInFlight, 300*ms, 1500*ms), Peers: peersDaemon, Rounds: 3},
		{Workload: window(loadIdle, 0, 200*ms), Peers: peersDaemon, Rounds: 2, Fresh: true},
		{Workload: window(loadIdleWays, 0, 100*ms), Peers: peersWays, Rounds: 2, Fresh: true},
		{Workload: window(loadTakeFew, 0, 500*ms), Peers: peersDaemon, Rounds: 1, Fresh: true},
		{Workload: window(loadTakeMany, 0, 500*ms), Peers: peersDaemon, Rounds: 2, Fresh: true},
		{Workload: window(loadTakeMost, 0, 500*ms), Peers: peersDaemon, Rounds: 1, Fresh: true},
	}
	for i := range cases {
		cases[i].Peers = distinct(cases[i].Peers)
	}
	return cases
}

// distinct drops peers that are the same as an earlier one: on one processor, one loop is the default.
func distinct(peers []Peer) (all []Peer) {
	var names []string
	for _, p := range peers {
		if name := p.Name(); !slices.Contains(names, name) {
			names = append(names, name)
			all = append(all, p)
		}
	}
	return all
}
