package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dreadlock/lockmgr"
	"dreadlock/server/api"
)

// Two looks at several tables that go on changing, beside a model that knows the truth at every moment.

const (
	crowdTables   = 3
	crowdKeys     = 5
	crowdSessions = 5
)

// crowd is some shards without loops, the sessions that use them, and what is true of both.
type crowd struct {
	shards   []*shard
	sessions []*member
	holder   [crowdKeys]*member   // the truth; nil if free
	queue    [crowdKeys][]*member // the truth
	lastID   api.ConnectionID
	now      time.Duration
}

// member is a session with what it holds in each table.
type member struct {
	session session
	owners  [crowdTables]lockmgr.Owner
	key     int  // that it waits for
	waits   bool // until the grant is delivered
}

func newCrowd() *crowd {
	c := &crowd{}
	srv := &Server{detector: newDetector(nil)}
	for i := range crowdTables {
		c.shards = append(c.shards, &shard{worker: &worker{index: i, server: srv}, table: lockmgr.NewTable(1)})
	}
	for range crowdSessions {
		c.sessions = append(c.sessions, c.connect())
	}
	return c
}

func (c *crowd) connect() *member {
	c.lastID++
	m := &member{}
	m.session.id = c.lastID
	m.session.request.init(&m.session)
	for i := range m.owners {
		m.owners[i].Tag = &m.session
	}
	return m
}

// place returns the shard of a key, its hash and its name.
func (c *crowd) place(key int) (*shard, uint64, []byte) {
	return c.shards[key%crowdTables], uint64(key), []byte{'a' + byte(key)}
}

// held returns the keys that a session holds.
func (c *crowd) held(m *member) (keys []int) {
	for key, holder := range c.holder {
		if holder == m {
			keys = append(keys, key)
		}
	}
	return keys
}

// act has one of the sessions do something, or a shard deliver a grant.
func (c *crowd) act(t *rapid.T) {
	c.now += time.Duration(rapid.IntRange(0, 2).Draw(t, "time"))
	who := rapid.IntRange(0, crowdSessions-1).Draw(t, "session")
	m := c.sessions[who]
	if rapid.IntRange(0, 19).Draw(t, "close") == 17 {
		c.close(m)
		c.sessions[who] = c.connect()
		return
	}
	switch {
	case m.waits && m.session.request.waiter.Queued():
		if rapid.IntRange(0, 5).Draw(t, "expire") == 4 {
			c.leave(m)
		}
	case m.waits:
		sh, _, _ := c.place(m.key)
		c.settle(sh)
	default:
		if held := c.held(m); len(held) > 0 && rapid.IntRange(0, 4).Draw(t, "unlock") == 3 {
			c.unlock(m, rapid.SampledFrom(held).Draw(t, "key"))
		} else {
			c.lock(m, rapid.IntRange(0, crowdKeys-1).Draw(t, "key"))
		}
	}
}

func (c *crowd) lock(m *member, key int) {
	sh, hash, name := c.place(key)
	r := &m.session.request
	sh.table.Advance(c.now)
	switch sh.table.Lock(&m.owners[sh.index], &r.waiter, hash, name, true) {
	case lockmgr.Granted:
		c.holder[key] = m
	case lockmgr.Queued: // as in shard.beginWait
		r.since = c.now
		r.serial++
		if len(c.held(m)) > 0 {
			sh.suspect(r)
		}
		c.queue[key] = append(c.queue[key], m)
		m.waits, m.key = true, key
	}
}

func (c *crowd) unlock(m *member, key int) {
	sh, hash, name := c.place(key)
	sh.table.Advance(c.now)
	sh.table.Unlock(&m.owners[sh.index], hash, name, &sh.grants)
	c.pass(key)
}

// pass gives a key to the next, in the model.
func (c *crowd) pass(key int) {
	c.holder[key] = nil
	if q := c.queue[key]; len(q) > 0 {
		c.holder[key], c.queue[key] = q[0], q[1:]
	}
}

