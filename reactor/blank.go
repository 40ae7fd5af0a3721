package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// gnet has no quick way to take a connected socket: to enroll one takes a goroutine, a dozen system calls and the turn of its loop.
// But it knows a connection by the number of its descriptor alone. So connections are made beforehand that lead nowhere,
// blanks, and a socket is put under the number of one of them:
//
//	made:     gnet enrolls a duplicate of one end of a socket pair ──► OnOpen: out of epoll
//	adopted:  dup3(socket, number of the blank)
//	begun:    epoll_ctl(ADD, number), which gnet takes for the blank
//
// All blanks are duplicates of one end of one pair. Everything that depends on how gnet knows its connections stands here and in
// poll.go, and blank_test.go fails when a new gnet does it differently.

// blankMakers is the number of goroutines that make blanks: as many at a time are on their way to a loop.
const blankMakers = 16

// errNoEpoll is why no blanks can be made.
var errNoEpoll = errors.New("reactor: connections cannot be taken over: the epoll instance of a loop was not found")

// blanks is the context of the blanks that one call has made, for gnet.
type blanks struct {
	failed atomic.Bool // no more are wanted
}

// opened takes a new blank out of epoll and keeps it.
func (b *blanks) opened(l *Loop, sock gnet.Conn) gnet.Action {
	if b.failed.Load() || unwatch(l.epoll, sock.Fd()) != nil {
		b.failed.Store(true)
		return gnet.Close
	}
	l.blanks = append(l.blanks, sock)
	l.room.Add(1)
	return gnet.None
}

// fill makes n blanks. gnet chooses their loops.
func (b *blanks) fill(ctx context.Context, r *Reactor, n int) error {
	far, near, err := filePair()
	if err != nil {
		return err
	}
	defer unix.Close(far) //nolint:errcheck // nothing was written to it
	defer near.Close()    //nolint:errcheck // the blanks have descriptors of their own
	var left atomic.Int64
	left.Store(int64(n))
	errs := make([]error, blankMakers)
	var makers sync.WaitGroup
	for i := range errs {
		makers.Go(func() {
			for errs[i] == nil && left.Add(-1) >= 0 {
				if errs[i] = ctx.Err(); errs[i] == nil && !b.failed.Load() {
					errs[i] = b.makeOne(r, near)
				}
				if errs[i] != nil {
					b.failed.Store(true)
				}
			}
		})
	}
	makers.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if b.failed.Load() {
		return errNotWatched
	}
	return nil
}

func (b *blanks) makeOne(r *Reactor, near *os.File) error {
	conn, err := net.FileConn(near)
	if err != nil {
		return err
	}
	if _, err = r.client.EnrollContext(conn, b); err != nil { // closes conn: gnet has a descriptor of its own
		r.wakeGnet()
	}
	return err
}

// takeBlank returns a blank of the loop under whose number the socket is now. fd is closed; after an error it is not.
func (l *Loop) takeBlank(fd int) (gnet.Conn, error) {
	last := len(l.blanks) - 1
	if last < 0 {
		return nil, fmt.Errorf("reactor: loop %d has no room for another connection", l.index)
	}
	sock := l.blanks[last]
	if err := unix.Dup3(fd, sock.Fd(), unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("dup3", err)
	}
	l.blanks[last] = nil
	l.blanks = l.blanks[:last]
	l.room.Add(-1)
	_ = unix.Close(fd) // the socket lives on under the other number
	sock.SetContext(nil)
	return sock, nil
}

// watchAdopted has the loop's epoll instance watch a socket that was put under the number of a blank.
func watchAdopted(epoll, fd int, want interest) error {
	ev := unix.EpollEvent{Events: uint32(want), Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &ev))
}

// dropBlanks is a message that has a loop close its blanks, in as many turns as that takes.
type dropBlanks struct {
	message Message // Body: the dropBlanks
	done    chan<- struct{}
}

// dropBlanks closes as many blanks as the turn may.
func (l *Loop) dropBlanks(d *dropBlanks) {
	for n := len(l.blanks); n > 0; n-- {
		if !l.Spend(closeUnits) {
			l.Post(l.index, &d.message)
			return
		}
		_ = l.events.Close(l.blanks[n-1]) // an error is about epoll, where it is not
		l.blanks = l.blanks[:n-1]
		l.room.Add(-1)
	}
	l.blanks = nil
	d.done <- struct{}{}
}
