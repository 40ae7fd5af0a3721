package server

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dreadlock/lockmgr"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// allKeys returns the keys of all pages of a query, and checks what must be true of each page.
func (d *daemon) allKeys(q api.KeyQuery, matching int) (all []api.Key) {
	d.tb.Helper()
	for {
		page, err := patiently(func() (*api.KeyPage, error) { return d.server.Keys(context.Background(), q) })
		if err != nil {
			d.tb.Fatalf("%+v: %v", q, err)
		}
		all = append(all, page.Keys...)
		if page.Matching != matching {
			d.tb.Fatalf("%+v: %d match, want %d", q, page.Matching, matching)
		}
		if page.Next == "" {
			return all
		}
		if len(page.Keys) != q.Limit {
			d.tb.Fatalf("%+v: a page of %d, and it is not the last", q, len(page.Keys))
		}
		q.Cursor = page.Next
	}
}

// key returns a key, nil if nobody holds it.
func (d *daemon) key(key string) *api.Key {
	d.tb.Helper()
	k, err := patiently(func() (*api.Key, error) { return d.server.Key(d.tb.Context(), key, api.MaxLimit) })
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	if err != nil {
		d.tb.Fatal(err)
	}
	return k
}

func namesOf(keys []api.Key) (names []string) {
	for _, k := range keys {
		names = append(names, k.Key)
	}
	return names
}

// On a quiet server the pages of every order and length have every key once, in that order.
func TestKeys(t *testing.T) {
	for _, loops := range []int{1, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			ctx := context.Background()
			if page, err := d.server.Keys(ctx, api.KeyQuery{}); err != nil || page.Keys == nil || len(page.Keys) > 0 || page.Next != "" {
				t.Errorf("no key is held: %+v, %v", page, err)
			}
			const n = 120
			holders := []*prototest.Client{d.dial(), d.dial(), d.dial()}
			holders[0].Send("name ann@build7:4711")
			if reply, err := holders[0].ReadReply(); err != nil || !strings.HasPrefix(reply, "n named") {
				t.Fatal(reply, err)
			}
			holders[2].Do("owner deploy", "o owned")
			var keys []string // in the order in which they were locked
			var expected []string
			for i := range n {
				key := string("ab"[i%2]) + strconv.Itoa((i*37)%n)
				holders[i%3].Send("lock " + key + " 0")
				holders[i%3].Expect("l locked")
				keys, expected = append(keys, key), append(expected, key)
			}
			waiters := map[string]int{keys[70]: 3, keys[3]: 1, keys[100]: 2, keys[50]: 1, keys[4]: 3}
			waiting := []string{keys[70], keys[3], keys[100], keys[50], keys[4]} // the longest wait first
			sum := 0
			for _, key := range waiting {
				for range waiters[key] {
					d.dial().Send("lock " + key + " 300000")
					sum++
					d.awaitWaiters(sum)
				}
			}
			byName := slices.Sorted(slices.Values(expected))
			wants := map[api.KeyOrder][]string{
				api.ByKey: byName,
				api.ByWaiters: slices.SortedStableFunc(slices.Values(byName), func(a, b string) int {
					return cmp.Compare(waiters[b], waiters[a])
				}),
				api.ByWait: slices.SortedStableFunc(slices.Values(byName), func(a, b string) int {
					place := func(key string) uint { return uint(slices.Index(waiting, key)) } // none is last
					return cmp.Compare(place(a), place(b))
				}),
			}
			if loops == 1 { // the clocks of loops may differ by the length of a turn
				wants[api.ByAge] = keys
			} else {
				all := d.allKeys(api.KeyQuery{Limit: n}, n)
				slices.SortStableFunc(all, func(a, b api.Key) int { return a.Since.Compare(b.Since) })
				wants[api.ByAge] = namesOf(all)
			}
			wants[""] = byName
			for order, want := range wants {
				for _, limit := range []int{1, 7, n / 2, n - 1, n, n + 1, api.MaxLimit} {
					if limit == 1 && order != api.ByKey {
						continue
					}
					got := namesOf(d.allKeys(api.KeyQuery{Order: order, Limit: limit}, n))
					if !slices.Equal(got, want) {
						t.Fatalf("order %q, limit %d:\n got %v\nwant %v", order, limit, got, want)
					}
				}
				want = slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.HasPrefix(key, "b1") })
				got := namesOf(d.allKeys(api.KeyQuery{Order: order, Limit: 5, Prefix: "b1"}, len(want)))
				if !slices.Equal(got, want) {
					t.Errorf("order %q, prefix b1:\n got %v\nwant %v", order, got, want)
				}
			}
			ids := []api.ConnectionID{d.idOf(holders[0]), d.idOf(holders[1]), d.idOf(holders[2])}
			for _, q := range []struct {
				api.KeyQuery
				want func(i int) bool // of the keys
			}{
				{api.KeyQuery{Contains: "11"}, func(i int) bool { return strings.Contains(keys[i], "11") }},
				{api.KeyQuery{Contains: "A"}, func(int) bool { return false }},
				{api.KeyQuery{Prefix: "b", Contains: "7"}, func(i int) bool { return keys[i][0] == 'b' && strings.Contains(keys[i], "7") }},
				{api.KeyQuery{Client: holders[1].Conn().LocalAddr().String()}, func(i int) bool { return i%3 == 1 }},
				{api.KeyQuery{Client: "127.0.0.2"}, func(int) bool { return false }},
				{api.KeyQuery{Client: "build7"}, func(i int) bool { return i%3 == 0 }},
				{api.KeyQuery{Client: "eplo", Contains: "5"}, func(i int) bool { return i%3 == 2 && strings.Contains(keys[i], "5") }},
			} {
				var want []string
				for i, key := range keys {
					if q.want(i) {
						want = append(want, key)
					}
				}
				slices.Sort(want)
				q.Limit = 5
				if got := namesOf(d.allKeys(q.KeyQuery, len(want))); !slices.Equal(got, want) {
					t.Errorf("%+v:\n got %v\nwant %v", q.KeyQuery, got, want)
				}
			}
			page, err := d.server.Keys(ctx, api.KeyQuery{})
			if err != nil || len(page.Keys) != api.DefaultLimit || page.Next == "" {
				t.Errorf("a page of %d, want %d: %v", len(page.Keys), api.DefaultLimit, err)
			}
			if held := uint64(0); !slices.Equal(page.Ages.Bounds, api.AgeBounds) || page.Ages.Sum <= 0 {
				t.Errorf("ages: %+v", page.Ages)
			} else {
				for _, n := range page.Ages.Counts {
					held += n
				}
				if held != n || page.Ages.Counts[6] != 0 {
					t.Errorf("the ages of %d keys, want %d, none of a day: %+v", held, n, page.Ages)
				}
			}
			for _, k := range d.allKeys(api.KeyQuery{Limit: n}, n) {
				i := slices.Index(keys, k.Key)
				want := api.Peer{Connection: ids[i%3], Address: holders[i%3].Conn().LocalAddr().String(),
					Name: []string{"ann@build7:4711", "", ""}[i%3], Owner: []string{"", "", "deploy"}[i%3]}
				if k.Holder != want || k.Waiters != waiters[k.Key] || (k.LongestWaitSeconds > 0) != (k.Waiters > 0) || k.Queue != nil {
					t.Errorf("%+v: want it held by %+v, with %d waiters", k, want, waiters[k.Key])
				}
			}
		})
	}
}

