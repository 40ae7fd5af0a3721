package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	epollEvents = 256
	epollBuffer = 64 << 10
)

// ServeEpollEcho runs an echo server on plain system calls until the input ends. Each loop is a thread with a listening
// socket and an epoll instance of its own. It does only what an echo server must. In particular its sockets block, so a
// client that does not read its echo blocks a thread.
func ServeEpollEcho(input io.Reader, address string, loops int) error {
	raiseProcs(loops)
	failed := make(chan error, loops+1)
	for range loops {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}); e != nil {
				return e
			}
			return err
		}}
		listener, err := config.Listen(context.Background(), "tcp", address)
		if err != nil {
			return err
		}
		file, err := listener.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		_ = listener.Close() // the file is a duplicate
		go func() { failed <- epollLoop(file) }()
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		failed <- nil
	}()
	return <-failed
}

// epollLoop serves one listening socket forever.
func epollLoop(listener *os.File) error {
	defer listener.Close() //nolint:errcheck // until then it must not be collected, which would close it
	listen := int(listener.Fd())
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	watch := func(fd int) error {
		return unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := watch(listen); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	events, buffer := make([]unix.EpollEvent, epollEvents), make([]byte, epollBuffer)
	for {
		n, err := unix.EpollWait(poll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range events[:n] {
			fd := int(events[i].Fd)
			if fd != listen {
				echoOnce(fd, buffer)
				continue
			}
			fd, _, err := unix.Accept4(listen, unix.SOCK_CLOEXEC)
			if err != nil {
				return fmt.Errorf("accept4: %w", err)
			}
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			if err := watch(fd); err != nil {
				return os.NewSyscallError("epoll_ctl", err)
			}
		}
	}
}

// echoOnce sends back what can be read, or closes the connection at its end.
func echoOnce(fd int, buffer []byte) {
	n, err := unix.Read(fd, buffer)
	if n > 0 && err == nil {
		_, err = unix.Write(fd, buffer[:n]) // a blocking socket takes all of it
	}
	if n == 0 || err != nil {
		_ = unix.Close(fd)
	}
}