// leave takes a session out of its queue, as in shard.Expire.
func (c *crowd) leave(m *member) {
	sh, _, _ := c.place(m.key)
	if !sh.table.Cancel(&m.session.request.waiter) {
		return
	}
	sh.suspects.remove(&m.session.request)
	m.waits = false
	c.queue[m.key] = slices.DeleteFunc(slices.Clone(c.queue[m.key]), func(o *member) bool { return o == m })
}

func (c *crowd) close(m *member) {
	if m.waits {
		c.leave(m)
	}
	for i, sh := range c.shards {
		sh.table.Advance(c.now)
		sh.table.Close(&m.owners[i], &sh.grants)
	}
	for _, key := range c.held(m) {
		c.pass(key)
	}
}

// settle delivers the grants of a shard. Between a grant and this, its request is still among the suspects.
func (c *crowd) settle(sh *shard) {
	for w := sh.grants.Pop(); w != nil; w = sh.grants.Pop() {
		r := w.Tag.(*request)
		sh.suspects.remove(r)
		for _, m := range c.sessions {
			if &m.session == r.session {
				m.waits = false
			}
		}
	}
}

// truth returns the names of all cycles that there are at this moment.
func (c *crowd) truth() map[string]bool {
	cycles := make(map[string]bool)
	waitsFor := make(map[*member]*member)
	for key, queue := range c.queue {
		for _, m := range queue {
			waitsFor[m] = c.holder[key]
		}
	}
	for start := range waitsFor {
		var links []string
		m := start
		for range crowdSessions {
			links = append(links, c.link(m, waitsFor[m]))
			if m = waitsFor[m]; m == nil || m == start {
				break
			}
		}
		if m == start {
			slices.Sort(links)
			cycles[strings.Join(links, ", ")] = true
		}
	}
	return cycles
}

func (c *crowd) link(m, holder *member) string {
	if holder == nil {
		return ""
	}
	_, _, name := c.place(m.key)
	return fmt.Sprintf("%d waits (%d) for %s of %d", m.session.id, m.session.request.serial, name, holder.session.id)
}

// name names a cycle as truth does.
func name(cycle []*waitEdge) string {
	var links []string
	for _, e := range cycle {
		links = append(links, fmt.Sprintf("%d waits (%d) for %s of %d", e.waiter, e.serial, e.key, e.holder))
	}
	slices.Sort(links)
	return strings.Join(links, ", ")
}

// look looks at the tables one after another, a suspect or two at a time, while the sessions go on.
func (c *crowd) look(t *rapid.T) waitGraph {
	g := make(waitGraph)
	for _, i := range rapid.Permutation([]int{0, 1, 2}).Draw(t, "order") {
		var s sweep
		for more := true; more; {
			more = s.step(c.shards[i], rapid.IntRange(1, 2).Draw(t, "suspects"))
			c.disturb(t, 2)
		}
		for _, e := range s.edges {
			g[e.waiter] = e
		}
	}
	return g
}

func (c *crowd) disturb(t *rapid.T, most int) {
	for range rapid.IntRange(0, most).Draw(t, "actions") {
		c.act(t)
	}
}

// What both looks find was true between them, and what was true all along both looks find.
func TestTwoLooks(t *testing.T) {
	var confirmed, refuted, phantoms, stood int
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd()
		for range rapid.IntRange(0, 20).Draw(t, "before") {
			c.act(t)
		}
		for range 10 {
			before := c.truth()
			first := c.look(t)
			c.disturb(t, 1)
			between := c.truth()
			c.disturb(t, 1)
			second := c.look(t)
			after := c.truth()
			believed := make(map[string]bool)
			for _, cycle := range first.cycles() {
				if !between[name(cycle)] {
					phantoms++
				}
				if !second.confirms(cycle) {
					refuted++
					continue
				}
				confirmed++
				believed[name(cycle)] = true
				if !between[name(cycle)] {
					t.Fatalf("believed: %s\nbut there were only: %q", name(cycle), slices.Sorted(maps.Keys(between)))
				}
			}
			for cycle := range before {
				if after[cycle] {
					stood++
					if !believed[cycle] {
						t.Fatalf("missed: %s\nbelieved only: %q", cycle, slices.Sorted(maps.Keys(believed)))
					}
				}
			}
			c.act(t)
		}
	})
	t.Logf("%d cycles confirmed, %d refuted; %d seen by one look were not true; %d stood all along", confirmed, refuted, phantoms, stood)
	if confirmed == 0 || stood == 0 {
		t.Error("nothing was tested")
	}
}

