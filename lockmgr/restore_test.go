package lockmgr

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// prepare makes owners, waiters and listeners for a new table.
func (m *machine) prepare() {
	m.owners, m.waiters = [modelOwners + 1]Owner{}, [modelWaiters]Waiter{}
	for i := range m.owners {
		m.owners[i].Tag = i
	}
	for i := range m.waiters {
		m.waiters[i].Tag = i
	}
	m.table.Observe(m)
	m.table.OnLeave(func(held time.Duration) { m.left += held })
}

// restore replaces the table by one that is made from what it knows, with owners and waiters of its own, and another delay.
func (m *machine) restore(t *rapid.T, delay time.Duration) {
	type former struct{ ended, until time.Duration }
	formers := map[int]former{}
	var keys []Restored
	m.table.Each(func(h Holding) {
		o := h.Owner.Tag.(int)
		if h.Closed && o != unknown {
			ended, until := m.table.Former(h.Owner)
			formers[o] = former{ended, until}
		}
		k := Restored{Hash: m.hash(h.Key), Key: append([]byte(nil), h.Key...), Owner: &m.owners[o], Since: h.Since, Token: h.Token}
		for w := h.First; w != nil; w = w.Next() {
			i := w.Tag.(int)
			k.Queue = append(k.Queue, RestoredWait{&m.owners[i%modelOwners], &m.waiters[i], w.Since()})
		}
		keys = append(keys, k)
	})
	next, opens := m.table.NextToken(), m.table.Opens()

	m.table, m.grants = NewTable(1), Grants{}
	m.table.SetDelay(delay, nil)
	m.prepare()
	m.table.Advance(m.model.now)
	if m.model.ended[unknown] {
		m.table.RestoreUnknown(&m.owners[unknown], opens)
	}
	if err := m.table.Restore(keys, next); err != nil {
		t.Fatal(err)
	}
	for o, f := range formers {
		if err := m.table.RestoreFormer(&m.owners[o], f.ended, f.until); err != nil {
			t.Fatal(err)
		}
	}
	m.model.delay = delay
	for o := range m.model.ended {
		if o != unknown && len(m.model.held[o]) == 0 { // its last key was taken, and it was not closed to its end
			delete(m.model.ended, o)
		}
	}
	for o := range m.closed {
		m.closed[o] = m.model.ended[o]
	}
}

// TestRestoreErrors has what no table can have known.
func TestRestoreErrors(t *testing.T) {
	const now, token = 10 * time.Second, 100
	key := func(change func(k *Restored)) []Restored {
		k := Restored{Key: []byte("a"), Owner: new(Owner), Since: time.Second, Token: 7}
		k.Queue = []RestoredWait{{new(Owner), new(Waiter), 2 * time.Second}}
		change(&k)
		return []Restored{k}
	}
	ended := new(Owner)
	tables := map[string][]Restored{
		"a key twice":             append(key(func(*Restored) {}), key(func(*Restored) {})...),
		"a grant to come":         key(func(k *Restored) { k.Since = now + 1 }),
		"a grant before the time": key(func(k *Restored) { k.Since = -1 }),
		"no token":                key(func(k *Restored) { k.Token = 0 }),
		"a token to come":         key(func(k *Restored) { k.Token = token }),
		"a wait to come":          key(func(k *Restored) { k.Queue[0].Since = now + 1 }),
		"a wait before the time":  key(func(k *Restored) { k.Queue[0].Since = -1 }),
		"the holder waits":        key(func(k *Restored) { k.Queue[0].Owner = k.Owner }),
		"who has ended waits":     key(func(k *Restored) { k.Queue[0].Owner = ended }),
		"a wait twice":            key(func(k *Restored) { k.Queue = append(k.Queue, k.Queue[0]) }),
		"nobody waits for a key of the unknown owner": key(func(k *Restored) { k.Owner, k.Token, k.Queue = ended, 0, nil }),
		"a token of the unknown owner":                key(func(k *Restored) { k.Owner = ended }),
	}
	for name, keys := range tables {
		tb := NewTable(1)
		tb.Advance(now)
		*ended = Owner{}
		tb.RestoreUnknown(ended, now+time.Second)
		if err := tb.Restore(keys, token); !errors.Is(err, ErrRestore) {
			t.Errorf("%s: %v, want %v", name, err, ErrRestore)
		}
	}
	good := NewTable(1)
	good.Advance(now)
	if err := good.Restore(key(func(*Restored) {}), token); err != nil {
		t.Error(err)
	}
	for name, at := range map[string]struct{ ended, until time.Duration }{
		"an end to come":            {now + 1, now + 2},
		"an end before the time":    {-1, now},
		"a rest that ends too soon": {5, 4},
	} {
		if err := good.RestoreFormer(new(Owner), at.ended, at.until); !errors.Is(err, ErrRestore) {
			t.Errorf("%s: %v, want %v", name, err, ErrRestore)
		}
	}
	waits := Owner{queued: 1}
	if err := good.RestoreFormer(&waits, 1, 2); !errors.Is(err, ErrRestore) {
		t.Errorf("a former owner that waits: %v, want %v", err, ErrRestore)
	}
}
