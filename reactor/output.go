package reactor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a peer does not take at once is kept here and not in gnet, whose buffer has no bound, tells nobody when it has
// drained, and is lost when the peer half-closes. gnet's epoll instances cannot be asked when a socket has room, so there is
// one more, for the few connections that wait for that:
//
//	Conn.Write: no room ──► outputWatcher.add ──► epoll ──► its goroutine ──message──► loop: Conn.writable
//
// A message that crosses the end of its connection, or of its watch, is told by its number and ignored.

// failedPause is the time before an epoll_wait that has failed is repeated.
const failedPause = 10 * time.Millisecond

// errNotReading ends a connection that lingers for a peer that does not read.
var errNotReading = errors.New("reactor: the peer does not read the rest of its output")

// output is what a connection has when its peer lags. It belongs to the connection.
type output struct {
	unsent  []byte
	largest int           // see size
	counted int           // bytes in the memory of the loop
	room    *room         // the watch for room in the socket; nil if there is none
	taken   time.Duration // when the peer last took something that was unsent
}

// Write sends p, or keeps a copy of what the peer cannot take yet. If the connection breaks, it is closed at the end of
// this turn. On a closed connection it does nothing.
func (c *Conn) Write(p []byte) {
	if !c.IsOpen() {
		return
	}
	if c.tls != nil {
		p = c.loop.seal(c.tls, p)
	}
	c.put(p)
}

// put sends p as it is.
func (c *Conn) put(p []byte) {
	switch {
	case len(p) == 0:
		return
	case c.Unsent() > 0, c.adopted():
		c.keep(p)
		return
	}
	n, err := c.send(p)
	if err != nil {
		c.end(os.NewSyscallError("write", err))
		return
	}
	if n < len(p) {
		c.keep(p[n:])
		c.output.taken = c.loop.Now()
		c.watchOutput()
		c.updateInterest()
	}
	if c.judgement == nil && (c.tcp || n < len(p)) {
		c.judge()
	}
}

// keep adds p to what is unsent.
func (c *Conn) keep(p []byte) {
	if c.output == nil {
		c.output = &output{}
	}
	c.output.unsent = append(c.output.unsent, p...)
	c.recount()
}

// Unsent returns the number of bytes that wait for the peer to read.
func (c *Conn) Unsent() int {
	if c.output == nil {
		return 0
	}
	return len(c.output.unsent)
}

// send writes p to the socket and returns how much of it found room.
func (c *Conn) send(p []byte) (n int, err error) { return write(c.fd, p) }

// write writes p to a socket and returns how much of it found room.
func write(fd int, p []byte) (n int, err error) {
	for {
		n, err = unix.Write(fd, p)
		switch err {
		case nil:
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}

// writable sends what is unsent, now that the socket has room.
func (c *Conn) writable() {
	o := c.output
	o.room.fired()
	o.room = nil
	n, err := c.send(o.unsent)
	if err != nil {
		c.end(os.NewSyscallError("write", err))
		return
	}
	if o.unsent = o.unsent[n:]; len(o.unsent) > 0 {
		c.watchOutput()
	} else {
		o.unsent = nil
		c.recount()
		c.updateInterest()
		if c.last {
			c.Close()
			return
		}
	}
	if n > 0 {
		o.taken = c.loop.Now()
		c.client.Drained()
	}
}

// watchOutput has writable called when the socket has room.
func (c *Conn) watchOutput() {
	room, err := c.loop.reactor.outputs.add(c)
	if err != nil {
		c.end(err)
		return
	}
	c.output.room = room
}

func (c *Conn) unwatchOutput() {
	if c.output != nil && c.output.room != nil {
		c.output.room.remove()
		c.output.room = nil
	}
}

// room is one watch for room in a socket.
type room struct {
	message Message // Body: the room
	watcher *outputWatcher
	number  uint64
	fd      int
	loop    *Loop // of the connection, which does not move while output is unsent
	conn    *Conn // belongs to the loop
}

// outputWatcher waits for room in the sockets of connections whose peers lag. Its methods are safe from any loop.
type outputWatcher struct {
	file *os.File // the epoll instance, which Go's own poller waits for
	raw  syscall.RawConn

	mu      sync.Mutex
	number  uint64
	waiting map[uint64]*room
}

func newOutputWatcher() (*outputWatcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.File would not wait in Go's poller
		_ = unix.Close(fd) // it watches nothing
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &outputWatcher{file: os.NewFile(uintptr(fd), "output watcher"), waiting: make(map[uint64]*room)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		_ = w.file.Close() // it watches nothing
		return nil, err
	}
	return w, nil
}

// add watches for room in the socket of c.
func (w *outputWatcher) add(c *Conn) (*room, error) {
	r := &room{watcher: w, fd: c.fd, loop: c.loop, conn: c}
	r.message.Body = r
	w.mu.Lock()
	w.number++
	r.number = w.number
	w.waiting[r.number] = r
	w.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLONESHOT, Fd: int32(uint32(r.number)), Pad: int32(uint32(r.number >> 32))}
	if err := w.control(unix.EPOLL_CTL_ADD, r.fd, &event); err != nil {
		r.forget()
		return nil, fmt.Errorf("wait for room in a socket: %w", err)
	}
	return r, nil
}

// control changes what is watched. After close there is nothing to change.
func (w *outputWatcher) control(op, fd int, event *unix.EpollEvent) (err error) {
	ctl := w.raw.Control(func(epoll uintptr) { err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epoll), op, fd, event)) })
	if ctl != nil {
		return ctl
	}
	return err
}

// remove ends the watch. Its message may be on the way already.
func (r *room) remove() {
	r.forget()
	r.fired()
}

// fired takes the socket, which has had its one event, out of the epoll instance.
func (r *room) fired() {
	// Fails when the instance is closed. If it failed otherwise, the next watch of this socket would, and end its connection.
	_ = r.watcher.control(unix.EPOLL_CTL_DEL, r.fd, nil)
}

func (r *room) forget() {
	r.watcher.mu.Lock()
	defer r.watcher.mu.Unlock()
	delete(r.watcher.waiting, r.number)
}

// arrived is called on the loop of the connection.
func (r *room) arrived() {
	if c := r.conn; c.IsOpen() && c.output != nil && c.output.room == r {
		c.writable()
	}
}

// run sends word to the loops until the watcher is closed.
func (w *outputWatcher) run() {
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := w.raw.Read(func(epoll uintptr) bool {
			n, _ = ignoringEINTR(func() (int, error) { return unix.EpollWait(int(epoll), events, 0) })
			return n != 0
		})
		if err != nil {
			return
		}
		if n < 0 { // a shortage of memory: what is there is not announced again
			<-time.After(failedPause)
			continue
		}
		for _, e := range events[:n] {
			if r := w.take(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32); r != nil {
				r.loop.Send(&r.message)
			}
		}
	}
}

// take returns the room with the number, nil if nobody waits for it any more.
func (w *outputWatcher) take(number uint64) *room {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.waiting[number]
	delete(w.waiting, number)
	return r
}

// close ends run.
func (w *outputWatcher) close() { _ = w.file.Close() } // fails only if it is closed
