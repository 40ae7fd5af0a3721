package faults

import (
	"context"
	"io"
	"net"
	"sync"
)

// Relay is the client process of the cases that stop and kill one: it accepts connections at the Unix socket at path, makes one to
// the daemon for each, and carries the bytes. So whatever happens to this process happens to connections of it, and the commands
// are recorded elsewhere. It ends when the input does.
func Relay(input io.Reader, path, daemon string) error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		_ = listener.Close()
	}()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil // the listener was closed
		}
		running.Go(func() { join(conn, daemon) })
	}
}

// join carries bytes between a connection and a new one to the daemon, until one of them ends.
func join(conn net.Conn, daemon string) {
	defer conn.Close() //nolint:errcheck // its end is all that matters
	var dialer net.Dialer
	far, err := dialer.DialContext(context.Background(), "tcp", daemon)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(far, conn)
		_ = far.Close()
	}()
	_, _ = io.Copy(conn, far)
}
