package prototest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// StartIdleProxy starts a proxy to the daemon at target that closes connections on which it has carried no byte, in either
// direction, for the time idle, as load balancers do: the probes of TCP are no bytes to it. It returns its address, and ends with
// the test.
func StartIdleProxy(tb testing.TB, target string, idle time.Duration) (address string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	keep := func(conn net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
	}
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			keep(near)
			far, err := net.DialTimeout("tcp", target, Patience)
			if err != nil {
				_ = near.Close()
				continue
			}
			keep(far)
			closing := time.AfterFunc(idle, func() {
				_ = near.Close()
				_ = far.Close()
			})
			all.Go(func() { carry(near, far, closing, idle) })
			all.Go(func() { carry(far, near, closing, idle) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// carry brings bytes from one connection to the other until one of them ends, and puts off the closing with each.
func carry(from, to net.Conn, closing *time.Timer, idle time.Duration) {
	defer to.Close()   //nolint:errcheck // the connection has ended
	defer from.Close() //nolint:errcheck // likewise
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		closing.Reset(idle)
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
