package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// endless is a time for a drain that no test waits for.
const endless = time.Hour

// drain begins a drain.
func (d *daemon) drain(timeout time.Duration) *api.Drain {
	d.tb.Helper()
	state, err := d.server.Drain(d.tb.Context(), &timeout)
	if err != nil {
		d.tb.Fatal(err)
	}
	return state
}

// wantLog fails the test unless the log has a number of lines with all the texts.
func (d *daemon) wantLog(n int, texts ...string) {
	d.tb.Helper()
	if got := d.log.containing(texts...); len(got) != n {
		d.tb.Errorf("%d lines of the log have %q, want %d: %q", len(got), texts, n, got)
	}
}

// wantNoEntry expects that nobody serves a new connection.
func (d *daemon) wantNoEntry() {
	d.tb.Helper()
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("lock late 0\r\n"))
	_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
	if text, err := io.ReadAll(conn); timedOutReading(err) || len(text) > 0 {
		d.tb.Errorf("a new connection is told %q, %v", text, err)
	}
}

// Who holds a key, or waits for one, finishes. Who does neither is let go. Then the server ends by itself.
func TestDrain(t *testing.T) {
	for _, loops := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			var holders, waiters, idle []*prototest.Client
			var keys []string
			d.pairs(func(conn, key int) {
				k := d.keysOf(key, loops)[conn]
				holder, waiter, other := d.dialOn(conn), d.dial(), d.dial()
				holder.Do("lock "+k+" 0", "l locked")
				waiter.Send("lock " + k + " 600000")
				keys, holders, waiters, idle = append(keys, k), append(holders, holder), append(waiters, waiter), append(idle, other)
			})
			d.awaitWaiters(len(waiters))
			if !d.server.Ready() || d.status().Drain != nil {
				t.Error("it drains, and nobody has asked for that")
			}
			began := time.Now()
			state := d.drain(endless)
			if state.HeldKeys != len(keys) || state.Waiters != len(keys) || state.Over || state.Since.Before(began) ||
				state.Until.Sub(state.Since) != endless || state.SecondsLeft > endless.Seconds() {
				t.Errorf("state: %+v", state)
			}
			if d.server.Ready() {
				t.Error("it is ready for new clients")
			}
			for _, c := range idle {
				c.ExpectEnd()
			}
			d.wantNoEntry()
			for i, k := range keys {
				holders[i].Do("lock "+k+"more 0", "l locked") // it may need that
				holders[i].Do("unlock "+k, "u unlocked")
				waiters[i].Expect("l locked")
				holders[i].Do("unlock "+k+"more", "u unlocked")
				holders[i].ExpectEnd()
			}
			st := d.status()
			if st.Drain == nil || st.Drain.Until != state.Until || st.HeldKeys != len(keys) || st.Connections != len(keys) {
				t.Errorf("status: %+v, drain: %+v", st, st.Drain)
			}
			for i, k := range keys {
				if i < len(keys)-1 {
					waiters[i].Do("unlock "+k, "u unlocked")
					waiters[i].ExpectEnd()
				}
			}
			last := len(keys) - 1
			waiters[last].Send("unlock "+keys[last], "lock never 0")
			waiters[last].Expect("u unlocked")
			waiters[last].ExpectEnd()
			d.ended()
			if end := d.server.AwaitDrain(t.Context()); !end.Over || end.HeldKeys != 0 {
				t.Errorf("the end is %+v", end)
			}
			d.wantLog(1, "dreadlock drains: it takes no new connections", `"timeout":"1h0m0s"`)
			d.wantLog(1, "the drain ends: nobody holds a key", `"level":"info"`)
			d.wantLog(1, "dreadlock stops: no key was held", `"level":"info"`)
			d.wantLog(0, "lost")
		})
	}
}

// A server at which nobody holds anything ends at once, however many are connected.
func TestDrainOfIdle(t *testing.T) {
	d := startDaemon(t, nil)
	var clients []*prototest.Client
	for range 3 * sessionsPerStep {
		c := d.dial()
		clients = append(clients, c)
	}
	d.wantConnections(len(clients))
	d.drain(endless)
	d.ended()
	for _, c := range clients {
		c.ExpectEnd()
	}
}

