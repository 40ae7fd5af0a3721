package server

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// wantRelease has an operator release a key.
func (d *daemon) wantRelease(q *api.ReleaseQuery) *api.Release {
	d.tb.Helper()
	r, err := d.server.Release(d.tb.Context(), q)
	if err != nil {
		d.tb.Fatal(err)
	}
	return r
}

// A key that an operator takes goes to the first waiter at once. The former holder learns it when it asks, keeps its connection and
// its other keys, and may stand in line again.
func TestRelease(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			key, other := d.keysOf(0, 1)[0], d.keysOf(loops-1, 2)[1]
			holder, first, second := d.dialOn(loops-1), d.dialOn(0), d.dialOn(loops-1)
			holder.Do("lock "+other+" 0", "l locked")
			holder.Do("lock "+key+" 0", "l locked")
			holder.Do("name builder", d.named())
			for i, c := range []*prototest.Client{first, second} {
				c.Send("lock " + key + " 300000")
				d.awaitWaiters(i + 1)
			}
			r := d.wantRelease(&api.ReleaseQuery{Key: key, Connection: d.idOf(holder), By: "ann"})
			if r.Key != key || r.Holder.Connection != d.idOf(holder) || r.Holder.Name != "builder" || r.Token == 0 ||
				r.Next == nil || r.Next.Connection != d.idOf(first) || r.Waiters != 1 {
				t.Errorf("released: %+v", r)
			}
			first.Expect("l locked")
			holder.Do("fence "+key, "e not owner")
			holder.Do("unlock "+key, "e not owner")
			if c := d.connectionOf(holder.Conn()); c.Held != 1 || !slices.Equal(c.Holds, []string{other}) {
				t.Errorf("the former holder has %d keys: %v", c.Held, c.Holds)
			}
			holder.Send("lock " + key + " 300000")
			d.awaitWaiters(2)
			if r = d.wantRelease(&api.ReleaseQuery{Key: key}); r.Waiters != 1 {
				t.Errorf("released to the second waiter: %+v", r)
			}
			second.Expect("l locked")
			d.wantRelease(&api.ReleaseQuery{Key: key})
			holder.Expect("l locked")
			if r = d.wantRelease(&api.ReleaseQuery{Key: key}); r.Next != nil || r.Waiters != 0 {
				t.Errorf("released to nobody: %+v", r)
			}
			for _, c := range []*prototest.Client{holder, first, second} {
				c.Do("unlock "+key, "e not locked")
			}
			holder.Do("unlock "+other, "u unlocked")
			d.wantLog(4, "key taken from its holder", `"level":"warn"`, `"key":"`+key+`"`)
			d.wantLog(1, "key taken from its holder", `"by":"ann"`, `"name":"builder"`, `"waiters":1`)
			eventually(t, func() error { // the loop of the holder may hear of it later
				if c := d.connectionOf(holder.Conn()); c.Held != 0 {
					return fmt.Errorf("a client without keys has %d", c.Held)
				}
				return nil
			})
		})
	}
}

// A release that names a holder or a grant is for that one alone.
func TestReleaseOfAnother(t *testing.T) {
	d := startDaemon(t, nil)
	a, b := d.dial(), d.dial()
	a.Do("lock k 0", "l locked")
	token := d.wantRelease(&api.ReleaseQuery{Key: "k"}).Token
	b.Do("lock k 0", "l locked")
	for _, q := range []api.ReleaseQuery{
		{Key: "k", Connection: d.idOf(a)}, {Key: "k", Token: token}, {Key: "k", Connection: d.idOf(b), Token: token},
	} {
		if r, err := d.server.Release(t.Context(), &q); !errors.Is(err, api.ErrConflict) {
			t.Errorf("%+v: %+v, %v", q, r, err)
		}
	}
	if r, err := d.server.Release(t.Context(), &api.ReleaseQuery{Key: "nobodys"}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("of a free key: %+v, %v", r, err)
	}
	b.Do("unlock k", "u unlocked")
}

// A drain ends a session from which its last key was taken.
func TestReleaseInDrain(t *testing.T) {
	d := startDaemon(t, nil)
	c := d.dial()
	c.Do("lock k 0", "l locked")
	d.drain(endless)
	d.wantRelease(&api.ReleaseQuery{Key: "k"})
	c.ExpectEnd()
}

// A holder that has been granted a key and is about to be told keeps it until then: the answer to its wait is right.
func TestReleaseOfGrantUnderWay(t *testing.T) {
	s := newSim(1, moveAfter)
	holder, waiters := holderWithWaiters(s, 2)
	key := s.key("0x", 0)
	s.budget = simPart
	l := s.loops[0]
	var early, late *api.Release
	l.turn(func() {
		holder.session.Data([]byte("unlock " + key + "\r\n"))
		early, _ = l.worker.shard.take(&api.ReleaseQuery{Key: key}, s.server.seed.Hash([]byte(key)))
	})
	s.settle()
	l.turn(func() { late, _ = l.worker.shard.take(&api.ReleaseQuery{Key: key}, s.server.seed.Hash([]byte(key))) })
	if early != nil || late == nil || late.Holder.Connection != waiters[0].session.id() {
		t.Errorf("taken before the holder is told: %+v; after that: %+v", early, late)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}