func TestKeysBadQuery(t *testing.T) {
	d := startDaemon(t, nil)
	ctx := context.Background()
	c := d.dial()
	for i := range 3 {
		c.Do("lock k"+strconv.Itoa(i)+" 0", "l locked")
	}
	page, err := d.server.Keys(ctx, api.KeyQuery{Limit: 1})
	if err != nil || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, q := range []api.KeyQuery{
		{Order: "size"}, {Limit: -1}, {Limit: api.MaxLimit + 1}, {Cursor: "!"}, {Cursor: "AAAA"}, {Cursor: page.Next[1:]},
		{Cursor: page.Next, Order: api.ByAge}, {Cursor: cursor("key", rank{1, "a b"})}, {Cursor: "a2V5IHggeQ"},
	} {
		if page, err := d.server.Keys(ctx, q); !errors.Is(err, api.ErrQuery) || page != nil {
			t.Errorf("%+v: %+v, %v, want ErrQuery", q, page, err)
		}
	}
	for _, q := range []api.ConnectionQuery{
		{Order: "age"}, {Limit: -1}, {Limit: api.MaxLimit + 1}, {Cursor: "!"}, {Cursor: page.Next},
	} {
		if page, err := d.server.Connections(ctx, q); !errors.Is(err, api.ErrQuery) || page != nil {
			t.Errorf("%+v: %+v, %v, want ErrQuery", q, page, err)
		}
	}
}

