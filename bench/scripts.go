package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// holdTimeout is the timeout of locks that must be granted. It is longer than any reply may take.
	holdTimeout = 60 * time.Second
	// mixedTimeout is the timeout of locks of shared keys in Mixed, which may time out.
	mixedTimeout = 100 * time.Millisecond
	// holdEvery says how often a shared key is held for two more commands: after one in this number of grants. This shows that
	// nobody else gets the key meanwhile. It is rare enough not to shape the load.
	holdEvery = 64
	// choices is the length of a table of random choices. Connections walk through it from different positions.
	choices = 1 << 14
)

// The stages of a job.
const (
	locking uint8 = iota
	unlocking
	holding   // Contended, Mixed: locking the connection's own key while it holds a shared one
	releasing // and unlocking it
	trying    // Mixed: an exchange that is refused
)

// ownKey takes the place of the number of a shared key if the key is the connection's own.
const ownKey = -1

// keyPrefix returns a prefix for all keys of a run, so that runs on one server do not share keys.
func keyPrefix() string { return "b" + strconv.FormatUint(rand.Uint64(), 36) + "x" }

// ownKeys gives each connection the exchanges for a key of its own.
func ownKeys(d *Dialect, prefix string, conns []*conn) {
	for _, c := range conns {
		key := prefix + "own" + strconv.Itoa(c.id)
		c.lock, c.unlock = d.lock(key, holdTimeout).only(granted), d.unlock(key).only(0)
	}
}

// pairScript locks and unlocks a key of the connection's own.
type pairScript struct{}

func (pairScript) begin(c *conn, since int64) {
	c.stage = locking
	c.send(&c.lock, since)
}

func (pairScript) replied(c *conn, _ int, now int64) {
	c.loop.count(1, c.since, now)
	if c.stage == locking {
		c.stage = unlocking
		c.send(&c.unlock, now)
		return
	}
	c.loop.finished(c, now)
}

// pipelineScript sends many pairs in one write: conn.lock has all of them.
type pipelineScript struct{ commands int64 }

func (pipelineScript) begin(c *conn, since int64) { c.send(&c.lock, since) }

func (s pipelineScript) replied(c *conn, _ int, now int64) {
	c.loop.count(s.commands, c.since, now)
	c.loop.finished(c, now)
}

// sharedScript locks and unlocks keys that all connections share, and checks that each has one holder at a time.
type sharedScript struct {
	picks []int // numbers of keys, distributed as the workload says
	alone bool  // no other key is locked meanwhile
	keys  []sharedKey
}

// sharedKey is one of the keys that all connections share.
type sharedKey struct {
	lock, unlock exchange
	holder       atomic.Int64 // id of the connection that holds it, plus 1; 0 if none does
}

func newSharedScript(d *Dialect, prefix string, w *Workload, timeout time.Duration) *sharedScript {
	s := &sharedScript{picks: newPicks(w.Keys, w.Zipf), keys: make([]sharedKey, w.Keys)}
	for i := range s.keys {
		k := &s.keys[i]
		name := prefix + "shared" + strconv.Itoa(i)
		k.lock, k.unlock = d.lock(name, timeout), d.unlock(name).only(0)
		if timeout == holdTimeout {
			k.lock = k.lock.only(granted)
		}
	}
	return s
}

// newPicks returns a table of random numbers below n, equally likely or by Zipf's law.
func newPicks(n int, exponent float64) []int {
	random := rand.New(rand.NewPCG(uint64(n), 1)) // the same for every server
	pick := func() int { return random.IntN(n) }
	if exponent > 1 {
		zipf := rand.NewZipf(random, exponent, 1, uint64(n-1))
		pick = func() int { return int(zipf.Uint64()) }
	}
	picks := make([]int, choices)
	for i := range picks {
		picks[i] = pick()
	}
	return picks
}

func (s *sharedScript) begin(c *conn, since int64) {
	c.cursor = (c.cursor + 1) % choices
	c.key = s.picks[c.cursor]
	c.stage = locking
	c.send(&s.keys[c.key].lock, since)
}

func (s *sharedScript) replied(c *conn, outcome int, now int64) {
	c.loop.count(1, c.since, now)
	key := &s.keys[c.key]
	switch {
	case c.stage == locking && outcome == granted:
		if !key.take(c) {
			return
		}
		switch {
		case s.alone:
			key.giveUpLater(c, now)
		case c.cursor%holdEvery == 0:
			c.stage = holding
			c.send(&c.lock, now)
		default:
			key.giveUp(c, now)
		}
	case c.stage == holding:
		c.stage = releasing
		c.send(&c.unlock, now)
	case c.stage == releasing:
		key.giveUp(c, now)
	default:
		c.loop.finished(c, now)
	}
}

// groupScript locks and unlocks one of the shared keys, the same all the time, and checks that it has one holder.
type groupScript struct{ keys []sharedKey }

