package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dreadlock/server/api"
)

// firstToken is the token of k000. JavaScript has no number for it: the nearest is one less.
const firstToken = 1<<60 + 1

// fake is a server in memory. It returns copies.
type fake struct {
	mu      sync.Mutex
	status  api.Status
	keys    []api.Key // by name
	conns   []api.Connection
	cycles  []api.Cycle
	kicks   []api.ConnectionID
	kickers []string      // who has asked for them
	events  []api.Event   // by number, from 1 on
	more    chan struct{} // closed with the next event
	by      string        // who has asked for the latest release, or the latest takeover
	over    chan struct{} // closed when the drain is over
	err     error         // of all methods, if set
	stopped bool
}

// newFake returns a server with keys k000 to k029: the first has the longest queue, and the holder of the last has held
// it longest. The holder of k000 and its second waiter have names and owners, the waiter an identity too. There is a deadlock of three connections,
// of which the second has a name and the third an identity.
func newFake() *fake {
	now := time.Now()
	f := &fake{over: make(chan struct{}), more: make(chan struct{}), status: api.Status{
		Version: "v1.2.3", Host: "lock7", PID: 4711, Address: "127.0.0.1:6001", Started: now.Add(-3 * time.Hour), UptimeSeconds: 3 * 3600,
		Loops: 2, MaxConnections: 1000, Deadlocks: 1, RestingKeys: 3, LockDelaySeconds: 7.5, OldestHoldSeconds: 300, OldestWaitSeconds: 42.5,
		Listen:      []string{"tcp://127.0.0.1:6001", "unix:///run/dreadlock/lock.sock"},
		MemoryBytes: 3 << 20, MemoryLimitBytes: 1 << 30,
		CertificateExpires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Counters: api.Counters{
			Commands: []api.CommandCount{
				{Kind: "lock", Outcome: "locked", Count: 5000},
				{Kind: "lock", Outcome: "timeout"},
				{Kind: "unlock", Outcome: "unlocked", Count: 4000},
				{Kind: "a_new_one", Outcome: "done", Count: 7},
			},
			Accepted:     77,
			Refused:      map[string]uint64{api.RefusedTLSHandshake: 5},
			AcceptErrors: map[string]uint64{"EMFILE": 6, "ENONET": 1},
			Grants:       600,
			Timeouts:     50,
			Disconnects:  map[string]uint64{api.Broken: 3, api.Kicked: 1},
			LimitHits:    map[string]uint64{api.LimitOutput: 2},
			Moves:        9, Messages: 800, WakeUps: 700, DeadlocksFound: 4, DeadlocksBroken: 1, TakeoversFailed: 3,
			Waits: api.Histogram{Bounds: []float64{0.001, 0.1, 10}, Counts: []uint64{5, 0, 7, 2}, Sum: 90.5},
			WaitsByOutcome: map[string]api.Histogram{
				api.WaitLocked: {Bounds: []float64{0.001, 0.1, 10}, Counts: []uint64{5, 0, 6, 2}, Sum: 80.5},
				api.WaitLost:   {Bounds: []float64{0.001, 0.1, 10}, Counts: []uint64{0, 3, 0, 0}, Sum: 0.25},
			},
			Holds: api.Histogram{Bounds: []float64{1, 60}, Counts: []uint64{8, 4, 1}, Sum: 900},
		},
	}}
	next := api.ConnectionID(1)
	connect := func(state string) *api.Connection {
		f.conns = append(f.conns, api.Connection{
			Peer:  api.Peer{Connection: next, Address: fmt.Sprintf("10.0.0.%d:%d", next%7, 40000+next)},
			Since: now.Add(-time.Hour), ConnectedSeconds: 3600, Loop: int(next % 2), State: state,
		})
		next++
		return &f.conns[len(f.conns)-1]
	}
	hold := func(key string, age float64, waiters int) {
		holder := connect(api.Idle)
		holder.Held, holder.Holds = 1, []string{key}
		if key == "k000" {
			holder.Name, holder.Owner = "ann@build7", "deploy"
		}
		k := api.Key{
			Key: key, Holder: holder.Peer, Token: firstToken + uint64(len(f.keys)),
			Since: now.Add(-seconds(age)), HeldSeconds: age, Waiters: waiters,
		}
		for i := range waiters {
			waiter := connect(api.Waiting)
			waiter.WaitsFor, waiter.WaitedSeconds = key, age/float64(i+2)
			if key == "k000" && i == 1 {
				waiter.Name, waiter.Owner, waiter.Identity = "bob@build8", "Release7", "build8.example"
			}
			k.Queue = append(k.Queue, api.Waiter{
				Peer: waiter.Peer, TimeoutSeconds: 7200,
				Since: now.Add(-seconds(waiter.WaitedSeconds)), WaitedSeconds: waiter.WaitedSeconds,
			})
		}
		if waiters > 0 {
			k.LongestWaitSeconds = k.Queue[0].WaitedSeconds
		}
		f.keys = append(f.keys, k)
	}
	for i := range 30 {
		hold(fmt.Sprintf("k%03d", i), 10*float64(i+1), max(12-i, 0))
	}
	f.addDeadlock("alpha", "beta", "gamma")
	for _, k := range f.keys {
		f.status.Waiters += k.Waiters
	}
	f.status.HeldKeys, f.status.Connections = len(f.keys), len(f.conns)
	return f
}