func TestAges(t *testing.T) {
	ages := newAges()
	for _, seconds := range []float64{0, 0.5, 1, 1.5, 60, 61, 86400, 86401, 1e9} {
		addAge(&ages, seconds)
	}
	if want := []uint64{3, 1, 1, 1, 0, 1, 2}; !slices.Equal(ages.Counts, want) || ages.Sum != 0.5+1+1.5+60+61+86400+86401+1e9 {
		t.Errorf("got %+v, want %v", ages, want)
	}
}

// A turn of a search in long keys is as short as any other.
func TestSearchInLongKeys(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 1 })
	const keys, length = 500, 8000
	d.fill(strings.Repeat("k", length), keys)
	type walk struct {
		cursor            uint64
		turns, seen, most int
	}
	walks, missing := eachShard(t.Context(), d.server, d.server.shards, func(sh *shard, w *walk) (more bool) {
		n := 0
		w.cursor = sh.walkKeys(w.cursor, &api.KeyQuery{Contains: "k"}, func(lockmgr.Holding) { n++ })
		w.turns++
		w.seen += n
		w.most = max(w.most, n)
		return w.cursor != 0
	})
	if missing > 0 || walks[0].seen != keys || walks[0].most > bytesPerStep/length+4*bucketsPerLook {
		t.Errorf("%+v, %d loops are missing, want %d keys, in turns of about %d", walks[0], missing, keys, bytesPerStep/length)
	}
}

// A key shows its queue, first come first, as far as is asked for.
func TestKey(t *testing.T) {
	d := startDaemon(t, nil)
	ctx := context.Background()
	for loop := range 2 {
		key := d.keysOf(loop, 1)[0]
		if _, err := d.server.Key(ctx, key, 0); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("nobody holds it: %v, want ErrNotFound", err)
		}
		holder := d.dial()
		holder.Do("lock "+key+" 0", "l locked")
		var queue []*prototest.Client
		for i := range 5 {
			c := d.dial()
			c.Send(fmt.Sprintf("lock %s %d", key, 100000+1000*i))
			d.awaitWaiters(i + 1)
			queue = append(queue, c)
		}
		for _, limit := range []int{0, 1, 3, 5, 6} {
			k, err := d.server.Key(ctx, key, limit)
			if err != nil {
				t.Fatal(err)
			}
			want := min(limit, 5)
			if k.Key != key || k.Holder.Address != holder.Conn().LocalAddr().String() || k.Waiters != 5 || len(k.Queue) != want {
				t.Errorf("limit %d: got %+v, want %d of the queue", limit, k, want)
			}
			for i, w := range k.Queue {
				if w.Address != queue[i].Conn().LocalAddr().String() || w.TimeoutSeconds != float64(100+i) || w.WaitedSeconds <= 0 {
					t.Errorf("limit %d, place %d: %+v", limit, i, w)
				}
			}
		}
		for _, limit := range []int{-1, api.MaxLimit + 1} {
			if _, err := d.server.Key(ctx, key, limit); !errors.Is(err, api.ErrQuery) {
				t.Errorf("limit %d: %v, want ErrQuery", limit, err)
			}
		}
		holder.Close()
		for _, c := range queue {
			c.Expect("l locked")
			c.Close()
		}
		d.awaitLeft(0)
	}
}

// queries are all that an operator can ask of the loops, about a key where it is about one.
var queries = map[string]func(ctx context.Context, srv *Server, key string) error{
	"status": func(ctx context.Context, srv *Server, _ string) error { _, err := srv.Status(ctx); return err },
	"keys": func(ctx context.Context, srv *Server, _ string) error {
		_, err := srv.Keys(ctx, api.KeyQuery{})
		return err
	},
	"key": func(ctx context.Context, srv *Server, key string) error {
		_, err := srv.Key(ctx, key, 0)
		return err
	},
	"connection": func(ctx context.Context, srv *Server, _ string) error {
		_, err := srv.Connection(ctx, 1)
		return err
	},
	"connections": func(ctx context.Context, srv *Server, _ string) error {
		_, err := srv.Connections(ctx, api.ConnectionQuery{})
		return err
	},
	"events": func(ctx context.Context, srv *Server, _ string) error {
		_, err := srv.Events(ctx, &api.EventQuery{})
		return err
	},
	"kick": func(ctx context.Context, srv *Server, _ string) error { return srv.Kick(ctx, 1, "a test") },
}

