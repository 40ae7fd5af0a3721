package server

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
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
	grants   [crowdKeys]uint64    // of each key so far
	owners   int                  // to whom sessions may belong
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

func newCrowd(owners int) *crowd {
	c := &crowd{owners: owners}
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
	m.session.identity.Store(&identity{connection: c.lastID})
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
	case c.owners > 0 && rapid.IntRange(0, 5).Draw(t, "owner") == 4:
		m.session.setOwner(fmt.Sprintf("owner%d", rapid.IntRange(1, c.owners).Draw(t, "which")))
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
		c.give(m, key)
	case lockmgr.Queued: // as in shard.beginWait
		r.serial++
		if len(c.held(m)) > 0 || m.session.owned() {
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
		c.queue[key] = q[1:]
		c.give(q[0], key)
	}
}

// give makes a session the holder, in the model.
func (c *crowd) give(m *member, key int) {
	c.holder[key] = m
	c.grants[key]++
}

// leave takes a session out of its queue, as in shard.Expire.
func (c *crowd) leave(m *member) {
	sh, _, _ := c.place(m.key)
	if !sh.table.Cancel(&m.session.request.waiter) {
		return
	}
	sh.clear(&m.session.request, false)
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
		sh.clear(r, true)
		for _, m := range c.sessions {
			if &m.session == r.session {
				m.waits = false
			}
		}
	}
}

// truth returns all waits that there are at this moment, by what identifies them.
func (c *crowd) truth() map[string]*waitEdge {
	waits := make(map[string]*waitEdge)
	for key, queue := range c.queue {
		sh, _, name := c.place(key)
		for _, m := range queue {
			e := &waitEdge{
				waiter: m.session.party(), serial: m.session.request.serial, holder: c.holder[key].session.party(),
				grant: c.grants[key], shard: sh.index, key: string(name), since: m.session.request.waiter.Since(),
			}
			waits[spell(e)] = e
		}
	}
	return waits
}

// spell returns all that identifies a wait, but for the grant: the truth counts the grants of each key from 1.
func spell(e *waitEdge) string {
	return fmt.Sprintf("%+v waits (%d) for %s of %+v", e.waiter, e.serial, e.key, e.holder)
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
			g.add(e)
		}
	}
	return g
}

func (c *crowd) disturb(t *rapid.T, most int) {
	for range rapid.IntRange(0, most).Draw(t, "actions") {
		c.act(t)
	}
}

// closed returns the names of the waits that are the youngest of a cycle: from their holders there is a way back to their
// waiters by older waits.
func closed(waits []*waitEdge) map[waitName]bool {
	names := make(map[waitName]bool)
	for _, e := range waits {
		reached := map[node]bool{e.holder.node(): true}
		for grown := true; grown; {
			grown = false
			for _, o := range waits {
				if o.byAge(e) < 0 && reached[o.waiter.node()] && !reached[o.holder.node()] {
					reached[o.holder.node()], grown = true, true
				}
			}
		}
		if reached[e.waiter.node()] {
			names[e.id()] = true
		}
	}
	return names
}

// checkCycle checks that each wait of a cycle is for the next one, and that the last one is the youngest.
func checkCycle(t interface{ Fatalf(string, ...any) }, cycle []*waitEdge) {
	last := cycle[len(cycle)-1]
	for i, e := range cycle {
		if next := cycle[(i+1)%len(cycle)]; e.holder.node() != next.waiter.node() {
			t.Fatalf("%s, and next is %s", spell(e), spell(next))
		}
		if e.byAge(last) > 0 {
			t.Fatalf("%s is younger than the last", spell(e))
		}
	}
}

// What both looks find was true between them, and what was true all along both looks find. So it is for connections that
// belong to nobody, and for some of which several belong to one owner.
func TestTwoLooks(t *testing.T) {
	for _, owners := range []int{0, 2} {
		t.Run(fmt.Sprintf("owners=%d", owners), func(t *testing.T) { testTwoLooks(t, owners) })
	}
}

