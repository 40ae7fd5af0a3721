package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// connections returns all connections that match, page by page.
func (d *daemon) connections(q api.ConnectionQuery) (all []api.Connection) {
	d.tb.Helper()
	for {
		p, err := patiently(func() (*api.ConnectionPage, error) { return d.server.Connections(d.tb.Context(), q) })
		if err != nil {
			d.tb.Fatal(err)
		}
		all = append(all, p.Connections...)
		if q.Cursor = p.Next; q.Cursor == "" {
			return all
		}
	}
}

// connectionOf returns what the server says of the connection of a client that it has accepted. It may be on its way from
// loop to loop.
func (d *daemon) connectionOf(conn net.Conn) (c api.Connection) {
	d.tb.Helper()
	address := conn.LocalAddr().String()
	eventually(d.tb, func() error {
		for _, c = range d.connections(api.ConnectionQuery{Address: address}) {
			if c.Address == address { // the port could be the beginning of another
				return nil
			}
		}
		return fmt.Errorf("no connection from %s", address)
	})
	return c
}

// idOf returns the number of the connection of a client.
func (d *daemon) idOf(c *prototest.Client) api.ConnectionID {
	d.tb.Helper()
	return d.connectionOf(c.Conn()).Connection
}

// await waits until the server says of a connection what is wanted.
func (d *daemon) await(conn net.Conn, want string, is func(c *api.Connection) bool) (c api.Connection) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if c = d.connectionOf(conn); !is(&c) {
			return fmt.Errorf("want a connection that %s, got %+v", want, c)
		}
		return nil
	})
	return c
}

func (d *daemon) awaitState(conn net.Conn, state string) api.Connection {
	d.tb.Helper()
	return d.await(conn, "is "+state, func(c *api.Connection) bool { return c.State == state })
}

// ownCycle makes a cycle of a key that is the client's own and belongs to the loop that serves it, so that a pipeline of it
// is executed in one go.
func (d *daemon) ownCycle(conn net.Conn) cycle {
	d.tb.Helper()
	loop := d.connectionOf(conn).Loop
	for i := 0; ; i++ {
		key := fmt.Sprintf("own%dx%d", portOf(conn), i)
		if d.server.shardOf(d.server.seed.Hash([]byte(key))) == loop {
			return makeCycle(0, key)
		}
	}
}

// floodWhileWaiting has a client wait for a key, and send commands that have more answers than the sockets take, and then the
// last. All is executed in one go when the holder gives the key up. It returns the commands before the last.
func (d *daemon) floodWhileWaiting(holder *prototest.Client, c *net.TCPConn, key, last string) (text cycle, cycles int) {
	d.tb.Helper()
	holder.Do("lock "+key+" 0", "l locked")
	fmt.Fprintf(c, "lock %s 600000\r\n", key)
	d.awaitState(c, api.Waiting)
	text, cycles = d.ownCycle(c), 14000 // 750 KB of answers
	if err := text.flood(c, cycles); err != nil {
		d.tb.Fatal(err)
	}
	fmt.Fprint(c, last)
	d.wantRead(c)
	holder.Do("unlock "+key, "u unlocked")
	return text, cycles
}

// wantSeconds checks that a duration is that since a point in time, and is not older than the test.
func wantSeconds(t *testing.T, what string, began, since time.Time, seconds float64) {
	t.Helper()
	if since.Before(began.Add(-time.Millisecond)) || since.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("%s: since %s, the test began at %s", what, since, began)
	}
	if most := time.Since(since).Seconds() + 0.001; seconds < 0 || seconds > most {
		t.Errorf("%s: %g s, want at most %g", what, seconds, most)
	}
}

