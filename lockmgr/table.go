package lockmgr

import (
	"fmt"
	"math"
	"time"
)

// Outcome is the result of a Lock or an Unlock. The zero value is not an outcome, so that a result that was never set is
// not taken for a grant.
type Outcome uint8

const (
	// Granted means: the owner holds the key now.
	Granted Outcome = iota + 1
	// Queued means: another owner holds the key, and the waiter is in its queue.
	Queued
	// Busy means: another owner holds the key, and the caller did not want to wait.
	Busy
	// AlreadyHeld means: the owner that asks for the key holds it.
	AlreadyHeld
	// Released means: the owner gave up the key, and its first waiter, if any, holds it now.
	Released
	// NotHeld means: nobody holds the key.
	NotHeld
	// NotOwner means: another owner holds the key.
	NotOwner
)

// String returns the name of the outcome.
func (o Outcome) String() string {
	switch o {
	case Granted:
		return "granted"
	case Queued:
		return "queued"
	case Busy:
		return "busy"
	case AlreadyHeld:
		return "already held"
	case Released:
		return "released"
	case NotHeld:
		return "not held"
	case NotOwner:
		return "not owner"
	default:
		return fmt.Sprintf("Outcome(%d)", uint8(o))
	}
}

// Table is the lock table of one loop, and only that loop may touch it. An owner or a waiter that one table points at must
// not be handed to another; an empty owner or an unused waiter may change tables.
//
// Every key comes with its hash, made by one [Seed] for all calls: the caller has it already, since it chose the loop by
// it. The table copies a key that it keeps, so the caller may reuse its bytes when the call returns.
type Table struct {
	index    index
	pool     pool
	size     int64 // see Size
	waiters  int
	closing  int                               // keys of closed owners, which have not been passed on yet
	apart    int                               // keys of owners that are apart
	now      time.Duration                     // the time of grants
	token    uint64                            // of the next grant
	tokenOf  func(key []byte, o *Owner) uint64 // see SetTokens; nil to count up
	holds    ages
	waits    ages
	left     func(held time.Duration) // see OnLeave; nil for nobody
	observer Observer                 // nil if nobody wants to know

	// See [Table.SetDelay].
	delay   time.Duration
	unknown *Owner        // nil if there is none
	opens   time.Duration // until then a free key is the unknown owner's

	// ended says when owners have closed of which the delay does not: those from a table with another one. Nil if there are none.
	ended map[*Owner]time.Duration
}

// NewTable returns a table in which every key is free, and whose first grant has the given token. It must not be 0, which
// is the token of no grant.
func NewTable(firstToken uint64) *Table {
	if firstToken == 0 {
		panic("lockmgr: a table's first token is 0")
	}
	t := &Table{index: newIndex(), token: firstToken}
	t.holds.init()
	t.waits.init()
	return t
}

// Observe has an observer told of every grant from now on, and of every end of one.
func (t *Table) Observe(o Observer) { t.observer = o }

// SetDelay has the keys of owners that close from now on rest for the delay before they go on: see [Table.CloseSome]. A table
// that has just been made does not know who held keys before; unknown, which must be empty, stands for them. Until the delay has
// passed, counted from the time 0, a key that is asked for and free is one of its, as if it had closed at 0: the caller has to go
// on with CloseSome of unknown as of any owner. A key of its that nobody waits for any more is free again. With no unknown owner it is
// known that nobody held a key.
func (t *Table) SetDelay(delay time.Duration, unknown *Owner) {
	t.delay = delay
	if unknown == nil {
		return
	}
	t.unknown, t.opens = unknown, delay
	unknown.queued, unknown.until = closed, delay
}

// SetTokens has the tokens of grants made by f from now on. Of two grants of a key the later one must get the greater token. It is
// called in the middle of an operation, so it must not call the table.
func (t *Table) SetTokens(f func(key []byte, o *Owner) uint64) { t.tokenOf = f }

// Advance sets the time of what follows, counted from any moment the caller chooses. An earlier time than before changes
// nothing.
func (t *Table) Advance(now time.Duration) { t.now = max(t.now, now) }

