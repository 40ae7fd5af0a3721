package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// events returns a page of events.
func (d *daemon) events(q api.EventQuery) *api.EventPage {
	d.tb.Helper()
	p, err := d.server.Events(context.Background(), &q)
	if err != nil {
		d.tb.Fatal(err)
	}
	return p
}

// allEvents returns all events that match, and how many were lost.
func (d *daemon) allEvents(q api.EventQuery) (all []api.Event, lost uint64) {
	d.tb.Helper()
	q.Since = new(uint64)
	for {
		p := d.events(q)
		lost += p.Lost
		if len(p.Events) == 0 {
			return all, lost
		}
		all = append(all, p.Events...)
		q.Since = &p.Next
	}
}

// wantEvents compares events with a line for each: what belongs to its kind, and no times.
func wantEvents(t *testing.T, got []api.Event, want ...string) {
	t.Helper()
	lines := make([]string, 0, len(got))
	for _, e := range got {
		line := fmt.Sprintf("%s %.20s %d %s", e.Kind, e.Key, e.Connection, e.Name)
		for _, more := range []string{e.Owner, e.Reason, e.By, strings.Join(e.Keys, "+")} {
			if more != "" {
				line += " " + more
			}
		}
		lines = append(lines, line)
	}
	if !slices.Equal(lines, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

// The history of keys on all loops says who had them, how long, and how that ended.
func TestEvents(t *testing.T) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			a, b := d.dialOn(0), d.dialOn(loops-1)
			d.identify(a, "ann", "x")
			first, second := fmt.Sprint(d.idOf(a)), fmt.Sprint(d.idOf(b)) // others may have come and gone
			key, other := d.keysOf(loops-1, 1)[0], d.keysOf(0, 1)[0]+strings.Repeat("long", 1000)
			began := time.Now()
			a.Do("lock "+key+" 0", "l locked")
			b.Do("lock "+key+" 0", "t timeout") // a try is no wait
			b.Do("lock "+key+" 20", "t timeout")
			b.Send("lock " + key + " 300000")
			d.awaitWaiters(1)
			a.Do("unlock "+key, "u unlocked")
			b.Expect("l locked")
			b.Do("lock "+other+" 0", "l locked")
			b.Close()
			a.Send("lock "+key+" 300000", "lock "+other+" 300000")
			a.Expect("l locked", "l locked")
			if err := d.server.Kick(context.Background(), d.idOf(a), "ops"); err != nil {
				t.Fatal(err)
			}
			a.ExpectEnd()

			wantEvents(t, d.events(api.EventQuery{Key: key}).Events,
				"granted "+key+" "+first+" ann x", "timeout "+key+" "+second+" ", "released "+key+" "+first+" ann x",
				"granted "+key+" "+second+" ", "lost "+key+" "+second+"  closed",
				"granted "+key+" "+first+" ann x", "lost "+key+" "+first+" ann x kicked ops")
			long := other[:20]
			wantEvents(t, d.events(api.EventQuery{Key: other}).Events,
				"granted "+long+" "+second+" ", "lost "+long+" "+second+"  closed",
				"granted "+long+" "+first+" ann x", "lost "+long+" "+first+" ann x kicked ops")
			all, lost := d.allEvents(api.EventQuery{Limit: 3})
			if len(all) != 12 || lost != 0 || all[1].Key != key || !slices.IsSortedFunc(all, byTime) {
				t.Errorf("%d events are lost, and these are all: %+v", lost, all)
			}
			i := slices.IndexFunc(all, func(e api.Event) bool { return e.Kind == api.EventKicked })
			if i < 0 || all[i].By != "ops" || all[i].Held != 2 || len(all[i].Keys) != 2 || fmt.Sprint(all[i].Connection) != first {
				t.Errorf("the kick: %+v", all)
			}
			granted, released := all[0], d.events(api.EventQuery{Key: key}).Events[2]
			if granted.Token == 0 || released.Token != granted.Token || released.HeldSeconds != released.Time.Sub(granted.Time).Seconds() ||
				granted.Time.Before(began.Add(-time.Second)) || granted.Time.After(time.Now()) || !strings.HasPrefix(granted.Address, "127.0.0.1:") {
				t.Errorf("%+v, then %+v", granted, released)
			}
			if timeout := d.events(api.EventQuery{Key: key}).Events[1]; timeout.WaitedSeconds < 0.02 {
				t.Errorf("%+v, want a wait of 20 ms", timeout)
			}
			if got := d.events(api.EventQuery{Connection: granted.Connection}).Events; len(got) != 7 ||
				slices.ContainsFunc(got, func(e api.Event) bool { return fmt.Sprint(e.Connection) != first }) {
				t.Errorf("of connection %s: %+v", first, got)
			}
		})
	}
}

func byTime(a, b api.Event) int {
	if a.Seq < b.Seq && !a.Time.After(b.Time) {
		return -1
	}
	return 1
}