// newGroupScript gives each connection its key. Those of a group have consecutive numbers.
func newGroupScript(s *sharedScript, conns []*conn) groupScript {
	for i, c := range conns {
		c.key = i * len(s.keys) / len(conns)
	}
	return groupScript{keys: s.keys}
}

func (s groupScript) begin(c *conn, since int64) {
	c.cursor = (c.cursor + 1) % choices
	c.stage = locking
	c.send(&s.keys[c.key].lock, since)
}

func (s groupScript) replied(c *conn, _ int, now int64) {
	c.loop.count(1, c.since, now)
	key := &s.keys[c.key]
	switch {
	case c.stage == unlocking:
		c.loop.finished(c, now)
	case key.take(c):
		key.giveUpLater(c, now)
	}
}

// freshScript locks and unlocks a key that has not been used before: the connection's own, with a number that counts its jobs.
type freshScript struct{ pairScript }

// freshDigits is what the number begins with. Nothing else in a request or a reply looks like it.
const freshDigits = "0000000000"

// freshKeys gives each connection the exchanges for its first key, and where the number of the key stands in them.
func freshKeys(d *Dialect, prefix string, conns []*conn) {
	for _, c := range conns {
		key := prefix + "fresh" + strconv.Itoa(c.id) + "n" + freshDigits
		c.lock, c.unlock = d.lock(key, holdTimeout).only(granted), d.unlock(key).only(0)
		for _, text := range [][]byte{c.lock.request, c.lock.accept[0], c.unlock.request, c.unlock.accept[0]} {
			if i := bytes.Index(text, []byte(freshDigits)); i >= 0 {
				c.digits = append(c.digits, text[i:i+len(freshDigits)])
			}
		}
	}
}

func (s freshScript) begin(c *conn, since int64) {
	for _, number := range c.digits {
		increment(number)
	}
	s.pairScript.begin(c, since)
}

// increment adds one to a decimal number.
func increment(number []byte) {
	for i := len(number) - 1; i >= 0; i-- {
		if number[i] < '9' {
			number[i]++
			return
		}
		number[i] = '0'
	}
}

// giveUp unlocks the key.
func (k *sharedKey) giveUp(c *conn, now int64) {
	k.holder.Store(0) // before the request is sent, so that the next holder comes later
	c.stage = unlocking
	c.send(&k.unlock, now)
}

// giveUpLater unlocks the key. Now and then it does so when the replies have been taken that arrived with this one, which shows that nobody
// else gets the key meanwhile.
func (k *sharedKey) giveUpLater(c *conn, now int64) {
	if c.cursor%holdEvery == 0 {
		c.loop.do(func() { k.giveUp(c, c.loop.gen.now()) })
		return
	}
	k.giveUp(c, now)
}

// take notes that the connection holds the key. It fails the run if another connection does.
func (k *sharedKey) take(c *conn) bool {
	if k.holder.CompareAndSwap(0, int64(c.id)+1) {
		return true
	}
	c.loop.gen.fail(&Violation{
		Connection: c.id,
		What:       fmt.Sprintf("it got a key that connection %d holds", k.holder.Load()-1),
		Sent:       string(k.lock.request),
		Came:       string(k.lock.accept[granted]),
	})
	return false
}

// mixedScript mixes jobs: of ten, six lock and unlock the connection's own key, three a shared key with a timeout that is
// short enough to expire, and one is refused in one of three ways.
type mixedScript struct {
	shared *sharedScript
	rolls  []int
	// Refused are a lock of a held key with timeout 0, its unlock, and the unlock of a key that nobody holds.
	refusals [3]exchange
}

func newMixedScript(d *Dialect, prefix string, w *Workload) *mixedScript {
	held, nobodys := prefix+"held", prefix+"nobodys"
	return &mixedScript{
		shared: newSharedScript(d, prefix, w, mixedTimeout),
		rolls:  newPicks(30, 0),
		refusals: [3]exchange{
			d.lock(held, 0).only(refused),
			d.unlock(held).only(notOwner),
			d.unlock(nobodys).only(notLocked),
		},
	}
}

func (s *mixedScript) begin(c *conn, since int64) {
	c.cursor = (c.cursor + 1) % choices
	switch roll := s.rolls[c.cursor]; {
	case roll < 18:
		c.key = ownKey
		c.stage = locking
		c.send(&c.lock, since)
	case roll < 27:
		s.shared.begin(c, since)
	default:
		c.stage = trying
		c.send(&s.refusals[roll-27], since)
	}
}

func (s *mixedScript) replied(c *conn, outcome int, now int64) {
	switch {
	case c.stage == trying:
		c.loop.count(1, c.since, now)
		c.loop.finished(c, now)
	case c.key == ownKey:
		pairScript{}.replied(c, outcome, now)
	default:
		s.shared.replied(c, outcome, now)
	}
}

// holdScript sends conn.lock and ends its job with the reply.
type holdScript struct{}

func (holdScript) begin(c *conn, since int64) { c.send(&c.lock, since) }

func (holdScript) replied(c *conn, _ int, now int64) {
	c.loop.count(1, c.since, now)
	c.loop.finished(c, now)
}