// What is shown of a connection that holds keys of all loops and waits for one, of its own loop or of another one.
func TestConnection(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			for keyLoop := range loops {
				began := time.Now()
				holder, c := d.dial(), d.dial()
				taken := d.keysOf(keyLoop, 1)[0]
				holder.Do("lock "+taken+" 0", "l locked")
				var keys []string
				for loop := range loops {
					keys = append(keys, d.keysOf(loop, 3)[1:]...)
				}
				for _, key := range keys {
					c.Do("lock "+key+" 0", "l locked")
				}
				got := d.connectionOf(c.Conn())
				if got.State != api.Idle || got.WaitsFor != "" || got.WaitedSeconds != 0 {
					t.Errorf("idle: %+v", got)
				}
				c.Send("lock " + taken + " 600000")
				got = d.awaitState(c.Conn(), api.Waiting)
				byID, err := d.server.Connection(t.Context(), got.Connection)
				if err != nil {
					t.Fatal(err)
				}
				for _, got := range []api.Connection{got, *byID} {
					slices.Sort(got.Holds)
					slices.Sort(keys)
					if got.Address != c.Conn().LocalAddr().String() || got.Held != len(keys) || !slices.Equal(got.Holds, keys) ||
						got.WaitsFor != taken || got.State != api.Waiting || got.Loop != d.loopOfPort(portOf(c.Conn())) {
						t.Errorf("waiting: %+v, want %d keys %v, and to wait for %s", got, len(keys), keys, taken)
					}
					wantSeconds(t, "connected", began, got.Since, got.ConnectedSeconds)
					wantSeconds(t, "waits", began, time.Now().Add(-time.Duration(got.WaitedSeconds*1e9)), got.WaitedSeconds)
				}
				holder.Do("unlock "+taken, "u unlocked")
				c.Expect("l locked")
				if got = d.connectionOf(c.Conn()); got.State != api.Idle || got.WaitsFor != "" || got.Held != len(keys)+1 {
					t.Errorf("granted: %+v", got)
				}
				c.Close()
				holder.Close()
				d.wantConnections(0) // the keys are free for the next ones
			}
			if all := d.connections(api.ConnectionQuery{}); len(all) != 0 {
				t.Errorf("all have gone, and there are %+v", all)
			}
		})
	}
}

func portOf(conn net.Conn) int { return conn.LocalAddr().(*net.TCPAddr).Port }

// A page lists a few of the keys of a connection that holds many, and a query for that connection alone lists more; the
// number of keys is right in both.
func TestConnectionHoldsMany(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	c := d.dial()
	const held = api.MaxLimit + 500
	for i := range held {
		c.Send(fmt.Sprintf("lock many%d 0", i))
	}
	for range held {
		c.Expect("l locked")
	}
	got := d.connectionOf(c.Conn())
	if len(got.Holds) != api.ListedKeys || got.Held != held {
		t.Errorf("in a page: %d keys listed of %d", len(got.Holds), got.Held)
	}
	one, err := d.server.Connection(t.Context(), got.Connection)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(one.Holds)
	if n := len(slices.Compact(one.Holds)); n != api.MaxLimit || one.Held != held {
		t.Errorf("alone: %d keys listed of %d", n, one.Held)
	}
}

// Pages list the connections by their numbers, each one once, and the filters leave out those they should.
func TestConnections(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			const n = 30 // a third does nothing, a third holds a key, a third waits for it
			var all, holding, waiting []api.ConnectionID
			for i := range n {
				c := d.dial()
				id := api.ConnectionID(i + 1)
				all = append(all, id)
				switch key := fmt.Sprintf("k%d", i/3); i % 3 {
				case 0:
					c.Do("unlock "+key, "e not locked")
				case 1:
					c.Do("lock "+key+" 0", "l locked")
					holding = append(holding, id)
					c.Send("name ann@build" + key)
					if reply, err := c.ReadReply(); err != nil || !strings.HasPrefix(reply, "n named") {
						t.Fatal(reply, err)
					}
					if i == 13 { // it is on its loop that the keys are counted
						c.Do("lock more1 0", "l locked")
						c.Do("lock more2 0", "l locked")
					}
				case 2:
					c.Do("owner nightly", "o owned")
					c.Send("lock " + key + " 600000")
					d.awaitState(c.Conn(), api.Waiting)
					waiting = append(waiting, id)
				}
			}
			rank := func(id api.ConnectionID) int { // 14 holds three keys
				return map[bool]int{id == 14: 0, id != 14 && slices.Contains(holding, id): 1, !slices.Contains(holding, id): 2}[true]
			}
			byHeld := slices.SortedStableFunc(slices.Values(all), func(a, b api.ConnectionID) int { return cmp.Compare(rank(a), rank(b)) })
			byWait := slices.Clone(waiting)
			for _, id := range all {
				if !slices.Contains(waiting, id) {
					byWait = append(byWait, id)
				}
			}
			for name, q := range map[string]struct {
				api.ConnectionQuery
				want []api.ConnectionID
			}{
				"all":           {api.ConnectionQuery{}, all},
				"holding":       {api.ConnectionQuery{Holding: true}, holding},
				"waiting":       {api.ConnectionQuery{Waiting: true}, waiting},
				"both":          {api.ConnectionQuery{Waiting: true, Holding: true}, nil},
				"of the host":   {api.ConnectionQuery{Address: "127.0.0.1:"}, all},
				"of a stranger": {api.ConnectionQuery{Address: "127.0.0.2"}, nil},
				"of a name":     {api.ConnectionQuery{Client: "ann"}, holding},
				"of an owner":   {api.ConnectionQuery{Client: "ightl"}, waiting},
				"of an address": {api.ConnectionQuery{Client: "0.0.1:"}, all},
				"of an unknown": {api.ConnectionQuery{Client: "Ann"}, nil},
				"name and wait": {api.ConnectionQuery{Client: "ann", Waiting: true}, nil},
				"most keys":     {api.ConnectionQuery{Order: api.ByHeld}, byHeld},
				"longest wait":  {api.ConnectionQuery{Order: api.ByWaited, Waiting: true}, waiting},
				"waits first":   {api.ConnectionQuery{Order: api.ByWaited}, byWait},
			} {
				for _, limit := range []int{0, 1, 7, len(q.want), api.MaxLimit} {
					q.Limit = limit
					var got []api.ConnectionID
					for _, c := range d.connections(q.ConnectionQuery) {
						got = append(got, c.Connection)
					}
					if !slices.Equal(got, q.want) {
						t.Errorf("%s, limit %d: %v, want %v", name, limit, got, q.want)
					}
				}
				p, err := d.server.Connections(t.Context(), q.ConnectionQuery)
				if err != nil || p.Matching != len(q.want) || p.Connections == nil {
					t.Errorf("%s: %d match, %v, want %d", name, p.Matching, err, len(q.want))
				}
			}
		})
	}
}

