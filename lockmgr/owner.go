package lockmgr

import "time"

// Owner is one holder of keys in one table. A session that uses several tables has an owner in each. The zero value holds
// nothing and is ready to use. The table points at an owner that is not empty: it must not be copied, moved or freed.
type Owner struct {
	// Tag leads from a key back to its holder. It is the caller's own: the table neither reads nor changes it.
	Tag any

	// held is the key that the owner has held longest. All its keys form a circular list, oldest first, so that the
	// youngest is held.prev.
	held *entry

	// keys is the length of that list.
	keys int32

	// queued counts the waiters of this owner that are in a queue. It is closed from the first [Table.CloseSome] until the
	// last: the owner gives up its keys, and counts as the holder of none.
	queued int32

	// until is when the keys of a closed owner go on; apart for one that is apart, and never closes.
	until time.Duration
}

// closed is the number of waiters of an owner that is closed, which has none.
const closed = -1

func (o *Owner) isClosed() bool { return o.queued == closed }

// apart is the until of an owner that is apart.
const apart = -1

// SetApart makes an owner, which must be empty, one that stands for others whom the table does not serve. It takes part in everything,
// but what it holds and waits for is in none of the numbers of the table, has no age, and no [Observer] is told of it. Its keys
// do not rest: it must not be closed.
func (o *Owner) SetApart() { o.until = apart }

func (o *Owner) isApart() bool { return o.until == apart }

// Empty reports whether the owner holds no key and none of its waiters is queued: nothing in the table points at it.
func (o *Owner) Empty() bool {
	return o.held == nil && o.queued <= 0
}

// add makes o the holder of e, as its youngest key.
func (o *Owner) add(e *entry) {
	e.owner = o
	o.keys++
	oldest := o.held
	if oldest == nil {
		o.held, e.next, e.prev = e, e, e
		return
	}
	youngest := oldest.prev
	e.next, e.prev = oldest, youngest
	youngest.next, oldest.prev = e, e
}

// remove takes e, which o holds, out of the list.
func (o *Owner) remove(e *entry) {
	o.keys--
	if e.next == e {
		o.held = nil
	} else {
		e.prev.next, e.next.prev = e.next, e.prev
		if o.held == e {
			o.held = e.next
		}
	}
	e.owner, e.next, e.prev = nil, nil, nil
}
