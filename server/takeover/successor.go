package takeover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	// lastWords is how long what an ended process has sent may take to be read, and its end to be seen. Only where it has passed its
	// end of the pair to a child of its own, the end of the process is not that of the pair.
	lastWords = 100 * time.Millisecond
	// abortTime bounds how long the last message may take to be sent: the queue of the successor has room but if it does not read at all.
	abortTime = 100 * time.Millisecond
	// endTime is how long a successor that was told to end may take.
	endTime = 2 * time.Second
)

// child is the process of the successor.
type child interface {
	pid() int
	signal(os.Signal) error
	done() <-chan struct{} // closed when it has ended
	state() string         // how it has ended
}

// Successor is the predecessor's end of the pair, with the process at the other end. Its methods are to be called in the order in
// which they stand here, by one goroutine. After an error of one of them come Abort and End.
type Successor struct {
	conn  *conn
	child child
	// patience is [endTime].
	patience time.Duration
}

func newSuccessor(c *conn, process child) *Successor {
	return &Successor{conn: c, child: process, patience: endTime}
}

// PID returns the number of the process.
func (s *Successor) PID() int { return s.child.pid() }

// Signal sends the process a signal.
func (s *Successor) Signal(sig os.Signal) error { return s.child.signal(sig) }

// Greet says hello, passes the listeners, and waits until the successor could take over. The listeners stay the caller's. The error is a
// [*RefusedError] if the successor refuses.
func (s *Successor) Greet(ctx context.Context, hello Hello, listeners []*Listener) (*Prepared, error) {
	ctx, end := s.whileItLives(ctx)
	defer end()
	hello.Format, hello.PID = Format, os.Getpid()
	hello.announce(listeners)
	if err := s.conn.send(ctx, stepHello, hello); err != nil {
		return nil, s.explain(ctx, err, endTime)
	}
	if err := s.conn.sendDescriptors(ctx, descriptors(listeners)); err != nil {
		return nil, s.explain(ctx, err, endTime)
	}
	m, err := s.conn.expect(ctx, stepPrepared)
	if err != nil {
		return nil, s.explain(ctx, err, endTime)
	}
	var prepared Prepared
	return &prepared, m.decode(&prepared)
}

// HandOver sends the estate and the descriptors, which stay the caller's, and waits until the successor has them. It returns the
// successor's digest of what it has made of them. The numbers of the announcement are filled in. This process may go on at any time; it
// says so by Abort.
func (s *Successor) HandOver(ctx context.Context, announced Estate, memory *os.File, descriptors []int) (digest []byte, err error) {
	ctx, end := s.whileItLives(ctx)
	defer end()
	info, err := memory.Stat()
	if err != nil {
		return nil, err
	}
	announced.Size, announced.Descriptors = info.Size(), len(descriptors)
	if err := s.conn.send(ctx, stepEstate, announced, int(memory.Fd())); err != nil {
		return nil, s.explain(ctx, err, lastWords)
	}
	if err := s.conn.sendDescriptors(ctx, descriptors); err != nil {
		return nil, s.explain(ctx, err, lastWords)
	}
	m, err := s.conn.expect(ctx, stepReady)
	if err != nil {
		return nil, s.explain(ctx, err, lastWords)
	}
	var ready verified
	return ready.Digest, m.decode(&ready)
}

// Commit tells the successor to serve, and returns nil once it does: this process must not serve any more from when Commit is called,
// and for good when it returns nil. After an error the successor does not serve, and never will, whatever it is doing: this process
// goes on, after Abort.
func (s *Successor) Commit(ctx context.Context) error {
	bounded, end := s.whileItLives(ctx)
	defer end()
	err := s.conn.send(bounded, stepCommit, nil)
	if err == nil {
		_, err = s.conn.expect(bounded, stepAck)
	}
	if err == nil {
		return nil
	}
	for _, late := range s.conn.hangUp() {
		if late == stepAck {
			return nil
		}
	}
	return s.explain(bounded, err, lastWords)
}

// Abort tells the successor that this process goes on, and why. It is to be called before that is so, since a successor that has
// seen the commit serves if this process dies without having said it. One that cannot be told is killed.
func (s *Successor) Abort(why error) {
	ctx, cancel := context.WithTimeout(context.Background(), abortTime)
	defer cancel()
	if err := s.conn.send(ctx, stepAbort, newReason(why)); err != nil && !errors.Is(err, errGone) {
		s.kill()
	}
}

// End waits for the end of a successor that was told to end, and kills it if it takes long. Nothing of it is left then.
func (s *Successor) End() {
	_ = s.conn.Close() // what was sent can still be read
	pauseUntil(s.child.done(), s.patience)
	select {
	case <-s.child.done():
		return
	default:
	}
	s.kill()
}

// kill ends the successor at once.
func (s *Successor) kill() {
	_ = s.child.signal(syscall.SIGKILL)    // fails only if it has ended
	pauseUntil(s.child.done(), s.patience) // if the kernel keeps it, it runs no more all the same
}

// Leave tells the successor that serves that nothing is open here any more but what it has got, and closes the pair.
func (s *Successor) Leave() {
	ctx, cancel := context.WithTimeout(context.Background(), abortTime)
	defer cancel()
	_ = s.conn.send(ctx, stepLeft, nil) // the end of this process says the same
	_ = s.conn.Close()
}

// whileItLives returns a context that ends soon after the process, if it has not ended before.
func (s *Successor) whileItLives(ctx context.Context) (alive context.Context, end func()) {
	alive, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.child.done():
			pause(alive, lastWords)
			cancel()
		case <-alive.Done():
		}
	}()
	return alive, cancel
}

// explain returns an error that says how the process has ended, or that time is up, where that is the reason. A process closes its files
// before it has ended, which is awaited for as long as the patience goes.
func (s *Successor) explain(ctx context.Context, err error, patience time.Duration) error {
	gone := errors.Is(err, errGone)
	if !gone && ctx.Err() == nil {
		return err
	}
	if gone {
		pauseUntil(s.child.done(), patience)
	}
	select {
	case <-s.child.done():
		return fmt.Errorf("the new process has ended: %s (what it has said is in the log of the daemon)", s.child.state())
	default:
	}
	switch {
	case gone:
		return fmt.Errorf("the new process, %d, has closed its end: it is no successor", s.child.pid())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the new process, %d, does not answer in time: is the program a dreadlock? (%w)", s.child.pid(), err)
	}
	return err
}

// pauseUntil waits until something is done, for some time at most.
func pauseUntil(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
