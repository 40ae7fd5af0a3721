package server

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dreadlock/proto"
	"dreadlock/server/api"
)

var updateEstate = flag.Bool("update-estate", false, "write the estate of this version to testdata")

// estateStory is a server with one of everything that is handed over: estateOf makes it, and check says what must become of it. It is
// the same for each version, so that an estate of any can be checked.
type estateStory struct {
	*sim
	t testing.TB
}

// What is in the story.
const (
	storyDelay = 10 * time.Second
	storyIdle  = time.Minute
	storyBegin = 30 * time.Second // when most of it happens
)

// newStory returns a server on which the story has happened.
func newStory(t testing.TB) *estateStory {
	s := newSimOf(moveAfter, storyOptions)
	st := &estateStory{s, t}
	s.pass(storyBegin)
	s.settle()
	st.begin()
	s.settle()
	st.detect()
	s.pass(time.Second)
	s.connect("silent", 1)
	s.hold()
	half := st.client("half-closed")
	half.send("lock delta 0\r\nunlock delta\r\n")
	half.closeWrite()
	return st
}

func storyOptions(cfg *Config) {
	cfg.Loops, cfg.LockDelay, cfg.IdleTimeout, cfg.MaxOutput = 2, storyDelay, storyIdle, 20
}

// begin connects the clients, in the order of their numbers.
func (st *estateStory) begin() {
	for i, name := range []string{
		"holder", "waiter", "hasty", "half a command", "half-closed", "deaf", "encrypted", "behind it", "kicked", "after it", "left", "right",
		"second",
	} {
		st.connect(name, i%2)
	}
	long := strings.Repeat("x", 300)
	st.say("holder", "name ann\r\nowner team\r\nlock alpha 0\r\nlock beta 0\r\nlock "+long+" 0\r\n")
	st.say("second", "owner team\r\nowner other\r\nowner team\r\n")
	st.say("waiter", "lock alpha 60000\r\nunlock alpha\r\nfence be")
	st.say("hasty", "lock alpha 5000\r\n")
	st.say("half a command", "lock   gam")
	st.say("half-closed", "name half\r\n")
	deaf := st.client("deaf")
	deaf.send("name deaf\r\n")
	deaf.deaf = true
	deaf.send(strings.Repeat("unlock nothing\r\n", 4))
	st.client("encrypted").encrypted = true
	st.say("encrypted", "lock epsilon 0\r\n")
	st.say("behind it", "lock epsilon 600000\r\n")
	st.say("kicked", "lock zeta 0\r\n")
	st.say("after it", "lock zeta 600000\r\n")
	st.client("kicked").kick()
	st.say("left", "lock eta 0\r\n")
	st.say("right", "lock theta 0\r\n")
	st.say("left", "lock theta 600000\r\n")
	st.say("right", "lock eta 600000\r\n")
}

// say has a client send something, and everything settle.
func (st *estateStory) say(client, text string) {
	st.client(client).send(text)
	st.settle()
}

// client returns a client, by the number that it has by its place in the story.
func (st *estateStory) client(name string) *simClient {
	numbers := map[string]api.ConnectionID{
		"holder": 1, "waiter": 2, "hasty": 3, "half a command": 4, "half-closed": 5, "deaf": 6, "encrypted": 7, "behind it": 8, "kicked": 9,
		"after it": 10, "left": 11, "right": 12, "second": 13, "silent": 14,
	}
	i := slices.IndexFunc(st.clients, func(c *simClient) bool { return c.session.id() == numbers[name] })
	if i < 0 {
		st.t.Fatalf("%s is not there", name)
	}
	return st.clients[i]
}

// detect has the detector find what it can.
func (st *estateStory) detect() {
	waits := make(waitGraph)
	for _, l := range st.loops {
		var look sweep
		l.turn(func() { look.step(l.worker.shard, 1000) })
		for _, e := range look.edges {
			waits.add(e)
		}
	}
	st.server.detector.review(waits.cycles(), waits)
}