func TestUnavailable(t *testing.T) {
	ctx := context.Background()
	srv, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, nil)
	d.stop()
	for state, srv := range map[string]*Server{"before it runs": srv, "after it has ended": d.server} {
		for name, query := range queries {
			if err := query(ctx, srv, "a"); !errors.Is(err, api.ErrUnavailable) {
				t.Errorf("%s, %s: %v, want ErrUnavailable", name, state, err)
			}
		}
		if _, err := srv.Deadlocks(ctx); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("deadlocks, %s: %v, want ErrUnavailable", state, err)
		}
	}
}

// A query of a busy loop ends when the operator gives up. The other loops still answer, and so does the detector.
func TestBusyLoop(t *testing.T) {
	d, g := startGated(t, nil)
	keys := []string{d.keysOf(0, 1)[0], d.keysOf(1, 1)[0]}
	thaw := d.freeze(g, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	for name, query := range queries {
		if err := query(ctx, d.server, keys[1]); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
	if _, err := d.server.Key(context.Background(), keys[0], 0); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a key of the other loop: %v, want ErrNotFound", err)
	}
	if _, err := d.server.Deadlocks(ctx); err != nil {
		t.Errorf("deadlocks: %v", err)
	}
	thaw()
	if _, err := d.server.Status(context.Background()); err != nil {
		t.Errorf("it goes on, and does not answer: %v", err)
	}
}

// One query at a time looks at all keys or at all connections. The others wait, and who asks for a single key or for the counts
// does not.
func TestOneWalk(t *testing.T) {
	d := startDaemon(t, nil)
	d.dial().Do("lock a 0", "l locked")
	end, err := d.server.beginWalk(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		return queries[name](ctx, d.server, "a")
	}
	walks := []string{"keys", "connections", "connection"}
	for _, name := range walks {
		if err := ask(name); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
	}
	for _, name := range []string{"status", "key"} {
		eventually(t, func() error { return ask(name) }) // in time, unless the machine is busy
	}
	end()
	for _, name := range walks {
		eventually(t, func() error { return ask(name) })
	}
}

// What a query has not done when it ends is not done later: a query that nobody waits for costs the loops nothing.
func TestAbandonedQuery(t *testing.T) {
	d, g := startGated(t, nil)
	thaw := d.freeze(g, 1)
	ctx, cancel := context.WithCancel(context.Background())
	steps := make(chan int, 10)
	ended := make(chan error, 1)
	go func() {
		_, err := queryAll(ctx, d.server, func(sh *shard, _ *int) bool {
			steps <- sh.index
			return false
		})
		ended <- err
	}()
	if loop := <-steps; loop != 0 {
		t.Fatalf("loop %d makes a step, and it is frozen", loop)
	}
	cancel()
	if err := <-ended; !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	thaw()
	if _, err := d.server.Status(context.Background()); err != nil { // comes after the step
		t.Fatal(err)
	}
	if len(steps) > 0 {
		t.Error("it makes a step for nobody")
	}
}

// roam is a client
// roam is a client that comes and goes, locks, waits and moves, until the context is done, and may be kicked at any time.
func (d *daemon) roam(ctx context.Context, seed uint64, keys [][]string) error {
	random := rand.New(rand.NewPCG(seed, 0))
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
		answers := bufio.NewReader(conn)
		for range 1 + random.IntN(60) {
			loop := keys[random.IntN(len(keys))]
			key := loop[random.IntN(len(loop))]
			lock := fmt.Sprintf("lock %s %d", key, random.IntN(4))
			commands := []string{lock, "unlock " + loop[0], "unlock " + loop[1]}
			if random.IntN(2) == 0 { // who uses a key that nobody wants, and holds none, is drawn to its loop
				commands = []string{lock, "unlock " + key, "lock " + key + "x" + " 0", "unlock " + key + "x"}
			}
			for _, command := range commands {
				if err == nil {
					_, err = fmt.Fprintf(conn, "%s\r\n", command)
				}
				if err == nil {
					_, err = answers.ReadString('\n')
				}
			}
			if err != nil {
				break // kicked
			}
		}
		_ = conn.Close()
	}
	return nil
}

