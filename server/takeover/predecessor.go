package takeover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// helloTime bounds how long the predecessor may take to say hello: it has nothing else to do.
	helloTime = 10 * time.Second
	// commitTime bounds how long it may take to commit. It has given up long before.
	commitTime = 20 * time.Second
	// leaveTime is how long it may take to leave after the ack, before it is killed.
	leaveTime = 5 * time.Second
)

// Predecessor is the successor's end of the pair. But for Take and the channels its methods are to be called in the order in which they
// stand here, by one goroutine. After an error of one of them the process has to end, by way of Refuse.
type Predecessor struct {
	Hello
	conn   *conn
	parent parent
	leave  time.Duration // how long the predecessor may take to leave

	mu        sync.Mutex
	listeners []*Listener // that nobody has taken

	serving chan struct{} // closed when this process serves
	left    chan struct{} // closed when the predecessor has left
}

// Inherit returns the predecessor of this process, nil if it has none: if it was not started to take over. It waits for the
// hello and for the listeners. The environment is cleared of what was meant for this process alone. There is an error if the predecessor is
// not the parent: each of the two would take the process in between for the other one.
func Inherit(ctx context.Context) (*Predecessor, error) {
	text, ok := os.LookupEnv(Variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(Variable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%s: a daemon sets it for its successor: unset it", Variable, text)
	}
	unix.CloseOnExec(fd)
	c, err := newConn(os.NewFile(uintptr(fd), "takeover"))
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w: a daemon sets it for its successor: unset it", Variable, text, err)
	}
	parent := findParent()
	p := newPredecessor(c, parent)
	err = p.hear(ctx)
	if err == nil && parent.pid != p.PID {
		err = fmt.Errorf("process %d has started this one, and not the daemon that runs, %d: a script must start the daemon by exec",
			parent.pid, p.PID)
	}
	if err != nil {
		p.Refuse(err)
		return nil, err
	}
	return p, nil
}

func newPredecessor(c *conn, process parent) *Predecessor {
	return &Predecessor{conn: c, parent: process, leave: leaveTime, serving: make(chan struct{}), left: make(chan struct{})}
}

// hear waits for the hello and the listeners.
func (p *Predecessor) hear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, helloTime)
	defer cancel()
	m, err := p.conn.expect(ctx, stepHello)
	if err != nil {
		return err
	}
	if err := m.decode(&p.Hello); err != nil {
		return err
	}
	if p.Format != Format {
		return fmt.Errorf("the daemon that runs, %s, hands over in format %d, and %d is known here: "+
			"restart it the ordinary way, which loses the locks", p.Version, p.Format, Format)
	}
	count, err := p.announced()
	if err != nil {
		return err
	}
	passed := Descriptors{conn: p.conn, left: count}
	p.listeners, err = p.Hello.listeners(func() (int, error) { return passed.Next(ctx) })
	passed.Close()
	return err
}

// Take returns the first listener that fits, which is the caller's then, or nil. Without a predecessor there is none. Safe from any
// goroutine.
func (p *Predecessor) Take(fits func(l *Listener) bool) *Listener {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, l := range p.listeners {
		if fits(l) {
			p.listeners = append(p.listeners[:i:i], p.listeners[i+1:]...)
			return l
		}
	}
	return nil
}

// TakeKey returns the first listener with that key, or nil. Safe from any goroutine.
func (p *Predecessor) TakeKey(key string) *Listener {
	return p.Take(func(l *Listener) bool { return l.Key == key })
}

// Prepared says that this process could take over.
func (p *Predecessor) Prepared(ctx context.Context, prepared Prepared) error {
	return p.say(ctx, stepPrepared, prepared)
}

// say sends a message. A predecessor that does not want it any more has said why.
func (p *Predecessor) say(ctx context.Context, s step, body any) error {
	err := p.conn.send(ctx, s, body)
	if !errors.Is(err, errGone) {
		return err
	}
	var aborted *AbortedError
	if _, why := p.conn.expect(ctx, stepCommit); errors.As(why, &aborted) {
		return why
	}
	return err
}

// Receive waits for the estate, and returns what is in its memory file. The descriptors are still to come. The error is an
// [*AbortedError] if the predecessor goes on itself.
func (p *Predecessor) Receive(ctx context.Context) (content []byte, announced *Estate, descriptors *Descriptors, err error) {
	m, err := p.conn.expect(ctx, stepEstate)
	if err != nil {
		return nil, nil, nil, err
	}
	defer closeAll(m.descriptors) // it was only read
	announced = new(Estate)
	if err := m.decode(announced); err != nil {
		return nil, nil, nil, err
	}
	if len(m.descriptors) != 1 {
		return nil, nil, nil, errors.New("the estate has come without its memory")
	}
	if content, err = readMemory(m.descriptors[0], announced.Size); err != nil {
		return nil, nil, nil, fmt.Errorf("read the estate: %w", err)
	}
	return content, announced, &Descriptors{conn: p.conn, left: announced.Descriptors}, nil
}

// TakeOver says that this process has everything, and what it has made of it. It waits for the commit, and returns nil when this
// process must serve, at once and for good: the predecessor knows it, or has died after its commit and before it could go on.
// After an error the predecessor serves, or nobody does if it is dead.
func (p *Predecessor) TakeOver(ctx context.Context, digest []byte) error {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	if err := p.say(ctx, stepReady, verified{digest}); err != nil {
		return err
	}
	if _, err := p.conn.expect(ctx, stepCommit); err != nil {
		return err
	}
	return p.acknowledge(ctx)
}

// acknowledge is what comes after the commit.
func (p *Predecessor) acknowledge(ctx context.Context) error {
	err := p.conn.send(ctx, stepAck, nil)
	if errors.Is(err, errGone) {
		// Either it has hung up, and its abort comes before it goes on, or it is dead.
		if _, err = p.conn.expect(ctx, stepAbort); errors.Is(err, errGone) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	close(p.serving)
	return nil
}

// Serving is closed when TakeOver has returned nil.
func (p *Predecessor) Serving() <-chan struct{} { return p.serving }

// AwaitEnd returns when the predecessor has left or ctx is done, and reports which. Once it has left, none of its connections are
// open but those that it has handed over. One that takes too long is killed, after a call of killing.
func (p *Predecessor) AwaitEnd(ctx context.Context, killing func()) (left bool) {
	for asked := false; ; asked = true {
		bounded, cancel := context.WithTimeout(ctx, p.leave)
		m, err := p.conn.receive(bounded)
		cancel()
		switch {
		case err == nil && m.step == stepLeft:
		case errors.Is(err, errGone):
			p.parent.awaitDeath(p.leave) // which closes one file after the other
		case ctx.Err() != nil:
			return false
		default:
			if !asked {
				killing()
			}
			p.parent.kill()
			// Then it has left, even if the pair has not ended: something that it has started may have its end.
			if !p.parent.awaitDeath(p.leave) {
				continue
			}
		}
		close(p.left)
		_ = p.conn.Close()
		return true
	}
}

// Left is closed when AwaitEnd has returned.
func (p *Predecessor) Left() <-chan struct{} { return p.left }

// Refuse says why this process does not take over. It ends then. Without a predecessor, and once this process serves, Refuse does nothing.
func (p *Predecessor) Refuse(why error) {
	if p == nil {
		return
	}
	select {
	case <-p.serving:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), abortTime)
	defer cancel()
	_ = p.conn.send(ctx, stepRefused, newReason(why)) // it sees the end in any case
	_ = p.conn.Close()
}
