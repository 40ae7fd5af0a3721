package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maxOperations is the number of operations of a transaction. etcd takes 128; a refusal is a transaction within it, and counts as one
	// more.
	maxOperations = 127
	// maxTransaction is the size of a transaction in bytes, far below what etcd takes: 1.5 MiB.
	maxTransaction = 512 << 10
	// operationSize is what an operation takes beside its names, in bytes.
	operationSize = 64
	// refusalTime is the pause before a transaction is written again that etcd has refused.
	refusalTime = time.Second
)

// operation is one of a transaction: it puts a name, deletes one, or deletes one while another exists.
type operation struct {
	name  string
	put   bool
	value string
	while string // of a deletion; empty for none
	seq   uint64 // of a place
}

func (o *operation) size() int { return operationSize + len(o.name) + len(o.value) + len(o.while) }

// op returns the operation as etcd takes it.
func (o *operation) op(lease clientv3.LeaseID) clientv3.Op {
	switch {
	case o.put:
		return clientv3.OpPut(o.name, o.value, clientv3.WithLease(lease))
	case o.while != "":
		exists := clientv3.Compare(clientv3.CreateRevision(o.while), ">", 0)
		return clientv3.OpTxn([]clientv3.Cmp{exists}, []clientv3.Op{clientv3.OpDelete(o.name)}, nil)
	}
	return clientv3.OpDelete(o.name)
}

// writer writes operations in groups: while one transaction is under way the next one collects. It lasts for a session.
type writer struct {
	lease     clientv3.LeaseID
	endpoints *endpoints
	counters  *counters
	log       zerolog.Logger
	written   func(group []operation, revision int64) // a transaction was written
	gone      func()                                  // the lease does not exist

	mu      sync.Mutex
	queue   []operation
	refusal string // why etcd refuses to write, empty if it does not

	wake chan struct{} // holds a token if the queue may have something
}

// add queues operations. It never blocks.
func (w *writer) add(all ...operation) {
	if len(all) == 0 {
		return
	}
	w.mu.Lock()
	w.queue = append(w.queue, all...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// refused returns why etcd refuses to write, empty if it does not.
func (w *writer) refused() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refusal
}

// run writes until ctx is done. A transaction that is under way then is finished, within calls; what is not written stays in the queue.
func (w *writer) run(ctx, calls context.Context) {
	for {
		for ctx.Err() == nil {
			group := w.take(true)
			if len(group) == 0 {
				break
			}
			if !w.write(ctx, calls, group) {
				return
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}

// putBack puts a group that was not written, or whose answer was lost, before everything else.
func (w *writer) putBack(group []operation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = slices.Concat(group, w.queue)
}

// queued returns what is not written. The writer must not run.
func (w *writer) queued() []operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.queue)
}

// take takes the next group out of the queue, and leaves the order of what stays. Without puts, these stay too.
//
// The names of a group differ: etcd takes no transaction that puts and deletes a name, and what a refusal depends on is decided by what
// there was before the transaction.
func (w *writer) take(puts bool) (group []operation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rest []operation
	seen := make(map[string]bool)
	size := 0
	for i := range w.queue {
		o := &w.queue[i]
		size += o.size()
		clash := seen[o.name] || o.while != "" && seen[o.while]
		full := len(group) == maxOperations || size > maxTransaction && len(group) > 0
		if full || clash && puts {
			rest = append(rest, w.queue[i:]...)
			break
		}
		seen[o.name] = true
		if o.while != "" {
			seen[o.while] = true
		}
		if clash || o.put && !puts {
			size -= o.size()
			rest = append(rest, *o)
			continue
		}
		group = append(group, *o)
	}
	w.queue = rest
	return group
}

// write writes a group, as often as it takes, and reports whether the writer goes on. If it does not the group is in the queue.
func (w *writer) write(ctx, calls context.Context, group []operation) bool {
	failures := 0
	for {
		revision, err := w.commit(calls, group)
		switch {
		case err == nil:
			if adds(group) {
				w.report("", nil)
			}
			w.written(group, revision)
			return true
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			w.gone()
			return false
		case ctx.Err() != nil:
			w.putBack(group)
			return false
		case errors.Is(err, rpctypes.ErrNoSpace) && adds(group):
			w.report("the database of etcd is full: compact and defragment it, and disarm the alarm", err)
			return w.writeDeletions(ctx, calls, group)
		case isAnswer(err):
			w.report("etcd refuses to write: "+reason(err), err)
			if !pause(ctx, refusalTime) {
				w.putBack(group)
				return false
			}
		default:
			w.counters.repeats.Add(1)
			if failures++; failures%len(w.endpoints.all) == 0 && !pause(ctx, restTime) {
				w.putBack(group)
				return false
			}
		}
	}
}

// writeDeletions puts a group back, and writes what etcd takes although its database is full: all but the puts. After a pause everything
// is tried again.
func (w *writer) writeDeletions(ctx, calls context.Context, group []operation) bool {
	w.putBack(group)
	again := time.NewTimer(refusalTime)
	defer again.Stop()
	for {
		for ctx.Err() == nil {
			some := w.take(false)
			if len(some) == 0 {
				break
			}
			if !w.write(ctx, calls, some) {
				return false
			}
		}
		select {
		case <-w.wake:
		case <-again.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// commit writes a group once, and returns the revision.
func (w *writer) commit(ctx context.Context, group []operation) (revision int64, err error) {
	ops := make([]clientv3.Op, len(group))
	for i := range group {
		ops[i] = group[i].op(w.lease)
	}
	err = w.endpoints.once(ctx, func(ctx context.Context, client *clientv3.Client) error {
		answer, err := client.Txn(ctx).Then(ops...).Commit()
		if err == nil {
			revision = answer.Header.Revision
		}
		return err
	})
	if err == nil {
		w.counters.transactions.Add(1)
		w.counters.operations.Add(uint64(len(group)))
	}
	return revision, err
}

// adds reports whether a group adds to the database. One that does not is written even if that is full.
func adds(group []operation) bool {
	return slices.ContainsFunc(group, func(o operation) bool { return o.put })
}

// report takes note of whether etcd refuses to write, and logs when that changes.
func (w *writer) report(refusal string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if refusal == w.refusal {
		return
	}
	if w.refusal = refusal; refusal == "" {
		w.log.Info().Msg("etcd writes again")
		return
	}
	w.log.Error().Str("reason", reason(err)).Msg(refusal + ". No key is lost, but none goes to another daemon that has not asked for it yet")
}
