package reactor

import "sync/atomic"

// Message is one item in a mailbox. It is embedded in what it carries, so that sending costs no allocation, and belongs
// to whoever the content belongs to: the sender until [Loop.Post], the receiving loop from [Handler.Receive] on. A
// message that is on its way must not be posted again.
type Message struct {
	next *Message
	// Body is what travels; the reactor never looks at it. It is set once, before the first Post.
	Body any
}

// mailbox is the queue into one loop: any number of loops push, the owner takes everything at once. It is a stack with
// one atomic word, turned round when it is taken, so messages of one sender arrive in the order in which they were
// pushed. Its length is bounded by the messages that exist, which the sessions own.
type mailbox struct {
	_   [64]byte // the word is written by every loop: keep it off the owner's cache lines
	top atomic.Pointer[Message]
	_   [56]byte
}

// push adds a batch and reports whether the mailbox was empty, in which case its loop has to be woken. Safe from any
// goroutine.
func (m *mailbox) push(b *batch) (wasEmpty bool) {
	for {
		top := m.top.Load()
		b.oldest.next = top
		if m.top.CompareAndSwap(top, b.newest) {
			return top == nil
		}
	}
}

// take empties the mailbox and returns its messages, the oldest first, linked through next.
func (m *mailbox) take() *Message {
	if m.top.Load() == nil {
		return nil
	}
	var oldest *Message
	for msg := m.top.Swap(nil); msg != nil; {
		next := msg.next
		msg.next = oldest
		oldest, msg = msg, next
	}
	return oldest
}

// batch collects the messages of one turn for one destination, linked from the newest to the oldest as the mailbox
// wants them, so that a turn costs each destination one atomic operation and at most one wake-up.
type batch struct {
	newest, oldest *Message
}

func (b *batch) empty() bool { return b.newest == nil }

func (b *batch) add(m *Message) {
	m.next = b.newest
	b.newest = m
	if b.oldest == nil {
		b.oldest = m
	}
}
