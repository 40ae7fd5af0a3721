package client

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/api"
)

var ownerSeed = flag.Uint64("owner.seed", 0, "seed of the programs with nested locks; 0 for a new one")

// program is a random one that takes locks, some with the contexts of others. It is also the model of what is true: who
// holds, who waits, and which locks are not released before a wait is over.
type program struct {
	t      *testing.T
	random *rand.Rand
	client *Client
	server *server.Server
	keys   []string
	wide   bool // several waits at a time under one lock

	held  map[string]*modelLock
	queue map[string][]*modelWait
	story []string
}

// modelLock is a held lock.
type modelLock struct {
	key    string
	around *modelLock // with whose context it was asked for; nil for none
	lock   *Lock
}

// modelWait is a call of Lock that waits.
type modelWait struct {
	modelLock
	cancel context.CancelFunc
	done   <-chan result
}

// isUnder reports whether a lock or a wait was asked for under l.
func (m *modelLock) isUnder(l *modelLock) bool {
	for m = m.around; m != nil; m = m.around {
		if m == l {
			return true
		}
	}
	return false
}

func (m *modelLock) root() *modelLock {
	for m.around != nil {
		m = m.around
	}
	return m
}

func (p *program) waits() (all []*modelWait) {
	for _, key := range p.keys {
		all = append(all, p.queue[key]...)
	}
	return all
}

// step does something that the rules allow, at random.
func (p *program) step() {
	if p.random.IntN(3) == 0 {
		p.unlock()
	} else {
		p.ask()
	}
}

// ask asks for a key: for itself, or under a lock that is held.
func (p *program) ask() {
	ctx, around := context.Background(), (*modelLock)(nil)
	if all := slices.Sorted(maps.Keys(p.held)); len(all) > 0 && p.random.IntN(4) > 0 {
		around = p.held[all[p.random.IntN(len(all))]]
		ctx = around.lock.Context()
		waits := func(w *modelWait) bool { return w.root() == around.root() }
		if !p.wide && slices.ContainsFunc(p.waits(), waits) {
			return // one goroutine cannot ask twice at a time
		}
	}
	key := p.keys[p.random.IntN(len(p.keys))]
	ctx, cancel := context.WithCancel(ctx)
	w := &modelWait{modelLock{key: key, around: around}, cancel, lockLater(ctx, p.client, key, -1)}
	p.tell("ask for %s under %s", key, around)
	if p.held[key] == nil {
		p.granted(w)
		return
	}
	p.queue[key] = append(p.queue[key], w)
	p.awaitQueue(key)
}

// unlock releases a lock, if there is one that may be: nothing is held, asked for or waited for under it.
func (p *program) unlock() {
	used := make(map[*modelLock]bool)
	for _, l := range p.held {
		used[l.around] = true
	}
	for _, w := range p.waits() {
		used[w.around] = true
	}
	free := slices.DeleteFunc(slices.Sorted(maps.Keys(p.held)), func(key string) bool { return used[p.held[key]] })
	if len(free) == 0 {
		return
	}
	key := free[p.random.IntN(len(free))]
	p.tell("unlock %s", key)
	mustUnlock(p.t, p.held[key].lock)
	delete(p.held, key)
	if queue := p.queue[key]; len(queue) > 0 {
		p.queue[key] = queue[1:]
		p.granted(queue[0])
		p.awaitQueue(key)
	}
}

// granted takes the key that the first waiter has been granted.
func (p *program) granted(w *modelWait) {
	select {
	case r := <-w.done:
		if r.err != nil {
			p.t.Fatalf("%v\n%s", r.err, p)
		}
		w.lock = r.lock
		p.held[w.key] = &w.modelLock
	case <-time.After(prototest.Patience):
		p.t.Fatalf("%s is not granted\n%s", w.key, p)
	}
}

// giveUp ends a wait.
func (p *program) giveUp(w *modelWait) {
	p.tell("give up %s", w.key)
	w.cancel()
	<-w.done
	p.queue[w.key] = slices.DeleteFunc(p.queue[w.key], func(other *modelWait) bool { return other == w })
	p.awaitQueue(w.key)
}

// awaitQueue waits until the server has as many waiters for a key as there are, and returns their connections.
func (p *program) awaitQueue(key string) (connections []api.ConnectionID) {
	for deadline := time.Now().Add(prototest.Patience); ; {
		k, err := p.server.Key(context.Background(), key, 100)
		if err == nil && k.Waiters == len(p.queue[key]) {
			for i := range k.Queue {
				connections = append(connections, k.Queue[i].Connection)
			}
			return connections
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the server has %+v, %v\n%s", k, err, p)
		}
	}
}

// cycles returns the deadlocks. Each wait is for one lock, and without wide, at most one wait is under each lock: so no two
// deadlocks have a wait in common.
func (p *program) cycles() (all [][]*modelWait) {
	waits := p.waits()
	seen := make(map[*modelWait]bool)
	for _, first := range waits {
		var way []*modelWait
		for w := first; w != nil && !seen[w]; {
			seen[w] = true
			way = append(way, w)
			holder := p.held[w.key]
			next := slices.IndexFunc(waits, func(other *modelWait) bool { return other.isUnder(holder) })
			w = nil
			if next >= 0 {
				w = waits[next]
			}
			if i := slices.Index(way, w); w != nil && i >= 0 {
				all = append(all, way[i:])
			}
		}
	}
	return all
}

