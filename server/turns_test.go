package server

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// heardLines returns the lines that clients have read since the last call, by client.
func (s *sim) heardLines() map[*simClient][]string {
	lines := make(map[*simClient][]string)
	for _, e := range s.events {
		lines[e.client] = append(lines[e.client], e.line)
	}
	s.events = nil
	return lines
}

// pipelines has clients wait for one key each of a holder, with commands after it, and returns all of them.
func pipelines(s *sim, clients, commands int) (holder *simClient, waiters []*simClient) {
	s.server.cfg.MaxConnections, s.server.cfg.MaxPipeline = clients+10, 1<<20
	holder = s.connect("holder", 0)
	for i := range clients {
		key := s.key(fmt.Sprintf("held%dx", i), i%len(s.loops))
		holder.send(fmt.Sprintf("lock %s 0\r\n", key))
		s.settle()
		w := s.connect("w"+strconv.Itoa(i), 0)
		w.send(fmt.Sprintf("lock %s 10000\r\n", key) + strings.Repeat("lock "+s.key(fmt.Sprintf("own%dx", i), 0)+" 0\r\n", commands))
		waiters = append(waiters, w)
	}
	s.settle()
	s.events = nil
	return holder, waiters
}

// TestTurnIsBounded lets many pipelines go together. No turn does more than it may; all clients are told of their grant
// before any of them has come far, and they come on alike.
func TestTurnIsBounded(t *testing.T) {
	const clients, commands, budget = 31, 400, 50
	s := newSim(1, moveAfter)
	s.server.pace = pace{short: 4, long: 20, release: 10}
	holder, waiters := pipelines(s, clients, commands)
	l := s.loops[0]
	s.budget = budget
	answers := make(map[*simClient]int)
	turns := 0
	for holder.reset(); ; turns++ {
		if most := budget + 4*(simPart+s.server.pace.release); l.spent > most {
			t.Fatalf("turn %d has spent %d, want at most %d", turns, l.spent, most)
		}
		for c, lines := range s.heardLines() {
			if c != holder && answers[c] == 0 && lines[0] != "l locked" {
				t.Fatalf("%s is told %q first", c.name, lines[0])
			}
			answers[c] += len(lines)
		}
		least, most := commands+1, 0
		for _, w := range waiters {
			least, most = min(least, answers[w]), max(most, answers[w])
		}
		if most-least > 3*s.server.pace.long {
			t.Fatalf("after %d turns one client has %d answers, and another %d", turns, most, least)
		}
		if !l.goOn() {
			break
		}
	}
	for _, w := range waiters {
		if answers[w] != commands+1 {
			t.Errorf("%s has %d answers, want %d", w.name, answers[w], commands+1)
		}
	}
	if want := clients * commands / budget / 2; turns < want {
		t.Errorf("it took %d turns, want %d at least", turns, want)
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// TestTurnOfOneRead cuts a pipeline that comes in one read. Another client is served meanwhile, and the end of the client's side
// does not lose what is left.
func TestTurnOfOneRead(t *testing.T) {
	const commands = 100
	s := newSim(1, moveAfter)
	s.server.cfg.MaxPipeline, s.budget, s.server.pace.long = 1<<20, 1000, 10
	c, other := s.connect("c", 0), s.connect("other", 0)
	c.send(strings.Repeat("lock a 0\r\n", commands))
	if got := len(s.heardLines()[c]); got != 10 {
		t.Errorf("%d commands were executed in one turn, want 10", got)
	}
	other.send("lock b 0\r\n")
	if lines := s.heardLines(); !slices.Equal(lines[other], []string{"l locked"}) || len(lines[c]) > 0 {
		t.Errorf("the clients heard %v", lines)
	}
	c.send("unlock a\r\n")
	c.closeWrite()
	s.settle()
	lines := s.heardLines()[c]
	if len(lines) != commands-10+2 || lines[len(lines)-2] != "u unlocked" || lines[len(lines)-1] != "" {
		t.Errorf("the client heard %d lines at last: %q", len(lines), lines[max(0, len(lines)-3):])
	}
	if err := s.checkQuiet(); err != nil {
		t.Error(err)
	}
}

// TestEndWhileWaitingForTurn ends sessions that wait for a turn in every way: nothing of what is left is executed.
func TestEndWhileWaitingForTurn(t *testing.T) {
	ends := map[string]func(c *simClient){
		"reset": (*simClient).reset,
		"kick":  (*simClient).kick,
		"drain": func(c *simClient) {
			var found holders
			c.loop.turn(func() { c.loop.worker.shard.drain(&found) })
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			s := newSim(1, moveAfter)
			s.server.pace.long, s.budget = 2, 10
			c := s.connect("c", 0)
			c.send("lock a 0\r\nunlock a\r\nlock b 0\r\n")
			if s.loops[0].worker.roster.turns.empty() {
				t.Fatal("the session does not wait for a turn")
			}
			end(c)
			s.settle()
			if lines := s.heardLines()[c]; !slices.Equal(lines, []string{"l locked", "u unlocked", ""}) {
				t.Errorf("the client heard %q", lines)
			}
			if err := s.checkQuiet(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPipelinesGoTogether has many clients wait for keys of one holder with long pipelines after that, and the holder leave. It
// takes seconds to execute them all; another client is answered all the time.
func TestPipelinesGoTogether(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			const tries = 3 // a busy machine holds up the other client as well, but not every time
			for i := range tries {
				if goTogether(t, loops) {
					return
				}
				t.Logf("that was try %d of %d", i+1, tries)
			}
			t.Error("another client has waited for the pipelines every time")
		})
	}
}

// goTogether reports whether another client was answered all the time.
func goTogether(t *testing.T, loops int) (ok bool) {
	clients, size := 300, 64<<10
	if testing.Short() {
		clients = 100
	}
	const enough = 16 // answers to another client
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
	holder, probe := d.dial(), d.dial()
	var own [][]string // keys by loop: each client uses one of its loop, so that all of a pipeline could be executed in one turn
	for loop := range loops {
		own = append(own, d.keysOf(loop, clients))
	}
	var group sync.WaitGroup
	for i := range clients {
		held, loop := fmt.Sprintf("held%d", i), i%loops
		holder.Do("lock "+held+" 0", "l locked")
		w := d.dialOn(loop)
		command := "lock " + own[loop][i] + " 0\r\n"
		commands := size / len(command)
		w.Write([]byte("lock " + held + " 600000\r\n" + strings.Repeat(command, commands)))
		group.Go(func() {
			answers := int64(len("l locked\r\nl locked\r\n") + (commands-1)*len("e already locked\r\n"))
			_ = w.Stream().SetReadDeadline(time.Now().Add(4 * prototest.Patience))
			if n, err := io.CopyN(io.Discard, w.Stream(), answers); err != nil {
				t.Errorf("%d bytes of answers are missing: %v", answers-n, err)
			}
		})
	}
	d.awaitWaiters(clients)
	done := make(chan struct{})
	began := time.Now()
	go func() {
		group.Wait()
		close(done)
	}()
	holder.Close()
	worst, answers := time.Duration(0), 0
	for over := false; !over; answers += 2 {
		asked := time.Now()
		probe.Do("lock probe 0", "l locked")
		probe.Do("unlock probe", "u unlocked")
		worst = max(worst, time.Since(asked)/2)
		over = isClosed(done)
	}
	all := time.Since(began)
	t.Logf("the pipelines took %s, another client has had %d answers meanwhile, the worst after %s", all, answers, worst)
	return answers >= enough && worst <= all/4
}

// TestGoneWaitsForATurn ends a session that waits for a turn. When it would be served, its loop counts nothing for it.
func TestGoneWaitsForATurn(t *testing.T) {
	for name, end := range map[string]func(*simClient){
		"half-closed": (*simClient).closeWrite, "reset": (*simClient).reset, "kicked": (*simClient).kick,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(1, moveAfter)
			s.server.pace.long = 1
			c := s.connect("c", 0)
			c.send("lock x") // the parser keeps the first byte of the key
			c.send("1 0\r\nlock y 0\r\nlock z 0\r\n")
			if !c.session.waitsTurn {
				t.Fatal("it does not wait for a turn")
			}
			end(c)
			s.settle()
			if c.open {
				t.Fatal("it is open")
			}
			if err := s.checkQuiet(); err != nil {
				t.Error(err)
			}
		})
	}
}