// All queries at once, while clients come, go and move. Every one of them sees what stays all the time.
func TestInspectMeanwhile(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.BreakDeadlocks = 3, true })
	rest := d.dial()
	id := d.idOf(rest)
	var stable []string
	for i := range 40 {
		stable = append(stable, fmt.Sprintf("stable%d", i))
		rest.Do("lock "+stable[i]+" 0", "l locked")
	}
	slices.Sort(stable)
	keys := [][]string{d.keysOf(0, 3), d.keysOf(1, 3), d.keysOf(2, 3)}
	ctx, stop := context.WithCancel(context.Background())
	var clients, operators sync.WaitGroup
	end := func() {
		stop()
		operators.Wait()
		clients.Wait()
	}
	defer end()
	for i := range 6 {
		clients.Go(func() {
			if err := d.roam(ctx, uint64(i+1), keys); err != nil {
				t.Error(err)
			}
		})
	}
	background := context.Background()
	orders := []api.KeyOrder{api.ByKey, api.ByAge, api.ByWait, api.ByWaiters}
	meanwhile := map[string]func(n int) error{
		"status": func(int) error {
			st, err := d.server.Status(background)
			if err == nil && (st.HeldKeys < len(stable) || st.Connections < 1) {
				return fmt.Errorf("%+v", st)
			}
			return err
		},
		"deadlocks": func(int) error { _, err := d.server.Deadlocks(background); return err },
		"key": func(n int) error {
			_, err := d.server.Key(background, keys[n%3][n%2], 2)
			return orNotFound(err)
		},
		"keys": func(n int) error {
			q := api.KeyQuery{Order: orders[n%4], Limit: 7}
			var names []string
			for {
				page, err := d.server.Keys(background, q)
				if err != nil {
					return err
				}
				if len(page.Keys) > q.Limit {
					return fmt.Errorf("a page of %d", len(page.Keys))
				}
				names = append(names, namesOf(page.Keys)...)
				if q.Cursor = page.Next; q.Cursor == "" {
					break
				}
			}
			// The places of these in these orders do not change.
			got := slices.DeleteFunc(slices.Clone(names), func(key string) bool { return !strings.HasPrefix(key, "stable") })
			slices.Sort(got)
			if !slices.Equal(got, stable) {
				return fmt.Errorf("order %s: got %v, want %v", q.Order, got, stable)
			}
			return nil
		},
		"connection": func(n int) error {
			c, err := d.server.Connection(background, id)
			if err == nil && (c.Held != len(stable) || len(c.Holds) != len(stable)) {
				return fmt.Errorf("%+v", c)
			}
			if err == nil {
				_, err = d.server.Connection(background, api.ConnectionID(d.server.lastID.Load()))
				err = orNotFound(err)
			}
			return err
		},
		"connections": func(n int) error {
			page, err := d.server.Connections(background, api.ConnectionQuery{Holding: n%2 == 0, Limit: 3})
			if err == nil && page.Connections[0].Connection != id {
				return fmt.Errorf("%+v", page)
			}
			return err
		},
		"kick": func(n int) error {
			last := api.ConnectionID(d.server.lastID.Load())
			if n%20 > 0 || last == id {
				last = 999999999 // nobody
			}
			return orNotFound(d.server.Kick(background, last, "a test"))
		},
	}
	var busy atomic.Int64
	busy.Store(int64(len(meanwhile)))
	for name, query := range meanwhile {
		operators.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := query(n); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if n == 20 {
					busy.Add(-1)
				}
			}
		})
	}
	eventually(t, func() error { // until everything has happened often enough
		n := d.status().Counters
		if left := busy.Load(); left > 0 || n.Moves == 0 || n.Disconnects[api.Kicked] == 0 || n.Commands[0].Count < 1000 {
			return fmt.Errorf("%d queries are missing; %d moves, %d kicked, %d locks", left, n.Moves,
				n.Disconnects[api.Kicked], n.Commands[0].Count)
		}
		return nil
	})
	end()
	d.awaitLeft(1)
	var st *api.Status
	eventually(t, func() error { // what a session had on other loops is released there a little later
		st = d.status()
		if n := d.suspects(); n != 0 || st.Waiters != 0 || st.HeldKeys != len(stable) {
			return fmt.Errorf("%d suspects, %d waiters and %d held keys are left", n, st.Waiters, st.HeldKeys)
		}
		return nil
	})
	t.Logf("%d connections, %d moves, %d kicked, %d commands", st.Counters.Accepted, st.Counters.Moves,
		st.Counters.Disconnects[api.Kicked], st.Counters.Commands[0].Count)
}

func orNotFound(err error) error {
	if errors.Is(err, api.ErrNotFound) {
		return nil
	}
	return err
}
