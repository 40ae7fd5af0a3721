package server

import "slices"

// liveGraph has what is left of a graph while its cycles are sought: the waits that may still be part of one.
type liveGraph struct {
	out, in       map[node][]*waitEdge // all waits of a node, and for it, oldest first
	waits, wanted map[node]int         // how many of these are live
	dead          map[*waitEdge]bool
}

// cycles returns a cycle for every wait that is the youngest of one, the oldest of these waits first. In a cycle the holder
// of each wait is the waiter of the next, as nodes, and the youngest wait comes last. So each cycle has a wait that no other
// one of them ends with, and to break all of these waits is to break every cycle of the graph.
//
// It takes the waits from the youngest to the oldest and looks for a way back among those that are left. Waits that lead
// nowhere are dropped first, and after each step, so that where there are no cycles hardly anything is searched.
func (g waitGraph) cycles() (all [][]*waitEdge) {
	edges := make([]*waitEdge, 0, len(g))
	for _, e := range g {
		edges = append(edges, e)
	}
	slices.SortFunc(edges, (*waitEdge).byAge)
	l := newLiveGraph(edges)
	for _, e := range slices.Backward(edges) {
		if l.dead[e] {
			continue
		}
		if way, ok := l.way(e.holder.node(), e.waiter.node()); ok {
			all = append(all, append(way, e))
		}
		l.drop(e)
	}
	slices.Reverse(all)
	return all
}

func newLiveGraph(edges []*waitEdge) *liveGraph {
	l := &liveGraph{
		out: make(map[node][]*waitEdge), in: make(map[node][]*waitEdge),
		waits: make(map[node]int), wanted: make(map[node]int),
		dead: make(map[*waitEdge]bool),
	}
	for _, e := range edges {
		from, to := e.waiter.node(), e.holder.node()
		l.out[from], l.in[to] = append(l.out[from], e), append(l.in[to], e)
		l.waits[from]++
		l.wanted[to]++
	}
	for _, e := range edges {
		if !l.dead[e] && (l.wanted[e.waiter.node()] == 0 || l.waits[e.holder.node()] == 0) {
			l.drop(e)
		}
	}
	return l
}

// drop drops a wait, and every other that cannot be part of a cycle without it: its waiter is wanted by nobody else, or its
// holder waits for nobody else.
func (l *liveGraph) drop(e *waitEdge) {
	todo := []*waitEdge{e}
	for len(todo) > 0 {
		last := len(todo) - 1
		e, todo = todo[last], todo[:last]
		if l.dead[e] {
			continue
		}
		l.dead[e] = true
		from, to := e.waiter.node(), e.holder.node()
		l.waits[from]--
		l.wanted[to]--
		if l.waits[from] == 0 {
			todo = append(todo, l.in[from]...)
		}
		if l.wanted[to] == 0 {
			todo = append(todo, l.out[to]...)
		}
	}
}

// way returns the shortest way of live waits from a node to another, and reports whether there is one. From a node to itself
// it is empty.
func (l *liveGraph) way(from, to node) (way []*waitEdge, ok bool) {
	came := map[node]*waitEdge{from: nil} // by which wait a node was reached first
	for todo := []node{from}; len(todo) > 0; todo = todo[1:] {
		if todo[0] == to {
			for e := came[to]; e != nil; e = came[e.waiter.node()] {
				way = append(way, e)
			}
			slices.Reverse(way)
			return way, true
		}
		for _, e := range l.out[todo[0]] {
			next := e.holder.node()
			if _, met := came[next]; !met && !l.dead[e] {
				came[next] = e
				todo = append(todo, next)
			}
		}
	}
	return nil, false
}
