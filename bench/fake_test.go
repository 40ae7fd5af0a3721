package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

// fake is a lock server that can be made faulty. The zero value is correct.
type fake struct {
	lifo     bool                               // the last waiter gets the key first
	generous bool                               // everybody gets every key
	early    bool                               // waits time out at once
	answer   func(n int64, reply string) string // changes the reply to the nth command of all

	ended chan struct{}
	mu    sync.Mutex
	n     int64
	keys  map[string]*fakeKey
	conns map[net.Conn]bool
}

type fakeKey struct {
	holder  net.Conn
	waiting []*fakeWait
}

type fakeWait struct {
	conn    net.Conn
	granted chan struct{}
}

// start serves on a free port and returns the target.
func (f *fake) start(t *testing.T) *Target {
	t.Helper()
	return f.startOn(t, "")
}

// startOn is start for a way: plain TCP if it is empty.
func (f *fake) startOn(t *testing.T, way string) *Target {
	t.Helper()
	f.ended = make(chan struct{})
	f.keys, f.conns = make(map[string]*fakeKey), make(map[net.Conn]bool)
	network, address := "tcp", "127.0.0.1:0"
	if way == overUnix {
		network, address = "unix", filepath.Join(t.TempDir(), "fake.sock")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	target := &Target{
		Name: "fake", Kind: "dreadlock", Dialect: dialects["dreadlock"],
		Network: network, Address: listener.Addr().String(), waiters: f.waiters,
	}
	if way == overTLS {
		ca := prototest.NewCA(t)
		target.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{ca.Server()}})
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			serving.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		close(f.ended)
		listener.Close()
		f.mu.Lock()
		for conn := range f.conns {
			conn.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return target
}

// waiters returns the number of connections that wait for a key.
func (f *fake) waiters(_ context.Context, name string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := f.keys[name]
	if key == nil {
		return 0, errors.New("nobody has requested the key")
	}
	return len(key.waiting), nil
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	var parser proto.Parser
	var cmd proto.Command
	buffer := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		for data := buffer[:n]; len(data) > 0; {
			used, status := parser.Next(data, &cmd)
			data = data[used:]
			if status == proto.Invalid {
				return
			}
			if status == proto.More {
				continue
			}
			reply := f.execute(conn, cmd.Kind, string(cmd.Arg), cmd.Timeout)
			f.mu.Lock()
			f.n++
			if f.answer != nil {
				reply = f.answer(f.n, reply)
			}
			f.mu.Unlock()
			if reply == "close" {
				return
			}
			conn.Write([]byte(reply))
		}
	}
}

// execute returns the reply. A wait blocks; a waiter whose connection ends stays, which does not matter here.
func (f *fake) execute(conn net.Conn, kind proto.Kind, name string, timeout time.Duration) string {
	f.mu.Lock()
	key := f.keys[name]
	if key == nil {
		key = &fakeKey{}
		f.keys[name] = key
	}
	if kind == proto.Unlock {
		defer f.mu.Unlock()
		return f.unlock(key, conn)
	}
	if key.holder == nil || f.generous {
		key.holder = conn
		f.mu.Unlock()
		return proto.Locked.Line()
	}
	w := &fakeWait{conn: conn, granted: make(chan struct{})}
	key.waiting = append(key.waiting, w)
	f.mu.Unlock()
	if f.early {
		timeout = 0
	}
	select {
	case <-w.granted:
		return proto.Locked.Line()
	case <-time.After(timeout):
	case <-f.ended:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if key.holder == conn {
		return proto.Locked.Line()
	}
	key.waiting = slices.DeleteFunc(key.waiting, func(other *fakeWait) bool { return other == w })
	return proto.TimedOut.Line()
}

func (f *fake) unlock(key *fakeKey, conn net.Conn) string {
	switch {
	case f.generous:
		return proto.Unlocked.Line()
	case key.holder == nil:
		return proto.NotLocked.Line()
	case key.holder != conn:
		return proto.NotOwner.Line()
	}
	key.holder = nil
	if len(key.waiting) > 0 {
		next := 0
		if f.lifo {
			next = len(key.waiting) - 1
		}
		w := key.waiting[next]
		key.waiting = slices.Delete(key.waiting, next, next+1)
		key.holder = w.conn
		close(w.granted)
	}
	return proto.Unlocked.Line()
}

// nth changes the reply to one command.
func nth(n int64, change func(reply string) string) func(int64, string) string {
	return func(at int64, reply string) string {
		if at == n {
			return change(reply)
		}
		return reply
	}
}

func always(text string) func(string) string { return func(string) string { return text } }

func twice(reply string) string { return strings.Repeat(reply, 2) }
