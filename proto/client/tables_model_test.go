package client

import (
	"cmp"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dreadlock/server/fleet/fleettest"
)

// place is where a server listens at times, in the model.
type place struct {
	address string
	space   uint64 // 0 if it does not listen
	stop    func()
}

// world is a client with several places, and what is true of them.
type world struct {
	t      *testing.T
	client *Client
	places []*place
	table  uint64          // in which the client has locked last; 0 before that
	gone   map[uint64]bool // those before it
	held   map[*Lock]*place
	keys   int
}

// TestTablesModel starts and ends servers at three places, each with a lock table of its own or that of one of two fleets, and locks
// keys. A lock is told only if all servers that are there have its table, which is not one that the client has seen replaced, and
// all locks that are held are in it.
func TestTablesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: t, gone: make(map[uint64]bool), held: make(map[*Lock]*place)}
		list := ""
		for range 3 {
			p := &place{}
			p.address, p.stop = startServer(t, nil)
			p.stop()
			w.places = append(w.places, p)
			list += "," + p.address
		}
		w.client = New(list[1:], Options{MaxIdle: -1})
		defer func() {
			for l := range w.held {
				_ = l.Unlock(patient(t))
			}
			for _, p := range w.places {
				p.stop()
			}
		}()
		next := uint64(100)
		fleets := map[uint64]*fleettest.Fleet{1: newFleet(1), 2: newFleet(2)}
		rt.Repeat(map[string]func(*rapid.T){
			"start": func(rt *rapid.T) {
				p := rapid.SampledFrom(w.places).Draw(rt, "place")
				if p.space != 0 {
					rt.Skip("there is one")
				}
				space := rapid.SampledFrom([]uint64{1, 1, 1, 2, next}).Draw(rt, "space")
				next++
				p.space = space
				_, p.stop = startServer(t, atOf(p.address, cmp.Or(fleets[space], newFleet(space))))
			},
			"stop": func(rt *rapid.T) {
				p := rapid.SampledFrom(w.places).Draw(rt, "place")
				p.stop()
				p.space = 0
				for l, at := range w.held {
					if at == p {
						mustEnd(t, "the loss", l.Lost())
						delete(w.held, l)
					}
				}
			},
			"lock":   w.lock,
			"lock 2": w.lock,
			"unlock": func(rt *rapid.T) {
				for l := range w.held {
					mustUnlock(t, l)
					delete(w.held, l)
					return
				}
				rt.Skip("nothing is held")
			},
		})
	})
}

// lock tries to lock a key that nobody has.
func (w *world) lock(rt *rapid.T) {
	w.client.tables.settle(endpoint{}, time.Time{}) // as after a while: all are asked
	spaces := make(map[uint64]bool)
	var space uint64
	for _, p := range w.places {
		if p.space != 0 {
			space = p.space
			spaces[space] = true
		}
	}
	w.keys++
	l, err := w.client.TryLock(patient(w.t), fmt.Sprintf("k%d", w.keys))
	var tables *TablesError
	switch {
	case len(spaces) == 0:
		if !errors.Is(err, ErrUnreachable) {
			rt.Fatalf("nobody is there: %v", err)
		}
		return
	case len(spaces) > 1:
		if !errors.As(err, &tables) || tables.One == tables.Other {
			rt.Fatalf("there are two lock tables: %v", err)
		}
		return
	case w.gone[space]:
		if !errors.As(err, &tables) || tables.One != tables.Other {
			rt.Fatalf("the lock table was replaced: %v", err)
		}
		return
	case err != nil:
		rt.Fatalf("%v: there is one lock table", err)
	}
	if w.table != 0 && w.table != space {
		w.gone[w.table] = true
	}
	w.table = space
	for _, p := range w.places {
		if p.address == l.Server() {
			w.held[l] = p
		}
	}
	for other, at := range w.held {
		if at.space != space || isClosed(other.Lost()) {
			rt.Fatalf("locks are held in the tables %d and %d", at.space, space)
		}
	}
}