// Lock asks for key on behalf of o. A free key is Granted. A key that is held or rests is AlreadyHeld by o itself, else Busy if
// wait is false, else Queued: w is then the last in the queue of the key, until a grant or Cancel. Only in that case is w
// used; it may be nil when wait is false.
//
// It panics if w would be queued and is still in a queue, or was granted and not popped.
func (t *Table) Lock(o *Owner, w *Waiter, hash uint64, key []byte, wait bool) Outcome {
	link := t.index.find(hash, key)
	e := *link
	switch {
	case e == nil && t.now >= t.opens:
		e = t.pool.get(hash, key)
		t.index.insert(link, e)
		t.size += int64(KeySize(len(key)))
		t.assign(e, o, nil)
		return Granted
	case e == nil && wait:
		e = t.entrust(link, hash, key)
	case e == nil:
		return Busy
	case e.owner == o:
		return AlreadyHeld
	case t.abandoned(e):
		t.leave(e)
		t.assign(e, o, nil)
		return Granted
	case !wait:
		return Busy
	}
	e.enqueue(w, o)
	if o.isApart() {
		w.age.since = t.now
		return Queued
	}
	t.waits.add(&w.age, t.now)
	t.waiters++
	return Queued
}

// Unlock gives up key, which o should hold. If it does, the outcome is Released: the key's first waiter holds it now
// and is appended to g, or nobody waited and the key is free. Otherwise it is NotHeld or NotOwner, and nothing changes.
func (t *Table) Unlock(o *Owner, hash uint64, key []byte, g *Grants) Outcome {
	link := t.index.find(hash, key)
	e := *link
	switch {
	case e == nil:
		return NotHeld
	case e.owner != o && (t.abandoned(e) || t.rests(e)):
		return NotHeld
	case e.owner != o:
		return NotOwner
	}
	t.release(link, g)
	return Released
}

// Take is an Unlock by somebody who is not the holder: it takes key from its holder, whoever that is, or ends its rest. The outcome
// is Released or NotHeld. A holder whose grant has not been popped must not lose the key: see [Grants.Has].
func (t *Table) Take(hash uint64, key []byte, g *Grants) Outcome {
	link := t.index.find(hash, key)
	if e := *link; e == nil || t.abandoned(e) {
		return NotHeld
	}
	t.release(link, g)
	return Released
}

// release passes the key at link on to its first waiter, which is appended to g, or frees it.
func (t *Table) release(link **entry, g *Grants) {
	if e := *link; e.first != nil {
		t.grant(e, g)
	} else {
		t.free(link)
	}
}

// Transfer gives key, which from must hold, to another owner by a grant of its own, before all who wait.
func (t *Table) Transfer(from, to *Owner, hash uint64, key []byte) {
	e := *t.index.find(hash, key)
	if e == nil || e.owner != from {
		panic(fmt.Sprintf("lockmgr: owner %p transfers key %q, which it does not hold", from, key))
	}
	t.leave(e)
	t.assign(e, to, nil)
}

// Cancel takes w out of its queue without a grant. It returns false if w was not queued: it never waited, was cancelled
// before, or was granted, whether popped or not.
func (t *Table) Cancel(w *Waiter) bool {
	e := w.entry
	if e == nil {
		return false
	}
	t.dequeue(e, w)
	w.owner = nil
	if e.first == nil && t.unknown != nil && e.owner == t.unknown {
		t.free(t.index.linkTo(e))
	}
	return true
}

// Close gives up everything that o holds, the key it has held longest first. Each key goes to its first waiter, which is
// appended to g, or is free. o is empty afterwards and may be reused. In a table with a delay this is only the first step of
// [Table.CloseSome].
//
// The caller must have cancelled the waiters of o, since an owner that ends must not be granted a key. If one is queued,
// Close panics before it changes anything.
func (t *Table) Close(o *Owner, g *Grants) {
	t.CloseSome(o, math.MaxInt, g)
}