// addDeadlock adds connections that wait for each other: each holds a key and waits for the key of the next one.
func (f *fake) addDeadlock(keys ...string) {
	now := time.Now()
	first := api.ConnectionID(len(f.conns) + 1)
	cycle := api.Cycle{ID: uint64(len(f.cycles) + 1), Found: now}
	for i, key := range keys {
		next := (i + 1) % len(keys)
		peer := api.Peer{Connection: first + api.ConnectionID(i), Address: fmt.Sprintf("10.1.0.%d:5000", i)}
		if i == 1 {
			peer.Name = "nightly"
		}
		if i == 2 {
			peer.Identity = "gamma.example"
		}
		f.conns = append(f.conns, api.Connection{
			Peer: peer, Since: now, State: api.Waiting, Held: 1, Holds: []string{key}, WaitsFor: keys[next], WaitedSeconds: 2,
		})
		cycle.Waits = append(cycle.Waits, api.Wait{
			Peer: peer, WaitsFor: keys[next], Since: now, WaitedSeconds: 2, HeldBy: first + api.ConnectionID(next),
		})
	}
	for i, key := range keys {
		before := (i + len(keys) - 1) % len(keys)
		f.keys = append(f.keys, api.Key{
			Key: key, Holder: cycle.Waits[i].Peer, Token: firstToken + uint64(len(f.keys)),
			Since: now, HeldSeconds: 3, Waiters: 1, LongestWaitSeconds: 2,
			Queue: []api.Waiter{{Peer: cycle.Waits[before].Peer, Since: now, WaitedSeconds: 2, TimeoutSeconds: 60}},
		})
	}
	slices.SortFunc(f.keys, func(a, b api.Key) int { return cmp.Compare(a.Key, b.Key) })
	f.cycles = append(f.cycles, cycle)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// change lets a test change the server while others ask it.
func (f *fake) change(how func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
}

// kicked returns the connections that were kicked.
func (f *fake) kicked() []api.ConnectionID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.kicks)
}

func (f *fake) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err == nil && !f.stopped && f.status.Drain == nil
}

// Drain takes 30 s unless the timeout says otherwise.
func (f *fake) Drain(_ context.Context, timeout *time.Duration) (*api.Drain, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	within := 30 * time.Second
	if timeout != nil {
		within = *timeout
	}
	if within < 0 {
		return nil, fmt.Errorf("%w: a drain of %s", api.ErrQuery, within)
	}
	if f.status.Drain == nil {
		now := time.Now()
		f.status.Drain = &api.Drain{
			Since: now, Until: now.Add(within), SecondsLeft: within.Seconds(), HeldKeys: f.status.HeldKeys, Waiters: f.status.Waiters,
		}
	}
	return new(*f.status.Drain), nil
}

