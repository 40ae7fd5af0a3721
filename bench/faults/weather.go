package faults

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// weatherCases run clients over wires that treat packets badly.
func weatherCases() (all []*Case) {
	for _, w := range []struct {
		name, fault string
		weather     weather
	}{
		{"loss", "5 % of the packets are lost", weather{loss: 0.05}},
		{"delay", "packets take 20 to 60 ms", weather{delay: 20 * time.Millisecond, jitter: 40 * time.Millisecond}},
		{"reorder", "every fourth packet is overtaken", weather{reorder: 0.25}},
		{"duplicate", "every fifth packet arrives twice", weather{duplicate: 0.2}},
		{"storm", "all of these at once", weather{
			loss: 0.03, delay: time.Millisecond, jitter: 5 * time.Millisecond, reorder: 0.1, duplicate: 0.1,
		}},
	} {
		all = append(all, &Case{
			Name:    "packets-" + w.name,
			Fault:   w.fault,
			Promise: "exclusive, in order, one answer a command",
			run:     func(t *trial) string { return testWeather(t, w.weather) },
		})
	}
	return all
}

// testWeather has clients on two hosts compete over bad wires, and clients near the daemon.
func testWeather(t *trial, w weather) string {
	clients, length := 30, 6*time.Second
	if t.options.Long {
		clients, length = 60, 2*time.Minute
	}
	l := t.newLab(2, "--loops", "2", "--keepalive", "10s")
	for _, r := range l.remotes {
		r.wire.set(w)
	}
	c := l.compete(clients, length, []dialer{l.remotes[0].dial, l.remotes[1].dial, l.near}, 8)
	for _, r := range l.remotes {
		r.wire.set(weather{}) // so that all ends arrive
	}
	return c
}

// longWait is the timeout of a lock that must be granted.
const longWait = time.Minute

// compete has clients lock, wait for, time out on and unlock shared keys at random for a time. They come from several places.
// Some of them leave in the middle of it, in every way there is, and come again. It returns what was measured.
func (l *lab) compete(clients int, length time.Duration, from []dialer, keys int) string {
	l.competeFor(clients, length, from, keys, longWait)
	v := check(l.history)
	if v.pairs == 0 {
		l.t.violate("no two waiters competed whose order is known: the check of the order has checked nothing")
	}
	return fmt.Sprintf("%d commands, %d pairs in confirmed order", v.answered(), v.pairs)
}

// competeFor is compete without its figures. The longest of the waits last as long as longest.
func (l *lab) competeFor(clients int, length time.Duration, from []dialer, keys int, longest time.Duration) {
	end := time.Now().Add(length)
	l.t.parallel(clients, func(i int) {
		r := l.newRival(i, from[i%len(from)], keys, longest)
		for time.Now().Before(end) && !l.t.stopped() {
			if r.client == nil {
				r.client, r.held = l.dial(r.from), make([]bool, keys)
			}
			r.step()
		}
		if r.client != nil {
			r.client.close()
		}
	})
}

func (l *lab) newRival(i int, from dialer, keys int, longest time.Duration) *rival {
	rng := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
	return &rival{lab: l, from: from, rng: rng, keys: keys, longest: longest, limit: longest + patience, words: l.words}
}

// rival is a client that does at random what clients do. It takes keys in their order, so that no deadlock comes of it.
type rival struct {
	lab    *lab
	from   dialer
	rng    *rand.Rand
	client *client
	held   []bool // by key
	keys   int

	longest time.Duration // of its waits
	limit   time.Duration // within which an answer must come
	words   bool          // it uses the words that the original daemon does not have
	stays   bool          // it does not end its connection
}

func (r *rival) key(k int) string { return fmt.Sprintf("%srival%d", r.lab.prefix, k) }

// step does one thing.
func (r *rival) step() {
	k := r.rng.IntN(r.keys)
	key := r.key(k)
	switch n := r.rng.IntN(100); {
	case r.words && r.rng.IntN(6) == 0:
		r.client.send(r.word(key))
	case n < 2 && !r.stays:
		r.leave()
		return
	case n < 45 && r.held[k]:
		r.client.send(command(unlock, key, 0))
	case n < 60 && r.held[k]: // the first waiter goes first
		r.client.send(command(unlock, key, 0), command(lock, key, r.patience(k)))
	case n < 70:
		r.client.send(command(unlock, key, 0))
	default:
		timeout := r.patience(k)
		r.client.send(command(lock, key, timeout))
		if timeout == r.longest {
			r.client.confirm()
		}
	}
	for r.client.next < len(r.client.session.operations) {
		switch r.client.answerWithin(r.limit) {
		case locked:
			r.held[k] = true
		case unlocked:
			r.held[k] = false
		case "": // which the check of the history reports
			r.client.close()
			r.client = nil
			return
		}
	}
}

// word returns a command that the original daemon does not have.
func (r *rival) word(key string) operation {
	text := "rival" + strconv.Itoa(r.client.session.id)
	switch r.rng.IntN(4) {
	case 0:
		return command(name, text, 0)
	case 1:
		return command(owner, text, 0)
	}
	return command(fence, key, 0)
}

// patience returns a timeout: short, none, or so long that the key comes, for which no later key may be held.
func (r *rival) patience(k int) time.Duration {
	for _, held := range r.held[k:] {
		if held {
			return time.Duration(r.rng.IntN(20)) * time.Millisecond
		}
	}
	switch r.rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return time.Duration(r.rng.IntN(30)) * time.Millisecond
	}
	return r.longest
}

// leave ends the connection in one of the ways there are, sometimes with a command under way.
func (r *rival) leave() {
	if r.rng.IntN(2) == 0 {
		r.client.send(command(lock, r.key(r.rng.IntN(r.keys)), r.longest))
	}
	switch r.rng.IntN(3) {
	case 0:
		r.client.close()
	case 1:
		r.client.reset()
	case 2:
		r.client.closeWrite()
		r.client.answerWithin(r.limit)
		if !r.client.seesEndWithin(r.limit) {
			r.lab.t.violate("session %d: half-closed, and the daemon does not close", r.client.session.id)
		}
	}
	r.client = nil
}
