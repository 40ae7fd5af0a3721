package client

import (
	"context"
	"crypto/rand"
	"errors"

	"dreadlock/proto"
)

// The server takes the connections of one owner for one: whoever waits on one of them is taken to release nothing that the
// others hold until that wait is over. It must never be told so where it is not true, or it would report deadlocks that are
// none, and break them. What a context tells is this: while a call of Lock waits, the locks whose contexts it was given,
// directly or by a lock in between, are not released. The other locks that were taken with those contexts may well be: they
// may belong to other goroutines.
//
//	a ◄─ context ─ b ◄─ context ─ a wait       the wait, b and a are of one owner
//	▲
//	└─ context ─ c                             c is not: it may be released at any time
//
// So each wait has an owner of its own, which nobody had before. The locks around it take the same owner, on their own
// connections, which costs them no round trip. An owner has at most one wait that way, and the locks that are held under it
// are those around the wait. When the wait is over, the lock that it got is of the owner as well, but no wait is, and the next
// wait moves the locks around it to the next owner.
//
// A connection has one owner. If two calls wait at the same time under one lock, it belongs to that of the first, and the
// server does not see a deadlock by which only the other one is held up. Connections that no lock is asked for on the inside
// have no owner: the server need not look at their waits.

// ownerKey is the key of an owner among the values of a context: a string of WithOwner, or the *Lock whose context it is.
type ownerKey struct{}

// WithOwner returns a context whose locks belong to an owner, whatever Options.Owner says and whatever lock the context is
// of: see Options.Owner for when that is true. So do the locks that are asked for with their contexts. The owner is letters
// and digits, see proto.ValidOwner. If it is empty, the locks belong to nobody: for work that is started under a lock, and
// for which the lock's holder does not wait.
func WithOwner(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// ownerOf returns the owner that was given to the locks that are asked for with a context, empty if none was.
func (c *Client) ownerOf(ctx context.Context) string {
	if owner, given := ctx.Value(ownerKey{}).(string); given {
		return owner
	}
	return c.options.Owner
}

// afterLoss returns the context with which a key is asked for again after an error. If a connection was lost after it had asked,
// the server may not know that yet, and grant it the key. To a server that was told an owner, that owner would then wait for
// itself: so the locks of the call belong to nobody from now on. An owner that gather makes is another one at each attempt.
func (c *Client) afterLoss(ctx context.Context, err error) context.Context {
	if c.ownerOf(ctx) == "" || !errors.Is(err, ErrConnectionLost) {
		return ctx
	}
	return WithOwner(ctx, "")
}

// contextOf returns the context of a lock, which tells those that are asked for with it to whom they belong.
func (l *Lock) contextOf(ctx context.Context) context.Context {
	if owner := l.client.ownerOf(ctx); owner != "" {
		return WithOwner(ctx, owner)
	}
	return context.WithValue(ctx, ownerKey{}, l)
}

// lockAround returns the lock with whose context another one is asked for, nil if there is none.
func lockAround(ctx context.Context) *Lock {
	l, _ := ctx.Value(ownerKey{}).(*Lock)
	return l
}

// gather gives the locks around a wait an owner. It returns that, empty if there is none, and a function to call when the wait
// is over.
func gather(ctx context.Context) (owner string, over func()) {
	var gathered []*Lock
	owner = newOwner()
	for l := lockAround(ctx); l != nil; l = l.around {
		held, joined := l.conn.join(l, owner)
		if !held {
			break // this wait outlives the lock: the context does not tell who needs it
		}
		if joined {
			gathered = append(gathered, l)
		}
	}
	if len(gathered) == 0 {
		return "", func() {}
	}
	return owner, func() {
		for _, l := range gathered {
			l.conn.leave(l)
		}
	}
}

// maxAside is the largest number of answers that are outstanding and that nobody waits for. A server that does not answer is
// not told of further owners, so that writing them never blocks.
const maxAside = 16

// join gives the connection of a held lock the owner of a wait. It reports whether l is still the holder, and whether it has
// the owner now: not if another wait has given it one and is not over, and not if the server does not know owners.
func (c *conn) join(l *Lock, owner string) (held, joined bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder != l {
		return false, false
	}
	if c.joined || c.older || c.aside.Load() >= maxAside {
		return true, false
	}
	c.joined, c.owner = true, owner
	c.aside.Add(1)
	c.out = proto.AppendOwner(c.out[:0], owner)
	_, _ = c.sock.Write(c.out) // if it fails, the reader finds out why
	return true, true
}

// leave ends what join began: the connection can have the owner of another wait.
func (c *conn) leave(l *Lock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holder == l {
		c.joined = false
	}
}

// ownerToSay returns the owner that a connection has to name before it asks for a key, empty if there is nothing to say. A
// connection that had another owner cannot go back to none: it gets one that nobody else has.
func (c *conn) ownerToSay(want string) string {
	switch want {
	case c.owner:
		return ""
	case "":
		return newOwner()
	}
	return want
}

// newOwner returns an owner that nobody else has.
func newOwner() string { return rand.Text() }