// Clients that are kept out have events too.
func TestRefusedEvents(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxConnections = 1 })
	d.dial().Do("lock a 0", "l locked")
	refused := d.dial()
	refused.Expect("e too many connections")
	refused.ExpectEnd()
	got := d.events(api.EventQuery{}).Events
	wantEvents(t, got, "granted a 1 ", "refused  0  max_connections")
	if want := refused.Conn().LocalAddr().String(); got[1].Address != want {
		t.Errorf("refused: %q, want %q", got[1].Address, want)
	}
}

// A deadlock has an event for each of its waits when it is found, and when it is over.
func TestDeadlockEvents(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		d := startDaemon(t, func(cfg *Config) { cfg.BreakDeadlocks = breaks })
		r := d.makeRing([]int{0, 1}, []int{1, 0}, 300000)
		end := api.DeadlockDissolved
		if breaks {
			r.clients[0].Expect("e deadlock")
			end = api.DeadlockBroken
		} else {
			d.awaitDeadlocks(1)
			r.clients[0].Close()
		}
		d.awaitDeadlocks(0)
		var got []api.Event
		eventually(t, func() error {
			got = slices.DeleteFunc(d.events(api.EventQuery{}).Events, func(e api.Event) bool { return !strings.HasPrefix(e.Kind, "deadlock") })
			if len(got) != 4 {
				return fmt.Errorf("%d events: %+v", len(got), got)
			}
			return nil
		})
		id := func(n int) string { return fmt.Sprint(r.ids[n]) }
		wantEvents(t, got, "deadlock "+r.keys[0]+" "+id(1)+" ", "deadlock "+r.keys[1]+" "+id(0)+" ",
			"deadlock_over "+r.keys[0]+" "+id(1)+"  dissolved", "deadlock_over "+r.keys[1]+" "+id(0)+"  "+end)
		if got[0].HeldBy != r.ids[0] || got[1].HeldBy != r.ids[1] || got[0].Deadlock != 1 || got[3].Deadlock != 1 || got[0].WaitedSeconds == 0 {
			t.Errorf("%+v", got)
		}
	}
}

// Pages say how many events are gone, and where the history begins. What another daemon has numbered is told apart.
func TestLostEvents(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Events = 32 })
	c := d.dial()
	pairs := func(n int) {
		for range n {
			c.Do("lock a 0", "l locked")
			c.Do("unlock a", "u unlocked")
		}
	}
	pairs(3)
	first := d.events(api.EventQuery{})
	if len(first.Events) != 6 || first.Lost != 0 || first.Restarted || !first.Oldest.Before(first.Events[0].Time) {
		t.Fatalf("%+v", first)
	}
	pairs(100)
	all, lost := d.allEvents(api.EventQuery{})
	if lost+uint64(len(all)) != 206 || len(all) < 16 || all[len(all)-1].Seq != first.Events[0].Seq+205 {
		t.Errorf("%d events and %d lost, want 206 together: %+v", len(all), lost, all)
	}
	since := first.Next
	next := d.events(api.EventQuery{Since: &since, Limit: 5})
	if next.Lost+16 != 200 || next.Events[0].Seq != since+next.Lost+1 || len(next.Events) != 5 || next.Next != next.Events[4].Seq {
		t.Errorf("after %d: %+v", since, next)
	}
	if next.Oldest.After(next.Events[0].Time) || next.Oldest.Before(first.Events[5].Time) {
		t.Errorf("nothing is missing since %s: %+v", next.Oldest, next)
	}
	if rest := d.events(api.EventQuery{Since: &next.Next}); rest.Lost != 0 || len(rest.Events) != 11 {
		t.Errorf("the rest: %+v", rest)
	}
	for _, strange := range []uint64{1, first.Events[0].Seq - 2, next.Next + 1000} {
		if p := d.events(api.EventQuery{Since: &strange}); !p.Restarted || len(p.Events) != len(all) {
			t.Errorf("since %d: %+v", strange, p)
		}
	}
	if latest := d.events(api.EventQuery{Limit: 1}); len(latest.Events) != 1 || latest.Events[0].Seq != latest.Next || latest.Lost != 0 {
		t.Errorf("the latest: %+v", latest)
	}
}

