package client

import (
	"context"
	"fmt"
	"time"

	"dreadlock/proto"
)

// pulse is the heartbeat of a connection. It is guarded by conn.mu.
type pulse struct {
	timer   *time.Timer   // for the next beat; nil before the first lock with heartbeats
	proven  time.Time     // when the last command was sent that was answered: until then at least, the server has heard of us
	sent    time.Time     // when the heartbeat was sent that is not answered yet; zero if there is none
	heard   chan struct{} // closed by the next answer to a heartbeat; nil if nobody waits for it
	patient bool          // the kernel was told to leave the connection alone
	lapsed  bool          // the lock is lost, and the connection is kept until its work has ended
}

// startPulse begins to beat for the holder, which has been granted its key.
func (c *conn) startPulse() {
	c.pulse.proven = c.asked
	first := c.silence.Heartbeat - time.Since(c.asked)
	if c.pulse.timer == nil {
		c.pulse.timer = time.AfterFunc(first, c.beat)
	} else {
		c.pulse.timer.Reset(first)
	}
}

// stopPulse ends the beats. The last one may still be unanswered.
func (c *conn) stopPulse() {
	if c.pulse.timer != nil {
		c.pulse.timer.Stop()
	}
	if c.pulse.patient {
		c.pulse.patient = false
		c.watchHost()
	}
}

// beat is called when a heartbeat is due, when one has not been answered for too long, and some time after that. It may also
// be called too early, or too late.
func (c *conn) beat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, p := time.Now(), &c.pulse
	next := p.proven.Add(c.silence.Lost)
	switch {
	case p.lapsed:
		c.abandon()
		return
	case c.holder == nil:
		return
	case !now.Before(next):
		c.lapse()
		return
	case p.sent.IsZero() && now.Before(p.proven.Add(c.silence.Heartbeat)):
		next = p.proven.Add(c.silence.Heartbeat)
	case p.sent.IsZero():
		if !p.patient {
			p.patient = true
			c.trustHost()
		}
		c.sendBeat(now)
	}
	p.timer.Reset(next.Sub(now))
}

// sendBeat sends a heartbeat for the holder, while none is outstanding.
func (c *conn) sendBeat(now time.Time) {
	c.pulse.sent, c.out = now, proto.AppendFence(c.out[:0], c.holder.key)
	c.aside.Add(1)
	_, _ = c.sock.Write(c.out) // see send
}

// prove finds out whether the server is still there that a connection belongs to, when another connection has led to another lock
// table: true if a lock is held on it, and the server confirms that. A connection that holds nothing is dropped, so that what was
// asked on it does not count. The error is ErrUnreachable if there is no answer in time, or that of the context.
func (c *conn) prove(ctx context.Context, limit time.Duration) (alive bool, err error) {
	began, p := time.Now(), &c.pulse
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		c.mu.Lock()
		switch {
		case c.over, c.holder == nil && p.lapsed: // a lock that is lost: only its work has not ended
			c.mu.Unlock()
			return false, nil
		case c.holder == nil:
			c.dropped = errReplaced
			c.mu.Unlock()
			c.close()
			return false, nil
		case !p.proven.Before(began):
			c.mu.Unlock()
			return true, nil
		case p.sent.IsZero():
			c.sendBeat(time.Now())
		}
		if p.heard == nil {
			p.heard = make(chan struct{})
		}
		heard := p.heard
		c.mu.Unlock()
		select {
		case <-heard:
		case <-c.ended:
		case <-timer.C:
			return false, fmt.Errorf("%w: there is another lock table, and the connection of a lock at %s does not answer",
				ErrUnreachable, c.to.label)
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// takeAside takes an answer that nobody waits for: to an owner, or to a heartbeat. The error ends the connection: the server
// says that the key is not ours.
func (c *conn) takeAside(answer proto.Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, l := &c.pulse, c.holder
	beats := !p.sent.IsZero()
	switch left := c.aside.Add(-1); {
	case answer.Reply == proto.Owned && (!beats || left > 0):
		return nil
	case !beats:
		return refusalOf(answer, "was not asked for")
	}
	p.proven, p.sent = p.sent, time.Time{}
	if p.heard != nil {
		close(p.heard)
		p.heard = nil
	}
	switch {
	case l == nil: // it is being unlocked, which is answered next, or has lapsed
	case answer.Reply != proto.Token, l.token != 0 && answer.Token != l.token:
		return refusalOf(answer, "does not answer the heartbeat")
	case c.silence.Heartbeat > 0:
		p.timer.Reset(time.Until(p.proven.Add(c.silence.Heartbeat)))
	}
	return nil
}

// lapse ends the lock because the server has been silent for too long. The connection stays as it is until the holder has
// ended its work, and says so by Unlock: its end would reach a server that only cannot be heard, and the key would be
// somebody else's at once. At last it is closed anyway, when the server has long given the key away.
func (c *conn) lapse() {
	l, p := c.holder, &c.pulse
	c.holder, p.lapsed = nil, true
	if c.silence.Server > 0 {
		l.until = p.proven.Add(c.silence.Server)
	}
	p.timer.Reset(max(c.silence.Server, 2*c.silence.Lost) - c.silence.Lost)
	l.lose(lost(c.silence.err()))
}

// abandon closes the connection of a lock that was lost. If it was kept, a reset tells the server at once: an orderly end would
// have to wait until the server has acknowledged the heartbeat.
func (c *conn) abandon() {
	if sock := tcpOf(c.sock); sock != nil {
		_ = sock.SetLinger(0) // fails if it is closed
	}
	c.close()
}

// confirm makes sure that the server still hears the client, which has waited for its grant for so long that it has proven
// nothing lately. The errors are those of lock; after each the connection is closed.
func (c *conn) confirm(ctx context.Context, key string) error {
	limited, cancel := context.WithTimeout(ctx, c.silence.Lost)
	defer cancel()
	c.out = proto.AppendFence(c.out[:0], key)
	answer, err := c.ask(limited, 1)
	switch {
	case err != nil && ctx.Err() == nil && limited.Err() != nil:
		return lost(c.silence.err())
	case err != nil:
		return err
	case answer.Reply != proto.Token:
		return c.reject(answer)
	}
	return nil
}
