package server

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// The end of clients is noticed that wait and were held back, although it stands after more than the sockets take, which nobody
// reads: their keys are free, and the memory that they took. However little memory there is.
func TestEndBehindFlood(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"held back for max-pipeline": func(cfg *Config) { cfg.MaxPipeline = 4 << 10 },
		"memory is scarce":           func(cfg *Config) { cfg.MaxMemory = 64 << 20 },
	} {
		for _, end := range []string{"close", "half-close"} {
			t.Run(name+","+end, func(t *testing.T) {
				const clients, size = 8, 2 << 20
				d := startDaemon(t, change)
				cs := d.canaries()
				holder := d.dial()
				holder.Do("lock hot 0", "l locked")
				var own []string
				var flooding []*prototest.Client
				for i := range clients {
					c := d.dial()
					own = append(own, fmt.Sprintf("own%d", i))
					c.Do("lock "+own[i]+" 0", "l locked")
					c.Send("lock hot 3600000")
					flooding = append(flooding, c)
				}
				d.awaitWaiters(clients)
				others := int64(0)
				if d.server.cfg.MaxMemory > 0 {
					others = d.server.budget.limit // is what others take
				}
				d.server.budget.reserve(others)
				for _, c := range flooding {
					flood := makeTorrent(makeCycle(2000, "x", "y"), size)
					flood.offer(t, c.Conn(), cs)
					if flood.sent < 256<<10 {
						t.Fatalf("only %d bytes of the flood were taken", flood.sent)
					}
				}
				for _, c := range flooding {
					if end == "close" {
						c.Close()
					} else {
						c.CloseWrite()
					}
				}
				d.awaitWaiters(0)
				d.wantConnections(len(cs.clients) + 1)
				d.wantMemory(64 << 10)
				d.server.budget.reserve(-others)
				d.wantFree(own...)
			})
		}
	}
}

// A living client that is read on, to see whether it has ended, loses nothing: all that it has sent is answered, in order, and what
// it took is given back.
func TestReadOn(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			const clients, size = 4, 3 << 20
			d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxMemory = loops, 1<<30 })
			holder := d.dial()
			holder.Do("lock hot 0", "l locked")
			flood := makeTorrent(makeCycle(2000, "x", "y"), size)
			var waiters []*prototest.Client
			var senders sync.WaitGroup
			for range clients {
				c := d.dial()
				_ = c.Conn().SetWriteBuffer(64 << 10)
				_ = c.Conn().SetWriteDeadline(time.Now().Add(prototest.Patience))
				c.Send("lock hot 3600000")
				waiters = append(waiters, c)
				senders.Go(func() {
					f := *flood
					if err := f.rest(c.Conn()); err != nil {
						t.Error(err)
					}
				})
			}
			d.awaitWaiters(clients)
			senders.Wait() // it has all been taken, which is more than is kept without a search
			eventually(t, func() error {
				if n := d.status().MemoryBytes; n < clients*size/2 {
					return fmt.Errorf("%d bytes are in use", n)
				}
				return nil
			})
			holder.Do("unlock hot", "u unlocked")
			var readers sync.WaitGroup
			for _, c := range waiters {
				readers.Go(func() {
					got := make([]byte, len("l locked\r\n"))
					if _, err := io.ReadFull(c.Conn(), got); err != nil || string(got) != "l locked\r\n" {
						t.Errorf("got %q, %v", got, err)
					}
					if err := flood.wantAnswers(c.Conn(), flood.cycles); err != nil {
						t.Error(err)
					}
					_ = c.Conn().Close()
				})
			}
			readers.Wait()
			d.wantConnections(1)
			d.wantMemory(64 << 10)
		})
	}
}

// The search reads on as much as its reserve allows, and no more: the others stay held back, and nobody loses anything.
func TestReserve(t *testing.T) {
	const clients, commands = 30, 2000
	s := newSim(1, moveAfter)
	se := &s.loops[0].worker.roster.search
	se.reserve = 20 << 10
	holder := s.connect("holder", 0)
	holder.send("lock a 0\r\n")
	for i := range clients {
		c := s.connect(fmt.Sprintf("c%d", i), 0)
		c.send("lock a 3600000\r\n")
		for range 2 { // the first is read, and the other held back
			c.send(strings.Repeat("fence a\r\n", commands/2))
		}
	}
	for range 3 * clients {
		s.pass(searchEvery)
		s.settle()
		if most := se.reserve + 32<<10; se.readOn > most {
			t.Fatalf("%d bytes are read on, want at most %d", se.readOn, most)
		}
	}
	if se.readOn < se.reserve {
		t.Errorf("%d bytes are read on, of %d that may be", se.readOn, se.reserve)
	}
	if err := s.check(); err != nil {
		t.Error(err)
	}
	s.events = nil
	holder.send("unlock a\r\n")
	for _, c := range s.clients[1:] {
		s.settle()
		if lines := s.heardLines()[c]; len(lines) != 1+commands {
			t.Fatalf("%s has heard %d lines", c.name, len(lines))
		}
		c.send("unlock a\r\n")
	}
	s.settle()
	if se.readOn != 0 {
		t.Errorf("%d bytes are still read on", se.readOn)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}
