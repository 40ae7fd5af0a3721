package lockmgr

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What tables know can be made again in other tables, of another process: with other owners and waiters, and the keys spread in
// another way.
//
//	Each, Former, Opens, NextToken ──► Advance, SetDelay, RestoreUnknown, Restore, RestoreFormer
//
// No observer is told: the grants are those that there were.

// ErrRestore is wrapped by the errors of restoring: what is to be restored contradicts itself. The table is of no use then.
var ErrRestore = errors.New("lockmgr: what is to be restored cannot have been in a table")

// Restored is a key for [Table.Restore], as a [Holding] has described it.
type Restored struct {
	Hash  uint64
	Key   []byte
	Owner *Owner // which must have no key yet that is not restored by the same call
	Since time.Duration
	Token uint64 // 0 for a key of the unknown owner
	Queue []RestoredWait
}

// RestoredWait is a place in the queue of a key, the first one first.
type RestoredWait struct {
	Owner  *Owner
	Waiter *Waiter
	Since  time.Duration
}

// Each visits all keys of the table, also those of closed owners that are free for whoever asks, which [Table.Walk] passes over.
// visit must not change the table.
func (t *Table) Each(visit func(Holding)) {
	if t.unknown != nil {
		for e := t.unknown.held; e != nil; e = e.next {
			visit(e.holding())
			if e.next == t.unknown.held {
				break
			}
		}
	}
	for b := range t.index.n {
		for e := *t.index.slot(b); e != nil; e = e.chain {
			if t.unknown == nil || e.owner != t.unknown {
				visit(e.holding())
			}
		}
	}
}

// NextToken returns the token of the next grant.
func (t *Table) NextToken() uint64 { return t.token }

// Opens returns until when a free key rests, since it is not known who held it before: see [Table.SetDelay].
func (t *Table) Opens() time.Duration { return t.opens }

// Former returns when a closed owner has closed, and until when its keys rest.
func (t *Table) Former(o *Owner) (ended, until time.Duration) { return t.endOf(o), o.until }

// endOf returns when the owner, which is closed, has closed.
func (t *Table) endOf(o *Owner) time.Duration {
	if ended, ok := t.ended[o]; ok {
		return ended
	}
	return o.until - t.delay
}

// RestoreUnknown is the part of [Table.SetDelay] that is about the unknown owner, with the time until which a free key rests.
// It comes before Restore.
func (t *Table) RestoreUnknown(unknown *Owner, opens time.Duration) {
	t.unknown, t.opens = unknown, opens
	t.close(unknown, 0, opens)
}

// Restore fills a table that was not used, save by the calls that come before: see [Table.Each]. It sorts keys, and copies what it
// keeps of them. Tokens from now on are at least nextToken.
func (t *Table) Restore(keys []Restored, nextToken uint64) error {
	t.token = max(t.token, nextToken)
	slices.SortStableFunc(keys, func(a, b Restored) int {
		return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.Token, b.Token))
	})
	var waits []*Waiter
	for i := range keys {
		k := &keys[i]
		if err := t.restoreKey(k); err != nil {
			return fmt.Errorf("%w: key %.64q: %w", ErrRestore, k.Key, err)
		}
		for _, q := range k.Queue {
			if !q.Owner.isApart() {
				waits = append(waits, q.Waiter)
			}
		}
	}
	slices.SortStableFunc(waits, func(a, b *Waiter) int { return cmp.Compare(a.age.since, b.age.since) })
	for _, w := range waits {
		t.waits.add(&w.age, w.age.since)
	}
	t.waiters += len(waits)
	return nil
}

// restoreKey makes a key one of its owner's, younger than those it has, with its queue. The waits get no place in their ages.
func (t *Table) restoreKey(k *Restored) error {
	link := t.index.find(k.Hash, k.Key)
	unknown := k.Owner == t.unknown && t.unknown != nil
	switch {
	case *link != nil:
		return errors.New("it is there twice")
	case k.Since < 0 || k.Since > t.now:
		return fmt.Errorf("it was granted at %s, and it is %s", k.Since, t.now)
	case unknown != (k.Token == 0), unknown && len(k.Queue) == 0:
		return fmt.Errorf("it has the token %d and %d waiters: a holder who is not known: %t", k.Token, len(k.Queue), unknown)
	case t.tokenOf == nil && k.Token >= t.token:
		return fmt.Errorf("it has the token %d, and the next is %d", k.Token, t.token)
	}
	e := t.pool.get(k.Hash, k.Key)
	t.index.insert(link, e)
	t.size += int64(KeySize(len(k.Key)))
	k.Owner.add(e)
	e.token, e.age.since = k.Token, k.Since
	switch {
	case unknown:
		t.closing++
	case k.Owner.isApart():
		t.apart++
	default:
		t.holds.add(&e.age, k.Since)
	}
	for _, q := range k.Queue {
		switch {
		case q.Waiter.owner != nil, q.Owner.isClosed(), q.Owner == k.Owner:
			return errors.New("somebody waits for it who waits already, has ended, or has it")
		case q.Since < 0 || q.Since > t.now:
			return fmt.Errorf("somebody waits for it since %s, and it is %s", q.Since, t.now)
		}
		e.enqueue(q.Waiter, q.Owner)
		q.Waiter.age.since = q.Since
	}
	return nil
}

// RestoreFormer makes an owner whose keys were restored one that has closed at the time ended, and whose keys rest until a time of
// their own. It is to be closed to the end by [Table.CloseSome]. One without keys stays open.
func (t *Table) RestoreFormer(o *Owner, ended, until time.Duration) error {
	switch {
	case o.queued != 0 || o.isApart():
		return fmt.Errorf("%w: an owner that has closed waits, or has closed before", ErrRestore)
	case ended < 0 || ended > t.now || until < ended:
		return fmt.Errorf("%w: an owner has closed at %s, its keys rest until %s, and it is %s", ErrRestore, ended, until, t.now)
	case o.held == nil:
		return nil
	}
	t.close(o, ended, until)
	t.closing += int(o.keys)
	return nil
}

// close makes an owner one that has closed.
func (t *Table) close(o *Owner, ended, until time.Duration) {
	o.queued, o.until = closed, until
	if until-t.delay != ended {
		if t.ended == nil {
			t.ended = make(map[*Owner]time.Duration)
		}
		t.ended[o] = ended
	}
}
