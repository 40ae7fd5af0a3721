package etcd

import (
	"cmp"
	"slices"
	"sync"
)

// joins are the places of this daemon that were asked for and have not been seen yet. Such a place may have been written, and taken away
// before a list was made. Nobody has been told of it then, so it is asked for again: it is a try that was refused, or else the lease is
// gone. Safe from any goroutine.
type joins struct {
	mu  sync.Mutex
	all map[string]*join // by name
}

type join struct {
	operation operation
	// revision is that at which it was written, 0 if no answer has come yet.
	revision int64
}

func newJoins() *joins { return &joins{all: make(map[string]*join)} }

// add takes note of a place that is asked for.
func (j *joins) add(o operation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all[o.name] = &join{operation: o}
}

// sorted returns all, in the order in which they were asked for.
func (j *joins) sorted() (all []join) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.all {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b join) int { return cmp.Compare(a.operation.seq, b.operation.seq) })
	return all
}

// seen says that a place exists.
func (j *joins) seen(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.all, name)
}

// written says that a transaction was written, at a revision.
func (j *joins) written(group []operation, revision int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range group {
		if p := j.all[group[i].name]; p != nil {
			p.revision = revision
		}
	}
}

// vanished returns how to ask again for a place that was taken away without having been seen.
func (j *joins) vanished(name string) []operation {
	j.mu.Lock()
	defer j.mu.Unlock()
	if p := j.all[name]; p != nil {
		p.revision = 0
		return []operation{p.operation}
	}
	return nil
}

// unseen returns how to ask again for the places that were written up to a revision, and were not there then.
func (j *joins) unseen(revision int64) (again []operation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.all {
		if p.revision > 0 && p.revision <= revision {
			p.revision = 0
			again = append(again, p.operation)
		}
	}
	slices.SortFunc(again, func(a, b operation) int { return cmp.Compare(a.seq, b.seq) })
	return again
}