// CloseSome is Close in steps: it passes on at most n keys and reports whether there are more. From the first step on o holds
// nothing as far as anybody can tell: a key that nobody waits for is free for whoever asks, even before its step. A key that
// somebody waits for goes to its first waiter with its step, and is shown as the closed owner's until then. o must not be
// used for anything else before the last step.
//
// In a table with a delay the keys rest for that long after the first step: nobody holds them, and no step passes them on or
// lets anybody have them, see [Table.Rest]. Who asks for one has to wait.
func (t *Table) CloseSome(o *Owner, n int, g *Grants) (more bool) {
	if o.queued > 0 {
		panic(fmt.Sprintf("lockmgr: close of owner %p with %d waiters queued", o, o.queued))
	}
	if !o.isClosed() {
		if o.held == nil {
			return false
		}
		o.queued, o.until = closed, t.now+t.delay
		t.closing += int(o.keys)
	}
	if t.now < o.until {
		return true
	}
	for ; o.held != nil && n > 0; n-- {
		if e := o.held; e.first != nil {
			t.grant(e, g) // which needs no link
		} else {
			t.free(t.index.linkTo(e))
		}
	}
	if o.held == nil {
		o.queued = 0
		delete(t.ended, o)
	}
	return o.held != nil
}

// Rest returns how long the keys of a closed owner still rest; 0 if no longer, or if the owner is not closed.
func (t *Table) Rest(o *Owner) time.Duration {
	if !o.isClosed() {
		return 0
	}
	return max(o.until-t.now, 0)
}

// Keys returns the number of held keys. Those of closed owners are not: see [Table.CloseSome]; nor are those of owners apart.
func (t *Table) Keys() int {
	return int(t.index.keys) - t.closing - t.apart
}

// Resting returns the number of keys of closed owners: nobody holds them, and they have not gone on yet.
func (t *Table) Resting() int {
	return t.closing
}

// Waiters returns the number of queued waiters, over all keys, without those of owners apart.
func (t *Table) Waiters() int {
	return t.waiters
}

// entrust gives key, which belongs at link, to the unknown owner: no grant is known by which it has it.
func (t *Table) entrust(link **entry, hash uint64, key []byte) *entry {
	e := t.pool.get(hash, key)
	t.index.insert(link, e)
	t.size += int64(KeySize(len(key)))
	t.unknown.add(e)
	t.closing++
	e.age.since, e.token = 0, 0 // and it is no hold whose age is known
	return e
}

// rests reports whether the holder of e has closed, and no other may have the key yet.
func (t *Table) rests(e *entry) bool { return e.owner.isClosed() && t.now < e.owner.until }

// abandoned reports whether the holder of e has closed, and the key is anybody's: it does not rest, and nobody waits.
func (t *Table) abandoned(e *entry) bool {
	return e.owner.isClosed() && e.first == nil && t.now >= e.owner.until
}

// assign makes o, which may have waited as w, the holder of e, which has none, by a grant with a token of its own.
func (t *Table) assign(e *entry, o *Owner, w *Waiter) {
	o.add(e)
	if t.tokenOf != nil {
		e.token = t.tokenOf(e.key, o)
	} else {
		e.token = t.token
		t.token++
	}
	if o.isApart() {
		e.age.since = t.now
		t.apart++
		return
	}
	t.holds.add(&e.age, t.now)
	if t.observer != nil {
		t.observer.Granted(e.key, o, e.token, t.now, w)
	}
}

// grant makes the first waiter of e, which there must be, the holder instead of the owner, and appends it to g.
func (t *Table) grant(e *entry, g *Grants) {
	w := e.first
	t.dequeue(e, w)
	t.leave(e)
	t.assign(e, w.owner, w)
	g.push(w)
}

// dequeue ends the wait of w for e.
func (t *Table) dequeue(e *entry, w *Waiter) {
	e.dequeue(w)
	if w.owner.isApart() {
		return
	}
	w.age.remove()
	t.waiters--
}

// free takes the key at link, which nobody waits for, from its owner and out of the table.
func (t *Table) free(link **entry) {
	e := t.index.remove(link)
	t.size -= int64(KeySize(len(e.key)))
	t.leave(e)
	t.pool.put(e)
}

// leave takes e from its owner.
func (t *Table) leave(e *entry) {
	if e.owner.isApart() {
		t.apart--
		e.owner.remove(e)
		return
	}
	ended := t.now
	if e.owner.isClosed() {
		t.closing--
		ended = t.endOf(e.owner)
	}
	if t.observer != nil && e.token != 0 {
		t.observer.Ended(e.key, e.owner, e.token, t.now, ended-e.age.since)
	}
	e.owner.remove(e)
	if e.token == 0 { // of the unknown owner
		return
	}
	e.age.remove()
	if t.left != nil {
		t.left(ended - e.age.since)
	}
}
