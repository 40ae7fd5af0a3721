package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// A loop sleeps in epoll_wait, and gnet lets it watch connections only. So each loop has a pair of connected sockets: a byte
// that is written into the one, the waker, makes the loop that reads the other, its wake-up connection, run a turn.
//
// A loop that is not woken when it should be would be deaf for ever, since others wake it only when its mailbox was empty. So
// a wake-up that fails is repeated by the ticker until one succeeds, and a wake-up connection that breaks is replaced.

const (
	// replacePause is the time between two attempts to replace a wake-up connection.
	replacePause = 10 * time.Millisecond
	// replaceTime is how long a loop may take to serve a new one. It is busy until then, or has ended.
	replaceTime = 5 * time.Second
)

var wakeByte = []byte{0}

// writeWaker is the system call that wakes a loop. Tests let it fail.
var writeWaker = unix.Write

// wake makes the loop run a turn. If that fails, the ticker tries again at the next tick. Safe from any goroutine.
func (l *Loop) wake() { _ = l.tryWake() } // nothing is lost

// tryWake is wake, and says what has failed.
func (l *Loop) tryWake() error {
	for {
		_, err := writeWaker(l.waker, wakeByte)
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN): // a full socket wakes the loop as well
			return nil
		case !errors.Is(err, unix.EINTR):
			next := l.reactor.tick() + 1
			l.retry.Store(int64(next))
			l.reactor.ticker.notify(next)
			return os.NewSyscallError("write", err)
		}
	}
}

// wakeUpLost is called when the wake-up connection of a loop has ended. Without an error gnet has closed it, because the loop
// has ended; with one only the connection has, and is replaced.
func (r *Reactor) wakeUpLost(l *Loop, err error) {
	if err == nil || !r.transit.run(func() { r.replaceWakeUp(l, err) }) {
		r.breaking.Do(func() { close(r.broken) })
	}
}

// replaceWakeUp gives the loop a new wake-up connection, on a goroutine of its own. Meanwhile wake fails, and the ticker
// repeats what is missed.
func (r *Reactor) replaceWakeUp(l *Loop, lost error) {
	r.cfg.Log.Warn().Err(lost).Int("loop", l.index).Msg("the wake-up connection of a loop has failed and is replaced")
	deadline := time.Now().Add(replaceTime)
	for {
		err := r.renewWakeUp(l)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.cfg.Log.Error().Err(err).Int("loop", l.index).Msg("a loop cannot be woken any more")
			r.breaking.Do(func() { close(r.broken) })
			return
		}
		select {
		case <-time.After(replacePause):
		case <-r.ended:
			return
		}
	}
}

func (r *Reactor) renewWakeUp(l *Loop) error {
	waker, wakeUp, err := socketPair()
	if err != nil {
		return err
	}
	before := l.wakeUps.Load()
	// The number stays what it is, since any goroutine may be about to write there.
	err = unix.Dup3(waker, l.waker, unix.O_CLOEXEC)
	_ = unix.Close(waker) // nothing was written to it
	if err != nil {
		_ = wakeUp.Close() // nothing was read from it
		return os.NewSyscallError("dup3", err)
	}
	registered, err := l.events.Enroll(gnet.NewContext(context.Background(), l), wakeUp)
	if err != nil {
		_ = wakeUp.Close() // nothing was read from it
		return err
	}
	select {
	case result := <-registered:
		if result.Err == nil && l.wakeUps.Load() == before {
			return errNotWatched
		}
		return result.Err
	case <-time.After(replaceTime):
		return fmt.Errorf("the loop does not answer for %s", replaceTime)
	case <-r.ended:
		return nil
	}
}

func socketPair() (waker int, wakeUp net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[1]), "waker")
	defer file.Close() //nolint:errcheck // the connection has a descriptor of its own
	wakeUp, err = net.FileConn(file)
	if err != nil {
		_ = unix.Close(fds[0]) // nothing was written to it
		return -1, nil, err
	}
	return fds[0], wakeUp, nil
}
