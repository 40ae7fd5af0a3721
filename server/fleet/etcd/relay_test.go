package etcd

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// relay stands between a store and a member of etcd, and can lose what the member says.
type relay struct {
	url    string
	target string

	mu    sync.Mutex
	mute  bool
	conns map[net.Conn]bool
}

// newRelay returns a relay to the member with that URL.
func newRelay(tb testing.TB, url string) *relay {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{url: "http://" + ln.Addr().String(), target: strings.TrimPrefix(url, "http://"), conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { r.carry(near) })
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		r.cut()
		serving.Wait()
	})
	return r
}

func (r *relay) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer far.Close()
	r.mu.Lock()
	r.conns[near], r.conns[far] = true, true
	r.mu.Unlock()
	var there sync.WaitGroup
	there.Go(func() {
		io.Copy(far, near)
		far.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := far.Read(buf)
		if err != nil {
			break
		}
		r.mu.Lock()
		mute := r.mute
		r.mu.Unlock()
		if !mute {
			near.Write(buf[:n])
		}
	}
	near.Close()
	there.Wait()
	r.mu.Lock()
	delete(r.conns, near)
	delete(r.conns, far)
	r.mu.Unlock()
}

// silence loses all that the member says, until hear is called: what it is asked it does all the same.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = true
}

// hear ends a silence. The connections of before are of no use any more.
func (r *relay) hear() {
	r.mu.Lock()
	r.mute = false
	r.mu.Unlock()
	r.cut()
}

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		conn.Close()
	}
}