// heard checks what clients have been told, the last of it at the end, and nobody else anything.
func (st *estateStory) heard(want map[string]string) {
	st.t.Helper()
	st.settle()
	got := make(map[api.ConnectionID]string)
	for _, e := range st.events {
		got[e.client.session.id()] += e.line + ";"
	}
	st.events = nil
	for name, lines := range want {
		id := st.client(name).session.id()
		if got[id] != lines {
			st.t.Errorf("%s was told %q, want %q", name, got[id], lines)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		st.t.Errorf("others were told %v", got)
	}
}

// check checks what has become of the story, and goes on with it.
func (st *estateStory) check() {
	t := st.t
	t.Helper()
	if err := st.sim.check(); err != nil {
		t.Fatal(err)
	}
	st.checkNumbers()
	st.checkIdentities()
	st.heard(map[string]string{"half-closed": "l locked;u unlocked;;"})
	st.say("half a command", "ma 0\r\n")
	st.heard(map[string]string{"half a command": "l locked;"})
	st.client("deaf").hear()
	st.heard(map[string]string{"deaf": strings.Repeat("e not locked;", 4)})
	if standing, found := st.server.detector.known(); found != 1 || len(standing) != 1 || standing[0].number != 1 || len(standing[0].waits) != 2 {
		t.Errorf("deadlocks: %v of %d", standing, found)
	}
	st.detect()
	if standing, found := st.server.detector.known(); found != 1 || len(standing) != 1 {
		t.Errorf("the detector takes a deadlock for a new one: %v of %d", standing, found)
	}
	st.checkTimes()
}

// checkNumbers checks what is counted.
func (st *estateStory) checkNumbers() {
	t := st.t
	t.Helper()
	var sum counters
	keys, resting, waiters := 0, 0, 0
	for _, l := range st.loops {
		sum.add(&l.worker.counters)
		table := l.worker.shard.table
		keys += table.Keys()
		resting += table.Resting()
		waiters += table.Waiters()
	}
	if keys != 6 || resting != 1 || waiters != 6 {
		t.Errorf("%d keys are held, %d rest, %d waiters; want 6, 1 and 6", keys, resting, waiters)
	}
	if sum.accepted != 14 || sum.disconnects[kicked] != 1 || sum.commands[proto.Lock][proto.Locked] != 7 ||
		sum.commands[proto.Name][proto.Named] != 3 || sum.commands[proto.Unlock][proto.NotLocked] < 2 {
		t.Errorf("the counters are %+v", sum)
	}
	if got := st.server.lastID.Load(); got != 14 {
		t.Errorf("the last connection had the number %d, want 14", got)
	}
	if got := st.server.lockSpace(); got != 0xabc {
		t.Errorf("the lock space is %x, want abc", got)
	}
	if got := st.server.connections.Load(); got != 13 {
		t.Errorf("%d connections, want 13", got)
	}
}

// checkIdentities checks what is known about clients.
func (st *estateStory) checkIdentities() {
	t := st.t
	t.Helper()
	holder, second := st.client("holder").session, st.client("second").session
	if p := holder.peer(); p.Name != "ann" || p.Owner != "team" || p.Address != simAddress.String() {
		t.Errorf("the holder is %+v", p)
	}
	if p := second.party(); p.owner != "team" || p.changes != 3 {
		t.Errorf("the second of the team is %+v", p)
	}
	hash := st.server.seed.Hash([]byte("zeta"))
	h := st.loops[st.server.shardOf(hash)].worker.shard.table.Find(hash, []byte("zeta"))
	who := holderOf(h)
	if !h.Closed || h.Until != storyBegin+storyDelay || who.ending() != kicked || who.peer().Connection != 9 || who.known().about.kick.by != "a test" {
		t.Errorf("zeta is %+v, of %+v", h, who.peer())
	}
}

// checkTimes checks what happens later. The time of the story is a second after its begin.
func (st *estateStory) checkTimes() {
	const now = time.Second
	st.pass(5*time.Second - now - simTick)
	st.heard(nil)
	st.pass(simTick) // 5 s
	st.heard(map[string]string{"hasty": "t timeout;"})
	st.say("holder", "unlock alpha\r\n")
	st.heard(map[string]string{"holder": "u unlocked;", "waiter": "l locked;u unlocked;"})
	st.say("waiter", "ta\r\n")
	st.heard(map[string]string{"waiter": "e not owner;"})
	st.pass(5*time.Second - simTick)
	st.heard(nil)
	st.pass(simTick) // 10 s
	st.heard(map[string]string{"after it": "l locked;"})
	st.endAbsent()
	st.heard(map[string]string{"encrypted": ";"})
	st.pass(storyDelay - simTick)
	st.heard(nil)
	st.pass(simTick) // 20 s
	st.heard(map[string]string{"behind it": "l locked;"})
	st.pass(storyIdle - 20*time.Second + now - simTick)
	st.heard(nil)
	st.pass(simTick) // the last one came a second after the begin
	st.heard(map[string]string{"silent": ";"})
	if err := st.checkQuiet(); err != nil {
		st.t.Error(err)
	}
}

// leave returns the estate of the story.
func (st *estateStory) leave() []byte {
	file, _, err := st.estate()
	if err != nil {
		st.t.Fatal(err)
	}
	return file
}

// TestEstateStory hands the story over, to as many loops and to others.
func TestEstateStory(t *testing.T) {
	for loops := 1; loops <= 4; loops++ {
		t.Run(fmt.Sprint("loops=", loops), func(t *testing.T) {
			st := newStory(t)
			cfg := st.server.cfg
			cfg.Loops = loops
			if err := st.takeOver(cfg, func() { st.events = nil }); err != nil {
				t.Fatal(err)
			}
			st.check()
		})
	}
}

// TestEstateNotTaken goes on with the story on the server that it has happened on, after a takeover has failed.
func TestEstateNotTaken(t *testing.T) {
	st := newStory(t)
	st.leave()
	st.events = nil
	st.goOn()
	st.client("encrypted").absent = true // as far as the rest of the story goes
	st.client("encrypted").session.conn = absent{}
	st.check()
}

// TestEstateOfOtherVersions reads what each version has left, from the first one on. An estate of this version is written by
// -update-estate, once, when its format is new.
func TestEstateOfOtherVersions(t *testing.T) {
	if *updateEstate {
		name := filepath.Join("testdata", fmt.Sprintf("estate-v%d.gob", estateFormat))
		if err := os.WriteFile(name, newStory(t).leave(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join("testdata", "estate-v*.gob"))
	if err != nil || len(files) != estateFormat {
		t.Fatalf("there are estates in %q, %v: want one for each format", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			st, err := inheritFile(t, name)
			if err != nil {
				t.Fatal(err)
			}
			st.check()
		})
	}
}

// inheritFile returns a server that goes on with the estate in a file.
func inheritFile(t testing.TB, name string) (*estateStory, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := newHeirSim(newStoryConfig())
	s.now, s.budget = storyBegin+time.Second, 1000
	_, err = s.inherit(file, nil)
	for _, l := range s.loops {
		l.turn(func() {})
	}
	return &estateStory{s, t}, err
}

func newStoryConfig() Config {
	cfg := newSimConfig()
	storyOptions(&cfg)
	return cfg
}

// TestBrokenEstate changes and cuts an estate.
func TestBrokenEstate(t *testing.T) {
	file := newStory(t).leave()
	for n := range file {
		if _, _, err := readEstate(file[:n]); !errors.Is(err, errEstate) {
			t.Fatalf("the first %d bytes of %d are read: %v", n, len(file), err)
		}
		changed := slices.Clone(file)
		changed[n] ^= 1 << (n % 8)
		if _, _, err := readEstate(changed); err == nil {
			t.Fatalf("an estate is read whose byte %d has changed", n)
		}
	}
	if _, _, err := readEstate(append(slices.Clone(file), 0)); !errors.Is(err, errEstate) {
		t.Errorf("an estate with one more byte is read: %v", err)
	}
	file[11]++
	if _, _, err := readEstate(file); err == nil || !strings.Contains(err.Error(), "format 2, and this version reads 1 at most") {
		t.Errorf("an estate of a format to come: %v", err)
	}
}

// The loops may go on while the estate is put together, since they have been waited for too long: it is of no use then, but touches nothing
// of theirs.
func TestEstateOfLoopsThatGoOn(t *testing.T) {
	d := startDaemon(t, nil)
	h := &handover{Server: d.server}
	var err error
	if h.standstill, err = d.server.reactor.StandStill(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if h.loops, err = h.leaveLoops(); err != nil {
		t.Fatal(err)
	}
	h.standstill.Release()
	client := d.dial()
	for range 100 {
		client.Send("unlock nobodys")
		if e := h.newEstate(h.loops, nil); e.At <= 0 {
			t.Fatalf("it is of %s", e.At)
		}
		client.Expect("e not locked")
	}
}
