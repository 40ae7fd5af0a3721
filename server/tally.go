package server

import (
	"net/netip"
	"sync"
)

// tally counts connections by the address of their client, if there is a limit for each address. It is safe from any
// goroutine: the one mutex on the way of a client beside the reactor's is held for an access to a map.
type tally struct {
	limit int // for one address; 0 for none

	mu    sync.Mutex
	count map[netip.Addr]int // never 0
}

func newTally(limit int) *tally { return &tally{limit: limit, count: make(map[netip.Addr]int)} }

// counts reports whether there is a limit for the address. There is none for clients on this machine.
func (t *tally) counts(addr netip.Addr) bool {
	return t.limit > 0 && addr.IsValid() && !addr.IsLoopback()
}

// add counts a connection in, unless there are too many from its address.
func (t *tally) add(addr netip.Addr) bool {
	if !t.counts(addr) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count[addr] >= t.limit {
		return false
	}
	t.count[addr]++
	return true
}

// enter counts a connection in, however many there are: it was let in by the predecessor of the server.
func (t *tally) enter(addr netip.Addr) {
	if !t.counts(addr) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count[addr]++
}

// remove counts a connection out that add or enter has counted in.
func (t *tally) remove(addr netip.Addr) {
	if !t.counts(addr) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count[addr]--; t.count[addr] == 0 {
		delete(t.count, addr)
	}
}