func testTwoLooks(t *testing.T, owners int) {
	var confirmed, refuted, phantoms, stood, several, own int
	rapid.Check(t, func(t *rapid.T) {
		c := newCrowd(owners)
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
			for _, cycle := range first.cycles() {
				if !allTrue(cycle, between) {
					phantoms++
				}
				if !second.has(cycle) {
					refuted++
				}
			}
			believed := make(map[waitName]bool)
			for _, cycle := range first.and(second).cycles() {
				checkCycle(t, cycle)
				if !allTrue(cycle, between) {
					t.Fatalf("believed: %v\nbut there were only: %q", spellAll(cycle), slices.Sorted(maps.Keys(between)))
				}
				confirmed++
				believed[cycle[len(cycle)-1].id()] = true
				if len(cycle) == 1 {
					own++
				}
			}
			var lasting []*waitEdge
			for what, e := range before {
				if a := after[what]; a != nil && a.grant == e.grant {
					lasting = append(lasting, e)
				}
			}
			names := closed(lasting)
			for name := range names {
				stood++
				if !believed[name] {
					t.Fatalf("missed: the cycle of %+v\namong %v", name, spellAll(lasting))
				}
			}
			if len(names) > 1 {
				several++
			}
			c.act(t)
		}
	})
	t.Logf("%d cycles confirmed, %d refuted; %d seen by one look were not true; %d stood all along, %d times several; %d of one wait",
		confirmed, refuted, phantoms, stood, several, own)
	if confirmed == 0 || stood == 0 || (own > 0) != (owners > 0) {
		t.Error("nothing was tested, or not what should be")
	}
}

func allTrue(cycle []*waitEdge, truth map[string]*waitEdge) bool {
	return !slices.ContainsFunc(cycle, func(e *waitEdge) bool { return truth[spell(e)] == nil })
}

func spellAll(waits []*waitEdge) (all []string) {
	for _, e := range waits {
		all = append(all, spell(e))
	}
	return all
}

// graph makes a graph of waits "waiter>holder", of which each began after those before it. A connection may have an owner:
// "3x" is one of x.
func graph(waits ...string) waitGraph {
	g := make(waitGraph)
	for i, wait := range waits {
		waiter, holder, _ := strings.Cut(wait, ">")
		e := &waitEdge{since: time.Duration(i), waiter: parseParty(waiter), holder: parseParty(holder)}
		g.add(e)
	}
	return g
}

func parseParty(text string) (p party) {
	number := strings.TrimRight(text, "xyz")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		panic(err)
	}
	return party{connection: api.ConnectionID(n), owner: text[len(number):]}
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
		{"an owner waits for itself", []string{"1x>2x"}, []string{"1"}},
		{"two of different owners do not", []string{"1x>2y", "1>2"}, nil},
		{"one waits, and holds on another connection", []string{"1x>2", "2>3x"}, []string{"1 2"}},
		{"the same without an owner", []string{"1>2", "2>3"}, nil},
		{"one of its waits is enough", []string{"1x>9", "2x>5", "5>3x", "4x>8"}, []string{"2 5"}},
		{"two waits of an owner, each part of a cycle", []string{"1x>5", "2x>6", "5>3x", "6>3x"}, []string{"1 5", "2 6"}},
		{"two waits for the same, closed by one", []string{"1x>5", "2x>5", "5>3x"}, []string{"1 5"}},
		{"two cycles through one wait", []string{"1>2x", "3x>1", "4x>1"}, []string{"1 3", "1 4"}},
		{"the short way", []string{"1x>2", "2>3", "3>4y", "1x>5y", "6y>7x"}, []string{"1 6"}},
		{"owners of each other", []string{"1x>2y", "3y>4x", "5z>1x"}, []string{"1 3"}},
		{"a large one", []string{"1>2", "2>3", "3>4", "4>5", "5>6", "6>7", "8>1", "7>8"}, []string{"8 1 2 3 4 5 6 7"}},
	} {
		for range 20 { // the order in which a map is walked is another each time
			var got []string
			for _, cycle := range graph(test.waits...).cycles() {
				var waiters []string
				checkCycle(t, cycle)
				for _, e := range cycle {
					waiters = append(waiters, fmt.Sprint(e.waiter.connection))
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
	if cycle := g.cycles()[0]; cycle[2].waiter.connection != 3 {
		t.Errorf("the youngest is %+v, want 3", cycle[2].waiter)
	}
}

// Of any graph there is one cycle for each wait that is the youngest of one, whatever the order in which the waits come.
func TestCyclesOfAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		connections := rapid.IntRange(1, 8).Draw(t, "connections")
		owners := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "x", "y", "z"}), connections, connections).Draw(t, "owners")
		one := rapid.Custom(func(t *rapid.T) party {
			n := rapid.IntRange(1, connections).Draw(t, "connection")
			return party{connection: api.ConnectionID(n), owner: owners[n-1]}
		})
		g := make(waitGraph)
		var waits []*waitEdge
		for i := range rapid.IntRange(0, 20).Draw(t, "waits") {
			e := &waitEdge{waiter: one.Draw(t, "waiter"), holder: one.Draw(t, "holder"), serial: uint32(i)}
			e.since = time.Duration(rapid.IntRange(0, 10).Draw(t, "since"))
			g.add(e)
			waits = append(waits, e)
		}
		got := make(map[waitName]bool)
		var before *waitEdge
		for _, cycle := range g.cycles() {
			checkCycle(t, cycle)
			last := cycle[len(cycle)-1]
			if got[last.id()] || before != nil && before.byAge(last) > 0 {
				t.Fatalf("two cycles end with %s, or they are not in order", spell(last))
			}
			got[last.id()], before = true, last
		}
		if want := closed(waits); !maps.Equal(got, want) {
			t.Fatalf("got the cycles of %v, want %v", got, want)
		}
	})
}