// graph makes a graph of waits "waiter>holder", of which each began after those before it.
func graph(waits ...string) waitGraph {
	g := make(waitGraph)
	for i, wait := range waits {
		e := &waitEdge{since: time.Duration(i)}
		if _, err := fmt.Sscanf(wait, "%d>%d", &e.waiter, &e.holder); err != nil {
			panic(err)
		}
		g[e.waiter] = e
	}
	return g
}

func TestCycles(t *testing.T) {
	for _, test := range []struct {
		story string
		waits []string
		want  []string // waiters, the youngest last
	}{
		{"nobody waits", nil, nil},
		{"a chain ends at one who does not wait", []string{"1>2", "2>3", "3>4"}, nil},
		{"many wait for one", []string{"1>9", "2>9", "3>9", "4>3"}, nil},
		{"two wait for each other", []string{"1>2", "2>1"}, []string{"1 2"}},
		{"the youngest need not have the highest number", []string{"2>1", "1>2"}, []string{"2 1"}},
		{"three, closed by the one in the middle", []string{"3>1", "1>2", "2>3"}, []string{"3 1 2"}},
		{"three, the other way round", []string{"1>3", "2>1", "3>2"}, []string{"2 1 3"}},
		{"the tail is no part of it, though younger", []string{"1>2", "2>1", "3>1", "4>3", "5>3"}, []string{"1 2"}},
		{"several, with tails, and a chain", []string{
			"1>2", "2>1", "11>12", "12>13", "13>11", "21>1", "22>12", "23>22", "31>32", "32>33", "42>41", "41>42",
		}, []string{"1 2", "11 12 13", "42 41"}},
		{"a large one", []string{"1>2", "2>3", "3>4", "4>5", "5>6", "6>7", "8>1", "7>8"}, []string{"8 1 2 3 4 5 6 7"}},
	} {
		for range 20 { // the order in which a map is walked is another each time
			var got []string
			for _, cycle := range graph(test.waits...).cycles() {
				var waiters []string
				for i, e := range cycle {
					waiters = append(waiters, fmt.Sprint(e.waiter))
					if next := cycle[(i+1)%len(cycle)]; e.holder != next.waiter {
						t.Errorf("%s: %d waits for %d, and %d is next", test.story, e.waiter, e.holder, next.waiter)
					}
				}
				got = append(got, strings.Join(waiters, " "))
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("%s: got %q, want %q", test.story, got, test.want)
			}
		}
	}
}

// Of waits that began at the same time, that of the younger connection is the youngest.
func TestYoungestOfEquals(t *testing.T) {
	g := graph("3>1", "1>2", "2>3")
	for _, e := range g {
		e.since = 7
	}
	if cycle := g.cycles()[0]; cycle[2].waiter != 3 {
		t.Errorf("the youngest is %d, want 3", cycle[2].waiter)
	}
}

func TestConfirms(t *testing.T) {
	waits := []string{"1>2", "2>3", "3>1", "4>1"}
	cycle := graph(waits...).cycles()[0]
	if !graph(waits...).confirms(cycle) {
		t.Error("the same waits do not confirm")
	}
	for story, change := range map[string]func(g waitGraph){
		"a wait is over":         func(g waitGraph) { delete(g, 2) },
		"it is another wait":     func(g waitGraph) { g[3].serial++ },
		"it is another grant":    func(g waitGraph) { g[1].grant++ },
		"somebody else holds it": func(g waitGraph) { g[3].holder = 4 },
		"it is another loop's":   func(g waitGraph) { g[2].shard++ },
	} {
		again := graph(waits...)
		change(again)
		if again.confirms(cycle) {
			t.Errorf("%s, and the cycle is confirmed", story)
		}
	}
	again := graph(waits...)
	delete(again, 4)
	if !again.confirms(cycle) {
		t.Error("a wait behind the cycle is over, and the cycle is not confirmed")
	}
}
