package reactor

import (
	"context"
	"encoding/binary"
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
//
// gnet has the same trouble: it brings connections to a loop by a queue of its own, wakes the loop by an eventfd only
// when nobody has since the loop last looked into the queue, and does so once. If that fails, whatever is put into the queue
// afterwards waits for ever. But gnet reports the failure, to its caller or in its log, and the loop does not care who
// writes to the eventfd. So when it does report one, we write there: see wakeGnet.

const (
	// replacePause is the time between two attempts to replace a wake-up connection.
	replacePause = 10 * time.Millisecond
	// replaceTime is how long a loop may take to serve a new one. It is busy until then, or has ended.
	replaceTime = 5 * time.Second
)

var (
	wakeByte   = []byte{0}
	eventfdOne = binary.NativeEndian.AppendUint64(nil, 1) // what an eventfd is told
)

// writeWaker is the system call that wakes a loop. Tests let it fail.
var writeWaker = unix.Write

// wake makes the loop run a turn. If that fails, the ticker tries again at the next tick. Safe from any goroutine.
func (l *Loop) wake() { _ = l.tryWake() } // nothing is lost

// tryWake is wake, and says what has failed.
func (l *Loop) tryWake() error { return l.wakeBy(l.waker, wakeByte) }

// wakeGnet makes the loop look into gnet's queue, as [Loop.wake] makes it look into ours.
func (l *Loop) wakeGnet() { _ = l.tryWakeGnet() } // nothing is lost

// tryWakeGnet is wakeGnet, and says what has failed.
func (l *Loop) tryWakeGnet() error {
	if eventfd := l.eventfd.Load(); eventfd >= 0 {
		return l.wakeBy(int(eventfd), eventfdOne)
	}
	return nil
}

// wakeGnet makes all loops look into gnet's queues: gnet may have failed to wake one of them.
func (r *Reactor) wakeGnet() {
	for _, l := range r.loops {
		l.wakeGnet()
	}
}

// wakeBy wakes the loop by a write to a descriptor.
func (l *Loop) wakeBy(fd int, p []byte) error {
	for {
		_, err := writeWaker(fd, p)
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN): // what is full wakes the loop as well
			return nil
		case !errors.Is(err, unix.EINTR):
			next := l.reactor.tick() + 1
			l.retry.Store(int64(next))
			l.reactor.ticker.notify(next)
			return os.NewSyscallError("write", err)
		}
	}
}

// wakeUp is a wake-up connection on its way to its loop.
type wakeUp struct {
	loop  *Loop
	claim claim
}

// opened makes c the wake-up connection of the loop on which this runs. With the first one, the loop learns how gnet knows it.
func (w *wakeUp) opened(c gnet.Conn) {
	if !w.claim.take() {
		return
	}
	l := w.loop
	c.SetContext(l)
	if l.events != nil {
		return
	}
	l.events = c.EventLoop()
	log := &l.reactor.cfg.Log
	epoll, err := findEpoll(c.Fd())
	if err != nil {
		log.Warn().Err(err).Msg("clients cannot be held back by TCP: those that send or leave unread too much are dropped")
		return
	}
	l.epoll = epoll
	eventfd, err := findEventfd(epoll)
	if err == nil {
		eventfd, err = unix.FcntlInt(uintptr(eventfd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		log.Warn().Err(err).Msg("if the machine fails once to wake a loop for a new connection, no other gets there")
		return
	}
	l.eventfd.Store(int64(eventfd))
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
			l.wake() // what was to wake it may have been lost with the old one
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
	waker, conn, err := socketPair()
	if err != nil {
		return err
	}
	// The number stays what it is, since any goroutine may be about to write there.
	err = unix.Dup3(waker, l.waker, unix.O_CLOEXEC)
	_ = unix.Close(waker) // nothing was written to it
	if err != nil {
		_ = conn.Close() // nothing was read from it
		return os.NewSyscallError("dup3", err)
	}
	w := &wakeUp{loop: l}
	registered, err := l.events.Enroll(gnet.NewContext(context.Background(), w), conn)
	if err != nil {
		_ = conn.Close() // nothing was read from it
		return err
	}
	select {
	case result := <-registered:
		err = result.Err
	case <-time.After(replaceTime):
		err = fmt.Errorf("the loop does not answer for %s", replaceTime)
	case <-r.ended:
		return nil
	}
	return w.claim.settle(err, l.wakeGnet)
}

func socketPair() (waker int, wakeUp net.Conn, err error) {
	waker, file, err := filePair()
	if err != nil {
		return -1, nil, err
	}
	defer file.Close() //nolint:errcheck // the connection has a descriptor of its own
	wakeUp, err = net.FileConn(file)
	if err != nil {
		_ = unix.Close(waker) // nothing was written to it
		return -1, nil, err
	}
	return waker, wakeUp, nil
}

// filePair returns the ends of a socket pair, the one as a file.
func filePair() (fd int, file *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	return fds[0], os.NewFile(uintptr(fds[1]), "socket pair"), nil
}
