package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// timedOutReading reports whether the server has left a connection open.
func timedOutReading(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// stopTimely stops the daemon, which must not take long, however many clients there are.
func (d *daemon) stopTimely() {
	d.tb.Helper()
	start := time.Now()
	d.stop()
	if took := time.Since(start); took > 5*time.Second {
		d.tb.Errorf("the stop took %s", took)
	}
}

// While the server stops nobody is granted anything: the holders cannot know yet that they have lost their keys.
func TestStopGrantsNothing(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		for round := range 3 {
			t.Run(fmt.Sprintf("loops=%d,round=%d", loops, round), func(t *testing.T) {
				d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
				cs := d.canaries()
				var keys []string
				for loop := range loops {
					keys = append(keys, d.keysOf(loop, 5)...)
				}
				var holders, waiters []*prototest.Client
				for _, key := range keys {
					holder := d.dial()
					holder.Do("lock "+key+" 0", "l locked")
					holders = append(holders, holder)
				}
				for i := range 4 * len(keys) {
					loop := i % loops
					c := d.dialOn(loop)
					c.Send("lock "+keys[i%len(keys)]+" 600000", "lock never 0")
					waiters = append(waiters, c)
				}
				cs.passAll()
				d.stopTimely()
				for _, c := range append(waiters, holders...) {
					c.ExpectEnd() // fails for an answer
				}
				want := []string{
					fmt.Sprintf(`"connections":%d`, 5*len(keys)+loops), fmt.Sprintf(`"held_keys":%d`, len(keys)),
					fmt.Sprintf(`"waiters":%d`, 4*len(keys)), "dreadlock stops",
				}
				if n := len(d.log.containing(want...)); n != 1 {
					t.Errorf("want one line with %q, got %d: %q", want, n, d.log.containing("stops"))
				}
			})
		}
	}
}

// The stop names at most 100 of the lost keys, by name, and says how many more there are.
func TestStopNamesLostKeys(t *testing.T) {
	for _, held := range []int{0, 1, maxNamed, maxNamed + 1, 20 * maxNamed} {
		d := startDaemon(t, nil)
		holder := d.fill("k", held)
		d.stopTimely()
		holder.ExpectEnd()
		lines := d.log.containing(`"message":"key lost"`, `"level":"warn"`, fmt.Sprintf(`"client":%q`, holder.Conn().LocalAddr()))
		if len(lines) != min(held, maxNamed) {
			t.Errorf("%d keys: %d lines", held, len(lines))
		}
		var names []string
		for _, line := range lines {
			var lost struct{ Key string }
			if err := json.Unmarshal([]byte(line), &lost); err != nil {
				t.Fatal(err)
			}
			names = append(names, lost.Key)
		}
		if slices.Sort(names); len(slices.Compact(names)) != len(lines) {
			t.Errorf("%d keys: %d lines have %d keys", held, len(lines), len(slices.Compact(names)))
		}
		if held > maxNamed {
			d.wantLog(1, "more keys lost", fmt.Sprintf(`"keys":%d`, held-maxNamed))
		} else {
			d.wantLog(0, "more keys lost")
		}
		if held == 0 {
			d.wantLog(1, "dreadlock stops: no key was held", `"level":"info"`)
		} else {
			d.wantLog(1, "dreadlock stops: the keys that were held are lost", `"level":"warn"`, fmt.Sprintf(`"held_keys":%d`, held))
		}
	}
}