// names returns the names of a deadlock's waits, by their connections.
func (p *program) names(cycle []*modelWait) string {
	var names []string
	for _, w := range cycle {
		place := slices.Index(p.queue[w.key], w)
		names = append(names, fmt.Sprintf("%d:%s", p.awaitQueue(w.key)[place], w.key))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// checkTrue fails the test unless each wait of a deadlock that the server has found is for a lock that is not released before
// the next wait is over.
func (p *program) checkTrue(cycle *api.Cycle) {
	var found []*modelWait
	for i := range cycle.Waits {
		key := cycle.Waits[i].WaitsFor
		place := slices.Index(p.awaitQueue(key), cycle.Waits[i].Connection)
		if place < 0 {
			p.t.Fatalf("%+v is no deadlock: %d does not wait for %s\n%s", cycle, cycle.Waits[i].Connection, key, p)
		}
		found = append(found, p.queue[key][place])
	}
	for i, w := range found {
		if next := found[(i+1)%len(found)]; !next.isUnder(p.held[w.key]) {
			p.t.Fatalf("%+v is no deadlock: %s does not wait for %s\n%s", cycle, w.key, next.key, p)
		}
	}
}

func (p *program) tell(format string, args ...any) {
	p.story = append(p.story, fmt.Sprintf(format, args...))
}

func (m *modelLock) String() string {
	if m == nil {
		return "nothing"
	}
	return m.key
}

func (p *program) String() string { return strings.Join(p.story, "\n") }

// Of a program that gives its locks' contexts to the locks that it takes under them, the server finds exactly the deadlocks
// that there are. All goroutines share one client, so that connections are used again for other owners.
func TestOwnersModel(t *testing.T) {
	runPrograms(t, false, func(p *program, standing []api.Cycle) (found int, all bool) {
		want, got := make(map[string]bool), make(map[string]bool)
		for _, c := range p.cycles() {
			want[p.names(c)] = true
		}
		for i := range standing {
			p.checkTrue(&standing[i])
			var names []string
			for _, w := range standing[i].Waits {
				names = append(names, fmt.Sprintf("%d:%s", w.Connection, w.WaitsFor))
			}
			slices.Sort(names)
			got[strings.Join(names, " ")] = true
		}
		return len(got), maps.Equal(got, want)
	})
}

// If goroutines share the context of a lock, the server finds no deadlock that is none.
func TestSharedContextModel(t *testing.T) {
	runPrograms(t, true, func(p *program, standing []api.Cycle) (found int, all bool) {
		for i := range standing {
			p.checkTrue(&standing[i])
		}
		return len(standing), true
	})
}

// runPrograms runs programs by turns, and calls check when they have paused and the server has looked for deadlocks since:
// for each program, with the deadlocks that the server has found in it. check returns how many there are, and whether these
// are all.
func runPrograms(t *testing.T, wide bool, check func(p *program, standing []api.Cycle) (found int, all bool)) {
	seed := *ownerSeed
	if seed == 0 {
		seed = rand.Uint64()>>1 | 1
	}
	t.Logf("-owner.seed %d", seed)
	srv, address, _ := runServer(t, func(cfg *server.Config) { cfg.Loops = 2 })
	c := newClient(t, address, Options{})
	programs := make([]*program, 16)
	for i := range programs {
		p := &program{
			t: t, random: rand.New(rand.NewPCG(seed, uint64(i))), client: c, server: srv, wide: wide,
			held: make(map[string]*modelLock), queue: make(map[string][]*modelWait),
		}
		for k := range 3 + i%4 {
			p.keys = append(p.keys, fmt.Sprintf("p%dk%d", i, k))
		}
		programs[i] = p
	}
	total := 0
	for range 6 {
		for _, p := range programs {
			for _, cycle := range p.cycles() { // or the program would soon stand still
				p.giveUp(cycle[p.random.IntN(len(cycle))])
			}
		}
		for range 12 {
			for _, p := range programs {
				p.step()
			}
		}
		total += checkAll(t, programs, func() []api.Cycle { return lookAgain(t, srv, address) }, check)
	}
	for _, p := range programs {
		for _, w := range p.waits() {
			w.cancel()
			<-w.done
		}
		for _, l := range p.held {
			l.lock.conn.close()
		}
	}
	if total == 0 {
		t.Error("there was no deadlock")
	}
	t.Logf("%d deadlocks", total)
}

// checkAll checks all programs, until the server has found all deadlocks: it may learn of an owner after the wait has begun.
func checkAll(
	t *testing.T, programs []*program, look func() []api.Cycle, check func(*program, []api.Cycle) (found int, all bool),
) (total int) {
	for deadline := time.Now().Add(prototest.Patience); ; {
		standing, missing := look(), 0
		total = 0
		for _, p := range programs {
			found, all := check(p, slices.DeleteFunc(slices.Clone(standing), func(c api.Cycle) bool {
				return !slices.Contains(p.keys, c.Waits[0].WaitsFor)
			}))
			total += found
			if !all {
				missing++
			}
		}
		if missing == 0 {
			return total
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server has not found all deadlocks in %d programs", missing)
		}
	}
}

// lookAgain returns the deadlocks that the server finds from now on. It makes one itself, and when that is found the server has
// looked for all others as well.
func lookAgain(t *testing.T, srv *server.Server, address string) (others []api.Cycle) {
	left, right := prototest.Dial(t, address), prototest.Dial(t, address)
	left.Do("lock left 60000", "l locked") // after the one of the last time has gone
	right.Do("lock right 60000", "l locked")
	left.Send("lock right 600000")
	right.Send("lock left 600000")
	defer left.Close()
	defer right.Close()
	for deadline := time.Now().Add(prototest.Patience); ; {
		known, err := srv.Deadlocks(t.Context())
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v", known, err)
		}
		us := func(w api.Wait) bool { return w.Address == left.Conn().LocalAddr().String() }
		if slices.ContainsFunc(known.Cycles, func(c api.Cycle) bool { return slices.ContainsFunc(c.Waits, us) }) {
			return known.Cycles
		}
	}
}