// A client that does not read lags, also while it waits for a key, and one that has ended its input ends as long as it has
// answers to get.
func TestConnectionStates(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxPipeline, cfg.MaxOutput = 2, 2<<20, 2<<20 })
	lagging := d.dialNarrow()
	text := d.ownCycle(lagging)
	var flood sync.WaitGroup
	flood.Go(func() { _ = text.flood(lagging, 1<<20) })
	d.awaitState(lagging, api.Lagging)

	holder, ending, both := d.dial(), d.dialNarrow(), d.dialNarrow()
	d.floodWhileWaiting(holder, ending, "first", "!")
	d.awaitState(ending, api.Ending)
	holder.Do("lock second 0", "l locked")
	d.floodWhileWaiting(holder, both, "first", "lock second 600000\r\n")
	d.await(both, "lags and waits", func(c *api.Connection) bool {
		return c.State == api.Lagging && c.WaitsFor == "second" && c.WaitedSeconds > 0 && slices.Equal(c.Holds, []string{"first"})
	})
	if all := d.connections(api.ConnectionQuery{Waiting: true}); len(all) != 1 {
		t.Errorf("one waits, found %+v", all)
	}
	// One that has ended and only has answers to get can be kicked as well.
	if err := d.server.Kick(t.Context(), d.connectionOf(ending).Connection, "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(ending); timedOutReading(err) {
		t.Error("the connection of a kicked client stays open")
	}
	if ends := d.status().Counters.Disconnects; ends[api.SyntaxError] != 1 || ends[api.Kicked] != 0 {
		t.Errorf("one has ended by a syntax error before it was kicked, counted are %v", ends)
	}
	for _, conn := range []net.Conn{lagging, both} {
		_ = conn.Close()
	}
	flood.Wait()
	d.wantConnections(1)
}

// A kick takes effect at once in every state of a session: the connection ends, what it held goes to the next, and its
// place in the queue is free.
func TestKick(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxOutput = 2, 4<<10 })
	var floods sync.WaitGroup
	states := []struct {
		name  string
		reach func(c *net.TCPConn, key, held string) error
		state string
	}{
		{"holding", func(*net.TCPConn, string, string) error { return nil }, api.Idle},
		{"in the middle of a command", func(c *net.TCPConn, key, _ string) error {
			_, err := io.WriteString(c, "lock "+key)
			return err
		}, api.Idle},
		{"waiting", func(c *net.TCPConn, key, _ string) error {
			_, err := fmt.Fprintf(c, "lock %s 600000\r\n", key)
			return err
		}, api.Waiting},
		{"waiting with a pipeline", func(c *net.TCPConn, key, held string) error {
			_, err := fmt.Fprintf(c, "lock %s 600000\r\nunlock %s\r\nlock x 0\r\n", key, held)
			return err
		}, api.Waiting},
		{"answers unread", func(c *net.TCPConn, _, _ string) error {
			text := d.ownCycle(c)
			floods.Go(func() { _ = text.flood(c, 1<<20) })
			return nil
		}, api.Lagging},
	}
	cs := d.canaries()
	kicked := 0
	for _, state := range states {
		t.Run(state.name, func(t *testing.T) {
			d.pairs(func(conn, keyLoop int) {
				key, held := d.keysOf(keyLoop, 1)[0], d.keysOf(1-keyLoop, 1)[0]
				holder, next, c := d.dialOn(keyLoop), d.dialOn(keyLoop), d.dialNarrowOn(conn)
				holder.Do("lock "+key+" 0", "l locked")
				answer := make([]byte, len("l locked\r\n"))
				fmt.Fprintf(c, "lock %s 0\r\n", held)
				if _, err := io.ReadFull(c, answer); err != nil {
					t.Fatal(err)
				}
				if err := state.reach(c, key, held); err != nil {
					t.Fatal(err)
				}
				id := d.awaitState(c, state.state).Connection
				next.Send("lock " + held + " 600000")
				if err := d.server.Kick(t.Context(), id, "a test"); err != nil {
					t.Fatal(err)
				}
				kicked++
				next.Expect("l locked")
				rest, err := io.ReadAll(c)
				if timedOutReading(err) {
					t.Errorf("the connection of a kicked client stays open: %q", rest)
				}
				if told := string(rest) == "e kicked\r\n"; told != (state.state == api.Waiting) {
					t.Errorf("it is told %.40q", rest)
				}
				for what, err := range map[string]error{
					"kick":       d.server.Kick(t.Context(), id, "a test"),
					"connection": func() error { _, err := d.server.Connection(t.Context(), id); return err }(),
				} {
					if !errors.Is(err, api.ErrNotFound) {
						t.Errorf("%s of one that is gone: %v", what, err)
					}
				}
				if k := d.key(key); k == nil || len(k.Queue) != 0 {
					t.Errorf("still in the queue: %+v", k)
				}
				holder.Close()
				next.Close()
				_ = c.Close()
				d.wantFree(key, held, "x")
				d.wantConnections(len(cs.clients))
				floods.Wait()
			})
		})
	}
	st := d.status()
	if n := st.Counters.Disconnects[api.Kicked]; n != uint64(kicked) {
		t.Errorf("%d kicks are counted, want %d", n, kicked)
	}
	if n := len(d.log.containing("client kicked")); n != kicked {
		t.Errorf("%d kicks are logged, want %d", n, kicked)
	}
}