// A great many waits, with and without cycles, are searched in no time: twenty thousand of them.
func BenchmarkCycles(b *testing.B) {
	const n = 20_000
	for name, wait := range map[string]func(i int) (waiter, holder int){
		"chain": func(i int) (int, int) { return i, i + 1 },
		"pairs": func(i int) (int, int) { return i, i ^ 1 },
		"ring":  func(i int) (int, int) { return i, (i + 1) % n },
		"crowd": func(i int) (int, int) { return i, i % 10 },
	} {
		g := make(waitGraph)
		for i := range n {
			w, h := wait(i)
			g.add(&waitEdge{
				waiter: party{connection: api.ConnectionID(w + 1)}, holder: party{connection: api.ConnectionID(h + 1)},
				since: time.Duration(i),
			})
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				g.cycles()
			}
		})
	}
}

// A cycle is confirmed by a look that finds all of its waits again, just as they were.
func TestConfirms(t *testing.T) {
	waits := []string{"1>2", "2>3", "3>1", "4>1"}
	cycle := graph(waits...).cycles()[0]
	if !graph(waits...).has(cycle) || len(graph(waits...).and(graph(waits...))) != len(waits) {
		t.Error("the same waits do not confirm")
	}
	id := func(n api.ConnectionID) waitName { return waitName{connection: n} }
	for story, change := range map[string]func(g waitGraph){
		"a wait is over":          func(g waitGraph) { delete(g, id(2)) },
		"it is another wait":      func(g waitGraph) { g[id(3)].serial++ },
		"it is another grant":     func(g waitGraph) { g[id(1)].grant++ },
		"somebody else holds it":  func(g waitGraph) { g[id(3)].holder.connection = 4 },
		"it is another loop's":    func(g waitGraph) { g[id(2)].shard++ },
		"the waiter has an owner": func(g waitGraph) { g[id(2)].waiter.owner = "x" },
		"the holder had another":  func(g waitGraph) { g[id(2)].holder.changes += 2 },
	} {
		again := graph(waits...)
		change(again)
		if again.has(cycle) || len(graph(waits...).and(again).cycles()) > 0 {
			t.Errorf("%s, and the cycle is confirmed", story)
		}
	}
	again := graph(waits...)
	delete(again, id(4))
	if !again.has(cycle) || len(graph(waits...).and(again).cycles()) != 1 {
		t.Error("a wait outside the cycle is over, and the cycle is not confirmed")
	}
}