// When the time is up the rest is dropped, and the log says who held what. Waiters are granted nothing.
func TestDrainTimeIsUp(t *testing.T) {
	d := startDaemon(t, nil)
	holder, plain, waiter := d.dial(), d.dial(), d.dial()
	holder.Do("owner db1job7", "o owned")
	holder.Send("name nightly@db1")
	if answer, err := holder.ReadReply(); err != nil || !strings.HasPrefix(answer, "n named ") {
		t.Fatalf("name: %q, %v", answer, err)
	}
	keys := append(d.keysOf(0, 1), d.keysOf(1, 1)...)
	for _, key := range keys {
		holder.Do("lock "+key+" 0", "l locked")
	}
	plain.Do("lock plain 0", "l locked")
	waiter.Send("lock plain 600000")
	d.awaitWaiters(1)
	d.drain(200 * time.Millisecond)
	d.ended()
	for _, c := range []*prototest.Client{holder, plain, waiter} {
		c.ExpectEnd()
	}
	d.wantLog(1, "the drain ends: its time is up", `"level":"warn"`)
	for _, key := range keys {
		d.wantLog(1, `"message":"key lost"`, `"level":"warn"`, fmt.Sprintf(`"key":%q`, key), `"name":"nightly@db1"`, `"owner":"db1job7"`,
			`"connection":`, fmt.Sprintf(`"client":%q`, holder.Conn().LocalAddr()), `"waiters":0`, `"held":"`)
	}
	d.wantLog(1, `"message":"key lost"`, `"key":"plain"`, fmt.Sprintf(`"client":%q`, plain.Conn().LocalAddr()), `"waiters":1`)
	d.wantLog(2, `"message":"key lost"`, `"name":`)
	d.wantLog(1, "dreadlock stops: the keys that were held are lost", `"level":"warn"`, `"held_keys":3`, `"waiters":1`, `"connections":3`)
	if end := d.server.AwaitDrain(t.Context()); !end.Over || end.HeldKeys != 3 || end.Waiters != 1 {
		t.Errorf("the end is %+v", end)
	}
}

// A drain that is under way can be made shorter, not longer. Without a time it takes that of the options, or 30 s.
func TestDrainTimes(t *testing.T) {
	for option, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 7 * time.Minute: 7 * time.Minute} {
		var told time.Time
		d := startDaemon(t, func(cfg *Config) {
			cfg.Drain, cfg.Draining = option, func(until time.Time) { told = until }
		})
		holder := d.dial()
		holder.Do("lock a 0", "l locked")
		for _, bad := range []time.Duration{-1, maxDrain + 1} {
			if _, err := d.server.Drain(t.Context(), &bad); !errors.Is(err, api.ErrQuery) || !d.server.Ready() {
				t.Errorf("%s: %v", bad, err)
			}
		}
		lasts := func(timeout *time.Duration) time.Duration {
			state, err := d.server.Drain(t.Context(), timeout)
			if err != nil {
				t.Fatal(err)
			}
			if !state.Until.Equal(told) {
				t.Errorf("it ends at %s, and %s was told", state.Until, told)
			}
			return state.Until.Sub(state.Since)
		}
		if got := lasts(nil); got != want {
			t.Errorf("with --drain %s it takes %s, want %s", option, got, want)
		}
		if got := lasts(new(endless)); got != want {
			t.Errorf("it was made longer, to %s", got)
		}
		if got := lasts(nil); got != want {
			t.Errorf("to ask again makes it %s", got)
		}
		if got := lasts(new(time.Duration(0))); got >= want {
			t.Errorf("it was not made shorter: %s", got)
		}
		d.ended()
		holder.ExpectEnd()
		d.wantLog(1, "key lost", `"key":"a"`)
	}
}

// Before the server serves, and after it has ended, there is nothing to drain.
func TestDrainOfNothing(t *testing.T) {
	srv, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Drain(t.Context(), nil); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("before it serves: %v", err)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if state := srv.AwaitDrain(now); state != nil {
		t.Errorf("a drain that nobody has asked for: %+v", state)
	}
	d := startDaemon(t, nil)
	d.stop()
	if _, err := d.server.Drain(t.Context(), nil); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("after the stop: %v", err)
	}
	if state := d.server.AwaitDrain(t.Context()); state != nil {
		t.Errorf("a stop without a drain is seen as %+v", state)
	}
}

