package takeover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPacket is the size of the largest message, in bytes. The kernel takes more than that in one piece.
	maxPacket = 64 << 10
	// maxDescriptors is the number of descriptors that are passed with one message. The kernel takes up to 253, and the successor must have
	// so many more than it keeps.
	maxDescriptors = 128
	// flightPause is the time after which descriptors are sent again of which too many were in flight.
	flightPause = time.Millisecond
)

// errGone says that the other process has closed its end, or is dead, and that everything it had sent before was read.
var errGone = errors.New("the other process is gone")

// conn is one end of the pair. Packets come whole and in order. Only one goroutine sends, and only one receives, at a time.
type conn struct {
	*net.UnixConn
	in, rights []byte
}

// newPair returns the end of the predecessor, and that of the successor as the file that it inherits.
func newPair() (*conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "takeover")
	ours, err := newConn(os.NewFile(uintptr(fds[0]), "takeover"))
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// newConn makes an end of a file, and closes that.
func newConn(file *os.File) (*conn, error) {
	c, err := net.FileConn(file)
	_ = file.Close() // the connection has a duplicate
	if err != nil {
		return nil, err
	}
	socket, ok := c.(*net.UnixConn)
	if !ok || socket.LocalAddr().Network() != "unixpacket" {
		_ = c.Close()
		return nil, errors.New("not a Unix socket of packets")
	}
	return &conn{UnixConn: socket, in: make([]byte, maxPacket+1), rights: make([]byte, unix.CmsgSpace(4*maxDescriptors))}, nil
}

// bound gives up a call on the connection when ctx is done. The call is over when end is called.
func bound(ctx context.Context, set func(time.Time) error) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := set(time.Time{}); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = set(time.Unix(1, 0)) // fails if it is closed, and the call with it
		close(done)
	})
	return func() {
		if !stop() {
			<-done
		}
	}, nil
}

// send sends a message, with descriptors that stay the caller's.
func (c *conn) send(ctx context.Context, s step, body any, descriptors ...int) error {
	packet, err := encode(s, body)
	if err != nil {
		return err
	}
	end, err := bound(ctx, c.SetWriteDeadline)
	if err != nil {
		return fmt.Errorf("send %s: %w", s, err)
	}
	defer end()
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	for {
		_, _, err = c.WriteMsgUnix(packet, rights, nil)
		if !errors.Is(err, unix.ETOOMANYREFS) || !pause(ctx, flightPause) {
			break // or else the other process has not taken yet what it was sent
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		err = errGone
	}
	return fmt.Errorf("send %s: %w", s, err)
}

// sendDescriptors sends any number of them.
func (c *conn) sendDescriptors(ctx context.Context, all []int) error {
	for len(all) > 0 {
		some := all[:min(len(all), maxDescriptors)]
		if err := c.send(ctx, stepDescriptors, nil, some...); err != nil {
			return err
		}
		all = all[len(some):]
	}
	return nil
}

// receive returns the next message. The error is [errGone], that of ctx, or that of the kernel.
func (c *conn) receive(ctx context.Context) (*message, error) {
	end, err := bound(ctx, c.SetReadDeadline)
	if err != nil {
		return nil, err
	}
	defer end()
	n, rights, flags, _, err := c.ReadMsgUnix(c.in, c.rights)
	if errors.Is(err, unix.ECONNRESET) { // it has not read everything; said once, before what it has sent
		n, rights, flags, _, err = c.ReadMsgUnix(c.in, c.rights)
	}
	switch {
	case err == nil && n > 0:
	case err == nil, errors.Is(err, io.EOF):
		return nil, errGone
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, err
	}
	m := &message{step: step(c.in[0]), body: append([]byte(nil), c.in[1:n]...)}
	if m.descriptors, err = parseRights(c.rights[:rights]); err == nil {
		switch {
		case flags&unix.MSG_CTRUNC != 0:
			err = errors.New("not all descriptors have arrived: the limit on open files is too low")
		case flags&unix.MSG_TRUNC != 0 || n > maxPacket:
			err = errors.New("too long")
		case len(m.descriptors) > 0 && m.step != stepDescriptors && m.step != stepEstate:
			err = errors.New("unexpected descriptors")
		}
	}
	if err != nil {
		closeAll(m.descriptors)
		return nil, fmt.Errorf("receive %s: %w", m.step, err)
	}
	return m, nil
}

// parseRights returns the descriptors that have come with a message. The kernel has set close-on-exec.
func parseRights(rights []byte) (all []int, err error) {
	controls, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range controls {
		if controls[i].Header.Level != unix.SOL_SOCKET || controls[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			return all, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Descriptors are on their way from the other process. They are received a message at a time, so that few of them are open here that
// have not found their place yet.
type Descriptors struct {
	conn *conn
	left int   // that are to come, with those of some
	some []int // that have come
}

// Left returns the number of those that Next has not returned.
func (d *Descriptors) Left() int { return d.left }

// Next returns the next one, which is the caller's. There must be one left.
func (d *Descriptors) Next(ctx context.Context) (fd int, err error) {
	if len(d.some) == 0 {
		m, err := d.conn.expect(ctx, stepDescriptors)
		if err != nil {
			return -1, err
		}
		if d.some = m.descriptors; len(d.some) == 0 || len(d.some) > d.left {
			return -1, fmt.Errorf("%d descriptors have come where %d were to come", len(d.some), d.left)
		}
	}
	fd, d.some = d.some[0], d.some[1:]
	d.left--
	return fd, nil
}

// Close closes those that have come and that Next has not returned.
func (d *Descriptors) Close() {
	closeAll(d.some)
	d.some = nil
}

// expect returns the next message, which must be of that step. If the other process has given up, the error is what it says: a
// [*RefusedError] or an [*AbortedError].
func (c *conn) expect(ctx context.Context, want step) (*message, error) {
	m, err := c.receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w", want, err)
	}
	switch m.step {
	case stepRefused, stepAbort: // never what is wanted
	case want:
		return m, nil
	default:
		closeAll(m.descriptors)
		return nil, fmt.Errorf("wait for %s: %s has come", want, m.step)
	}
	var why reason
	if err := m.decode(&why); err != nil {
		return nil, err
	}
	if m.step == stepRefused {
		return nil, &RefusedError{why.Text}
	}
	return nil, &AbortedError{why.Text}
}

// RefusedError says that the successor does not take over, in its own words.
type RefusedError struct{ Reason string }

// Error returns the reason.
func (e *RefusedError) Error() string { return "the new process refuses: " + e.Reason }

// AbortedError says that the predecessor goes on itself, in its own words.
type AbortedError struct{ Reason string }

// Error returns the reason.
func (e *AbortedError) Error() string { return "the old process goes on serving: " + e.Reason }

// hangUp lets the other process send nothing any more, and returns what it has sent before: the kernel does both under one lock.
// So after hangUp it is certain whether a message was sent.
func (c *conn) hangUp() (steps []step) {
	_ = c.CloseRead() // fails only for what is no connected socket
	for {
		m, err := c.receive(context.Background()) // never waits: after what is there comes the end
		if err != nil {
			return steps
		}
		closeAll(m.descriptors)
		steps = append(steps, m.step)
	}
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd) // closed in any case
	}
}

// pause waits for some time, and reports whether ctx is not done.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