// A client whose request is on its way to a busy loop is kicked: the key that it is granted there is free again.
func TestKickWithRequestAway(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for frozen := range 2 {
		keys := d.keysOf(frozen, 2)
		holder, free, taken := d.dialOn(1-frozen), d.dialOn(1-frozen), d.dialOn(1-frozen)
		holder.Do("lock "+keys[1]+" 0", "l locked")
		ids := []api.ConnectionID{d.idOf(free), d.idOf(taken)}
		thaw := d.freeze(g, frozen)
		free.Send("lock " + keys[0] + " 0")
		taken.Send("lock " + keys[1] + " 600000")
		cs.pass(1-frozen, 1-frozen)
		kicks := make(chan error)
		for _, id := range ids {
			go func() { kicks <- d.server.Kick(t.Context(), id, "a test") }() // is done when the other loop has answered too
		}
		free.Expect("e kicked")
		free.ExpectEnd()
		taken.Expect("e kicked")
		taken.ExpectEnd()
		thaw()
		for range ids {
			if err := <-kicks; err != nil {
				t.Error(err)
			}
		}
		holder.Do("unlock "+keys[1], "u unlocked")
		holder.Close()
		d.wantFree(keys...)
	}
	d.wantConnections(len(cs.clients))
}

// An operator who gives up while a connection may be moving is not told that it does not exist.
func TestSeekGivenUp(t *testing.T) {
	srv, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	srv.departed.Add(1) // and has not arrived
	ctx, cancel := context.WithCancel(t.Context())
	err = srv.seek(ctx, func() (found bool, err error) {
		cancel()
		return false, nil
	})
	if !errors.Is(err, api.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A connection that moves from loop to loop all the time is found nevertheless, and can be kicked.
func TestSeekMoving(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	keys := [][]string{d.keysOf(0, 1), d.keysOf(1, 1)}
	for range 5 {
		c := d.dial()
		id := d.idOf(c)
		var client sync.WaitGroup
		client.Go(func() {
			for i := 0; ; i++ {
				key := keys[i/2%2][0]
				if _, err := fmt.Fprintf(c.Conn(), "lock %s 0\r\nunlock %s\r\n", key, key); err != nil {
					return
				}
				for range 2 {
					if _, err := c.ReadReply(); err != nil {
						return
					}
				}
			}
		})
		// One that moves all the time may escape some looks, and is given up then. That is rare, and does not happen again and again.
		for range 50 {
			eventually(t, func() error {
				got, err := d.server.Connection(t.Context(), id)
				if err == nil && got.Connection != id {
					t.Errorf("got %+v, want connection %d", got, id)
				}
				return err
			})
		}
		eventually(t, func() error { return d.server.Kick(t.Context(), id, "a test") })
		client.Wait()
		c.Close()
	}
	d.wantConnections(0)
	if st := d.status(); st.Counters.Moves < 5 || st.Counters.Disconnects[api.Kicked] != 5 {
		t.Errorf("%d moves, %d kicks", st.Counters.Moves, st.Counters.Disconnects[api.Kicked])
	}
}