// A drain does not keep the server from being stopped.
func TestStopInDrain(t *testing.T) {
	d := startDaemon(t, nil)
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.drain(endless)
	d.stopTimely()
	holder.ExpectEnd()
	d.wantLog(1, "key lost", `"key":"a"`)
	d.wantLog(0, "the drain ends")
	if end := d.server.AwaitDrain(t.Context()); !end.Over || end.HeldKeys != 1 {
		t.Errorf("the end is %+v", end)
	}
}

// Clients that lock and unlock for ever do not keep a drain from ending. None of them loses a key by it.
func TestDrainUnderLoad(t *testing.T) {
	for round := range 5 {
		d := startDaemon(t, nil)
		keys := append(d.keysOf(0, 4), d.keysOf(1, 4)...)
		const clients = 16
		started, done := make(chan struct{}, clients), make(chan error, clients)
		for i := range clients {
			c := d.dial()
			go func() {
				key := keys[(i+round)%len(keys)]
				done <- lockForEver(c, key, func() { started <- struct{}{} })
			}()
		}
		for range clients {
			<-started
		}
		d.drain(endless)
		d.ended()
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		d.wantLog(1, "dreadlock stops: no key was held")
	}
}

// lockForEver locks and unlocks a key until the connection ends, which it must not do while the key is held. It calls
// begun when it has held the key for the first time.
func lockForEver(c *prototest.Client, key string, begun func()) error {
	for n := 0; ; n++ {
		for _, step := range []struct{ command, answer string }{{"lock " + key + " 600000", "l locked"}, {"unlock " + key, "u unlocked"}} {
			_, err := fmt.Fprintf(c.Conn(), "%s\r\n", step.command)
			answer := ""
			if err == nil {
				answer, err = c.ReadReply()
			}
			switch {
			case err != nil && timedOutReading(err):
				return fmt.Errorf("%s: %w", step.command, err)
			case err != nil && strings.HasPrefix(step.command, "lock"):
				return nil
			case err != nil || answer != step.answer:
				return fmt.Errorf("%s: %q, %w", step.command, answer, err)
			}
		}
		if n == 0 {
			begun()
		}
	}
}

// A loop that stands still does not keep a drain from beginning on the others, nor from ending when its time is up.
func TestDrainWithBusyLoop(t *testing.T) {
	for frozen := range 2 {
		d, g := startGated(t, nil)
		here, there := d.dialOn(1-frozen), d.dialOn(frozen)
		holder := d.dialOn(1 - frozen)
		holder.Do("lock "+d.keysOf(1-frozen, 1)[0]+" 0", "l locked")
		thaw := d.freeze(g, frozen)
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan error, 1)
		go func() {
			_, err := d.server.Drain(ctx, new(endless))
			asked <- err
		}()
		here.ExpectEnd()
		cancel()
		if err := <-asked; !errors.Is(err, api.ErrUnavailable) || !strings.Contains(err.Error(), "it drains") {
			t.Errorf("asked while a loop stands still: %v", err)
		}
		if d.server.Ready() {
			t.Error("it is ready for new clients")
		}
		if _, err := d.server.Drain(ctx, new(time.Duration(0))); err != nil && !errors.Is(err, api.ErrUnavailable) {
			t.Error(err)
		}
		holder.ExpectEnd() // its loop ends without waiting for the other one
		thaw()
		d.ended()
		there.ExpectEnd()
		if len(g.containing("busy loops")) != 1 || len(g.containing("the drain ends: its time is up")) != 1 {
			t.Errorf("the log: %q", g.lines)
		}
	}
}

// Clients that have ended their side, or do not read, are no reason to stay unless they hold a key.
func TestDrainOfHalfDead(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.MaxOutput = 4 << 10 })
	ended, deaf := d.dialNarrowOn(0), d.dialNarrowOn(1)
	for loop, conn := range []*net.TCPConn{ended, deaf} {
		commands := bytes.Repeat([]byte("unlock "+d.keysOf(loop, 1)[0]+"\r\n"), 1000) // of its own loop, so that it stays there
		written := make(chan error, 1)
		go func() {
			for {
				if _, err := conn.Write(commands); err != nil {
					written <- err
					return
				}
			}
		}()
		d.awaitState(conn, api.Lagging)
		_ = conn.SetWriteDeadline(time.Now())
		if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if err := ended.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.drain(endless)
	holder.Do("unlock a", "u unlocked")
	d.ended()
}
