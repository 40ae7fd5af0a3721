package client

import (
	"context"
	"fmt"
	"time"
)

// Lock is a key that this process holds, or held until it was lost or unlocked.
type Lock struct {
	client *Client
	conn   *conn // belongs to the lock while conn.holder is this lock
	key    string
	token  uint64
	around *Lock // with whose context it was asked for; nil if there is none

	ctx    context.Context
	cancel context.CancelCauseFunc

	silence Silence // constant once the connection is held

	lost  chan struct{} // closed when the lock is lost
	err   error         // why; constant once lost is closed
	until time.Time     // if it lapsed, when the server may give the key away; likewise
}

func newLock(ctx context.Context, c *Client, cn *conn, key string, token uint64) *Lock {
	l := &Lock{client: c, conn: cn, key: key, token: token, around: lockAround(ctx), lost: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(l.contextOf(ctx))
	return l
}

// Key returns the key.
func (l *Lock) Key() string { return l.key }

// Server returns the address of the server that granted it: of several, one of those that were given, or ip:port of a name with
// several addresses.
func (l *Lock) Server() string { return l.conn.to.label }

// Token returns the fencing token of the lock, 1 to 2^63-1; 0 if neither Options.Fence nor
// TryFence is set, or with TryFence the server has none. Of two locks of one key the
// later one has the greater token. A resource that remembers the greatest token it has seen and refuses smaller ones
// cannot be written to by a holder that has lost the lock and does not know it yet.
func (l *Lock) Token() uint64 { return l.token }

// Lost returns a channel that is closed when the connection ends while the lock is held: from then on somebody else may
// hold the key. It is also closed when the server has been silent for too long: see Until. Unlock does not close it.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Until returns the time until which nobody else is granted the key, if Lost is closed because the server was silent. It is
// at least as far away as the silence was long; the work must have ended by then, and when it has, call Unlock. Until then
// the connection is kept, so that no sign of it can tell the server to give the key away sooner. The time is zero if the lock
// is not lost, if the connection has ended, and if the server has not announced such a time: see Silence.
func (l *Lock) Until() time.Time {
	select {
	case <-l.lost:
		return l.until
	default:
		return time.Time{}
	}
}

// Silence returns what is done about the server's silence while the lock is held.
func (l *Lock) Silence() Silence { return l.silence }

// Context returns a context for the work that needs the lock. It is derived from the context that was given to Lock. It is
// done when the lock is lost, when Unlock is called, or when its parent is done; context.Cause is then ErrConnectionLost,
// ErrUnlocked or the cause of the parent. The end of the context does not unlock the key.
//
// A lock that is asked for with the context of another one is asked for under it: the server is told that the other one is
// not released before that wait is over, and so it sees deadlocks of programs that take several locks. Give each call of Lock
// the context of the innermost lock that it is needed under. Work that is started under a lock, and for which its holder does
// not wait, is not under it: see WithOwner.
func (l *Lock) Context() context.Context { return l.ctx }

// Unlock ends Context and then releases the key. If it returns nil, the server has confirmed that. After an error the key
// is released as well, because the connection is closed: the server frees the key when it sees that. The error is
// ErrConnectionLost if the lock was lost before or during the call, that of ctx if it ended first, a *ServerError if to the
// server the key was not held, or ErrUnlocked if Unlock was called before.
//
// In a defer, give Unlock a context that has not ended by then, but ends before long: see the example of Context.
func (l *Lock) Unlock(ctx context.Context) error {
	if err := l.unlock(ctx); err != nil {
		return fmt.Errorf("unlock %.60s: %w", l.key, err)
	}
	return nil
}

func (l *Lock) unlock(ctx context.Context) error {
	if !l.conn.letGo(l) {
		select {
		case <-l.lost:
			l.conn.abandon()
			return l.err
		default:
			return ErrUnlocked
		}
	}
	l.cancel(ErrUnlocked) // before the key can be somebody else's
	if err := l.conn.unlock(ctx, l.key); err != nil {
		return err
	}
	l.client.keep(l.conn)
	return nil
}

// lose notifies the holder that the lock is lost. It is called once, under the mutex of the connection.
func (l *Lock) lose(err error) {
	l.err = err
	l.cancel(err)
	close(l.lost) // whoever sees this sees the end of the context as well
}