func (f *fake) AwaitDrain(ctx context.Context) *api.Drain {
	select {
	case <-f.over:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return new(*f.status.Drain)
}

// TakeOver is done at once, by a process whose number is one more.
func (f *fake) TakeOver(ctx context.Context, by string) (*api.Takeover, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: nobody waits for it", api.ErrTakeover)
	}
	t := &api.Takeover{
		At: time.Now(), Count: 1, FromPID: f.status.PID, FromVersion: f.status.Version, PID: f.status.PID + 1, Version: "v1.2.4",
		PauseSeconds: 0.0125, Connections: f.status.Connections, HeldKeys: f.status.HeldKeys, Waiters: f.status.Waiters, Closed: 2,
	}
	if before := f.status.Takeover; before != nil {
		t.Count += before.Count
	}
	f.by, f.status.PID, f.status.Version, f.status.Takeover = by, t.PID, t.Version, t
	return new(*t), nil
}

// endDrain ends the drain, in which keys are lost.
func (f *fake) endDrain(lost int) {
	f.change(func(f *fake) {
		f.status.Drain = new(*f.status.Drain)
		f.status.Drain.HeldKeys, f.status.Drain.Over = lost, true
	})
	close(f.over)
}

// Status lets one second pass, with 100 commands in it.
func (f *fake) Status(context.Context) (*api.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.status.UptimeSeconds++
	f.status.Counters.Commands[0].Count += 100
	status := f.status
	status.Counters.Commands = slices.Clone(status.Counters.Commands)
	return &status, nil
}

func (f *fake) Keys(_ context.Context, q api.KeyQuery) (*api.KeyPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	keys := []api.Key{}
	ages := &api.Histogram{Bounds: api.AgeBounds, Counts: make([]uint64, len(api.AgeBounds)+1)}
	for _, key := range f.keys {
		if key.Queue = nil; strings.HasPrefix(key.Key, q.Prefix) && strings.Contains(key.Key, q.Contains) && isClient(key.Holder, q.Client) {
			keys = append(keys, key)
			i, _ := slices.BinarySearch(api.AgeBounds, key.HeldSeconds)
			ages.Counts[i]++
		}
	}
	switch q.Order {
	case "", api.ByKey:
	case api.ByWaiters:
		slices.SortStableFunc(keys, func(a, b api.Key) int { return cmp.Compare(b.Waiters, a.Waiters) })
	case api.ByAge:
		slices.SortStableFunc(keys, func(a, b api.Key) int { return cmp.Compare(b.HeldSeconds, a.HeldSeconds) })
	case api.ByWait:
		slices.SortStableFunc(keys, func(a, b api.Key) int { return cmp.Compare(b.LongestWaitSeconds, a.LongestWaitSeconds) })
	default:
		return nil, fmt.Errorf("%w: unknown order %q", api.ErrQuery, q.Order)
	}
	page, next, err := cut(keys, q.Limit, q.Cursor)
	return &api.KeyPage{Keys: page, Matching: len(keys), Ages: ages, Next: next}, err
}

func isClient(p api.Peer, text string) bool {
	return strings.Contains(strings.Join([]string{p.Name, p.Address, p.Identity, p.Owner}, "\n"), text)
}

// cut returns a page of all. The cursor is the number of entries before the page.
func cut[T any](all []T, limit int, cursor string) (page []T, next string, err error) {
	from := 0
	if cursor != "" {
		if from, err = strconv.Atoi(cursor); err != nil || from > len(all) {
			return nil, "", fmt.Errorf("%w: no such cursor", api.ErrQuery)
		}
	}
	to := min(from+limit, len(all))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next, nil
}