// Who waits for events is told of the next one, whoever has collected it, and of the end of the server.
func TestAwaitEvents(t *testing.T) {
	d := startDaemon(t, nil)
	c := d.dial()
	for range 5 {
		page := d.events(api.EventQuery{})
		told := make(chan error, 3)
		for range cap(told) {
			go func() { told <- d.server.AwaitEvents(context.Background(), page.Next) }()
		}
		c.Do("lock a 0", "l locked")
		for range cap(told) {
			if err := <-told; err != nil {
				t.Fatal(err)
			}
		}
		c.Do("unlock a", "u unlocked")
	}
	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	next := d.events(api.EventQuery{}).Next
	if err := d.server.AwaitEvents(soon, next); err != nil {
		t.Errorf("nothing happens: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- d.server.AwaitEvents(context.Background(), next) }()
	d.stop()
	if err := <-ended; !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

// While clients lock and unlock as fast as they can, whoever follows gets every event once, in order.
func TestFollowEvents(t *testing.T) {
	const clients, pairs = 4, 500
	d := startDaemon(t, func(cfg *Config) { cfg.Events = maxEvents / 10 })
	var running sync.WaitGroup
	for range clients {
		c := d.dial()
		running.Go(func() {
			for range pairs {
				key := "k" + fmt.Sprint(rand.IntN(4))
				_, _ = c.Conn().Write([]byte("lock " + key + " 300000\r\nunlock " + key + "\r\n"))
				for range 2 {
					if _, err := c.ReadReply(); err != nil {
						return
					}
				}
			}
		})
	}
	var followers sync.WaitGroup
	for range 3 {
		followers.Go(func() { d.follow(2 * clients * pairs) })
	}
	followers.Wait()
	running.Wait()
}

// follow reads events until it has a number of them, and checks that each grant of a key is followed by its end.
func (d *daemon) follow(events int) {
	ctx, cancel := context.WithTimeout(context.Background(), prototest.Patience)
	defer cancel()
	holders := map[string]api.Event{}
	since, n := uint64(0), 0
	for n < events {
		p, err := d.server.Events(ctx, &api.EventQuery{Since: &since, Limit: 100})
		if err != nil || p.Lost > 0 {
			d.tb.Errorf("%d events lost: %v", p.Lost, err)
			return
		}
		for _, e := range p.Events {
			if before, held := holders[e.Key]; held == (e.Kind == api.EventGranted) || held && before.Token != e.Token {
				d.tb.Errorf("%+v, after %+v", e, before)
			}
			if holders[e.Key] = e; e.Kind != api.EventGranted {
				delete(holders, e.Key)
			}
		}
		n += len(p.Events)
		if since = p.Next; len(p.Events) == 0 {
			if err := d.server.AwaitEvents(ctx, since); err != nil || ctx.Err() != nil {
				d.tb.Errorf("after %d events: %v", n, err)
				return
			}
		}
	}
}

// Without events nothing is kept, and who asks is told.
func TestNoEvents(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Events = 0 })
	c := d.dial()
	c.Do("lock a 0", "l locked")
	c.Send("lock b 0\r\nunlock b")
	c.Expect("l locked", "u unlocked")
	if _, err := d.server.Events(context.Background(), &api.EventQuery{}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if err := d.server.AwaitEvents(context.Background(), 0); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if err := d.server.Kick(context.Background(), 1, "ops"); err != nil {
		t.Fatal(err)
	}
	d.wantLog(1, "client kicked", `"by":"ops"`, `"held_keys":1`, `"keys":["a"]`)
}

// A kick is logged with who asked, and with the first of the keys that it frees on all loops.
func TestKickIsLogged(t *testing.T) {
	d := startDaemon(t, nil)
	c := d.dialOn(0)
	d.identify(c, "ann", "x")
	keys := append(d.keysOf(0, 10), d.keysOf(1, 15)...)
	keys = append(keys, strings.Repeat("x", proto.MaxKey))
	for _, key := range keys {
		c.Do("lock "+key+" 0", "l locked")
	}
	if err := d.server.Kick(context.Background(), d.idOf(c), "10.0.0.7:5 ops"); err != nil {
		t.Fatal(err)
	}
	d.wantLog(1, `"level":"warn"`, "client kicked", `"by":"10.0.0.7:5 ops"`, `"held_keys":26`, `"name":"ann"`, `"client":"127.0.0.1:`)
	line := d.log.containing("client kicked")[0]
	named := 0
	for _, key := range keys[:25] {
		if strings.Contains(line, `"`+key+`"`) {
			named++
		}
	}
	if named < api.NamedKeys-1 || named > api.NamedKeys || len(line) > 4096 {
		t.Errorf("%d keys are named: %s", named, line)
	}
}

// A key that an operator takes is lost, and the event says by whom.
func TestTakenEvent(t *testing.T) {
	d := startDaemon(t, nil)
	a := d.dial()
	a.Do("lock k 0", "l locked")
	b := d.dial() // the second: those who come together have their numbers in any order
	b.Send("lock k 300000")
	d.awaitWaiters(1)
	if _, err := d.server.Release(context.Background(), &api.ReleaseQuery{Key: "k", By: "ops"}); err != nil {
		t.Fatal(err)
	}
	b.Expect("l locked")
	b.Do("unlock k", "u unlocked")
	wantEvents(t, d.events(api.EventQuery{}).Events, "granted k 1 ", "lost k 1  taken ops", "granted k 2 ", "released k 2 ")
}