// The clients go on while the server stops: they lock and unlock without a pause.
func TestStopUnderLoad(t *testing.T) {
	for range 10 {
		d := startDaemon(t, nil)
		keys := append(d.keysOf(0, 3), d.keysOf(1, 3)...)
		text := makeCycle(0, keys...)
		done := make(chan struct{})
		started := make(chan struct{}, 40)
		for range 20 {
			go func() {
				defer func() { done <- struct{}{} }()
				conn, err := net.Dial("tcp", d.address)
				if err != nil {
					t.Error(err)
					started <- struct{}{}
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
				started <- struct{}{}
				go func() {
					_ = text.flood(conn, 2000)
					done <- struct{}{}
				}()
				rest, err := io.ReadAll(conn)
				if timedOutReading(err) {
					t.Errorf("no end after %d bytes", len(rest))
				}
			}()
		}
		for range 20 {
			<-started
		}
		d.stopTimely()
		for range 40 {
			<-done
		}
	}
}

// One loop is busy for longer than the stop waits. The other has closed its connections, which must not release what
// they held on the busy one; and clients that come meanwhile are not served.
func TestStopWithBusyLoop(t *testing.T) {
	for frozen := range 2 {
		d, g := startGated(t, nil)
		cs := d.canaries()
		keys := append(d.keysOf(0, 3), d.keysOf(1, 3)...)
		var holders, waiters []*prototest.Client
		for i, key := range keys {
			holder := d.dialOn(i % 2)
			holder.Do("lock "+key+" 0", "l locked")
			holders = append(holders, holder)
			for loop := range 2 {
				waiter := d.dialOn(loop)
				waiter.Send("lock " + key + " 600000")
				waiters = append(waiters, waiter)
			}
		}
		cs.passAll()
		thaw := d.freeze(g, frozen)
		stopped := make(chan struct{})
		go func() {
			d.stop()
			close(stopped)
		}()
		cs.clients[1-frozen].ExpectEnd() // the other loop ends without waiting for this one
		var late []net.Conn
		for range 10 {
			if conn, err := net.Dial("tcp", d.address); err == nil {
				_, _ = conn.Write([]byte("lock late 0\r\n"))
				late = append(late, conn)
			}
		}
		for _, holder := range holders {
			holder.Close()
		}
		thaw()
		<-stopped
		for _, c := range waiters {
			c.ExpectEnd()
		}
		for _, conn := range late {
			_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
			text, err := io.ReadAll(conn)
			if timedOutReading(err) {
				t.Error("a client that came during the stop is not closed")
			}
			if len(text) > 0 && !strings.HasPrefix(string(text), "e ") {
				t.Errorf("a client that came during the stop got %q", text)
			}
			_ = conn.Close()
		}
		if len(g.containing("busy loops")) != 1 {
			t.Error("the log does not say that a loop was busy")
		}
	}
}

// Whoever reconnects after the stop finds a server with all keys free.
func TestRestart(t *testing.T) {
	first := startDaemon(t, nil)
	keys := append(first.keysOf(0, 3), first.keysOf(1, 3)...)
	holder := first.dial()
	for _, key := range keys {
		holder.Do("lock "+key+" 0", "l locked")
	}
	first.stopTimely()
	holder.ExpectEnd()
	second := startDaemon(t, func(cfg *Config) { cfg.Listen = []string{first.address} })
	second.wantFree(keys...)
}

// A server that stops before it was ready is ready at no moment of that.
func TestStopBeforeReady(t *testing.T) {
	srv, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	srv.shards = newSim(1, 0).server.shards // of a loop that does not run by itself
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		srv.stop()
	}()
	for {
		select {
		case <-stopped:
			return
		default:
			if srv.Ready() {
				t.Fatal("ready while it stops")
			}
		}
	}
}

// Whoever asks is told who holds what: the first hundred keys by name, and how many more there are, at any level of the log.
func TestLogHolders(t *testing.T) {
	for _, held := range []int{0, 1, maxNamed, maxNamed + 1, 3 * maxNamed} {
		d := startDaemon(t, func(cfg *Config) { cfg.Log = cfg.Log.Level(zerolog.ErrorLevel) })
		holder := d.fill("k", held)
		if _, err := patiently(func() (struct{}, error) { return struct{}{}, d.server.LogHolders(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		client := fmt.Sprintf(`"client":%q`, holder.Conn().LocalAddr())
		d.wantLog(min(held, maxNamed), `"message":"key held"`, client, `"connection":`, `"held":`, `"waiters":0`)
		if held > 0 {
			d.wantLog(1, `"message":"key held"`, `"key":"k0"`)
		}
		if more := held - maxNamed; more > 0 {
			d.wantLog(1, "more keys held", fmt.Sprintf(`"keys":%d`, more))
		} else {
			d.wantLog(0, "more keys held")
		}
		d.stop()
		if err := d.server.LogHolders(t.Context()); !errors.Is(err, api.ErrUnavailable) {
			t.Errorf("it has ended: %v, want ErrUnavailable", err)
		}
	}
}