func (f *fake) Key(_ context.Context, key string, queue int) (*api.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if queue < 0 || queue > api.MaxLimit {
		return nil, fmt.Errorf("%w: a queue of %d", api.ErrQuery, queue)
	}
	for _, k := range f.keys {
		if k.Key == key {
			k.Queue = k.Queue[:min(queue, len(k.Queue))]
			return &k, nil
		}
	}
	return nil, fmt.Errorf("key %s: %w", key, api.ErrNotFound)
}

func (f *fake) Connections(_ context.Context, q api.ConnectionQuery) (*api.ConnectionPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	conns := []api.Connection{}
	for _, c := range f.conns {
		if strings.HasPrefix(c.Address, q.Address) && isClient(c.Peer, q.Client) && (!q.Holding || c.Held > 0) && (!q.Waiting || c.WaitsFor != "") {
			conns = append(conns, c)
		}
	}
	switch q.Order {
	case "", api.ByConnection:
	case api.ByHeld:
		slices.SortStableFunc(conns, func(a, b api.Connection) int { return cmp.Compare(b.Held, a.Held) })
	case api.ByWaited:
		slices.SortStableFunc(conns, func(a, b api.Connection) int { return cmp.Compare(b.WaitedSeconds, a.WaitedSeconds) })
	default:
		return nil, fmt.Errorf("%w: unknown order %q", api.ErrQuery, q.Order)
	}
	page, next, err := cut(conns, q.Limit, q.Cursor)
	return &api.ConnectionPage{Connections: page, Matching: len(conns), Next: next}, err
}

func (f *fake) Connection(_ context.Context, id api.ConnectionID) (*api.Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	for _, c := range f.conns {
		if c.Connection == id {
			return &c, nil
		}
	}
	return nil, fmt.Errorf("connection %d: %w", id, api.ErrNotFound)
}

func (f *fake) Deadlocks(context.Context) (*api.Deadlocks, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &api.Deadlocks{
		Cycles: slices.Clone(f.cycles), Found: f.status.Counters.DeadlocksFound, Broken: f.status.Counters.DeadlocksBroken,
	}, f.err
}

// Release passes a key on to its first waiter.
func (f *fake) Release(_ context.Context, q *api.ReleaseQuery) (*api.Release, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	i := slices.IndexFunc(f.keys, func(k api.Key) bool { return k.Key == q.Key })
	if i < 0 {
		return nil, fmt.Errorf("key %s: %w", q.Key, api.ErrNotFound)
	}
	k := &f.keys[i]
	if q.Connection != 0 && q.Connection != k.Holder.Connection || q.Token != 0 && q.Token != k.Token {
		return nil, fmt.Errorf("key %s: %w", q.Key, api.ErrConflict)
	}
	f.by = q.By
	r := &api.Release{Key: k.Key, Holder: k.Holder, Token: k.Token, HeldSeconds: k.HeldSeconds}
	if k.Waiters == 0 {
		f.keys = slices.Delete(f.keys, i, i+1)
		return r, nil
	}
	k.Holder, k.Token = k.Queue[0].Peer, k.Token+1000
	k.Queue = k.Queue[1:]
	k.Waiters = len(k.Queue)
	r.Next, r.Waiters = new(k.Holder), k.Waiters
	return r, nil
}

// Kick removes a connection and the keys that it holds, even those that others wait for.
func (f *fake) Kick(_ context.Context, id api.ConnectionID, by string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	i := slices.IndexFunc(f.conns, func(c api.Connection) bool { return c.Connection == id })
	if i < 0 {
		return fmt.Errorf("connection %d: %w", id, api.ErrNotFound)
	}
	f.conns = slices.Delete(f.conns, i, i+1)
	f.keys = slices.DeleteFunc(f.keys, func(k api.Key) bool { return k.Holder.Connection == id })
	f.kicks = append(f.kicks, id)
	f.kickers = append(f.kickers, by)
	return nil
}
