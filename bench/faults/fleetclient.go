package faults

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

const (
	fleetKeys = 6 // for which all clients compete
	longKeys  = 3 // of which each has a client at each daemon that keeps it for long
	// fleetWait is the longest wait.
	fleetWait = 3 * time.Second
	// fleetAnswer is how long after its time an answer may come: a daemon may be stopped meanwhile, or etcd be away.
	fleetAnswer = 45 * time.Second
)

// fleetClients say what clients there are.
type fleetClients struct {
	count  int
	length time.Duration // how long they go on
	think  time.Duration // the longest pause of a client from one step to the next; 0 for none
}

// longKey returns a key that clients keep for long.
func longKey(k int) string { return "long" + strconv.Itoa(k) }

// fleetKey returns a key for which all clients compete.
func fleetKey(k int) string { return "key" + strconv.Itoa(k) }

// compete has clients use the fleet for a time. Two in three stay with one daemon; the others go to the next when one ends the
// connection or cannot be reached. Beside them each daemon has one that takes a key of its own all the time, and there are those that keep
// a key for long, so that some daemon's client has it whatever happens, and others wait for it: where leases may end, for longer
// than these last.
func (f *fleet) compete(o fleetClients, seed uint64) {
	end := time.Now().Add(o.length)
	longest := 2 * time.Second
	if f.nodes[0].fallible {
		longest = 3 * f.ttl
	}
	f.t.parallel(o.count+fleetSize+longKeys*fleetSize, func(i int) {
		r := &fleetRival{
			f: f, rng: rand.New(rand.NewPCG(seed, uint64(i))), own: "own" + strconv.Itoa(i), at: i % fleetSize, switches: i/fleetSize%3 == 2,
		}
		for time.Now().Before(end) && !f.t.stopped() {
			if r.client == nil && !r.connect() {
				continue
			}
			switch k := i - o.count - fleetSize; {
			case k >= 0:
				r.hold(longKey(k/fleetSize), min(upTo(r.rng, longest), time.Until(end)), fleetWait)
				continue
			case i >= o.count:
				const most, think = 16, 10 * time.Millisecond
				r.burst(r.own, 1+r.rng.IntN(most))
				f.t.pause(upTo(r.rng, think))
				continue
			}
			r.step()
			if o.think > 0 {
				f.t.pause(upTo(r.rng, o.think))
			}
		}
		if r.client != nil {
			r.client.close()
		}
	})
}

// fleetRival is a client that does at random what clients do. It holds at most one key at a time.
type fleetRival struct {
	f        *fleet
	rng      *rand.Rand
	own      string // a key that is for this client alone
	at       int    // index of its daemon
	switches bool
	client   *client // nil if it is not connected
}

// connect connects to the daemon, or takes the next one, after a pause, if it cannot.
func (r *fleetRival) connect() bool {
	n := r.f.nodes[r.at]
	c, err := r.f.records.tryDial(n.dial)
	if err != nil {
		r.f.t.pause(20 * time.Millisecond)
		r.next()
		return false
	}
	c.session.node = n
	r.client = c
	return true
}

func (r *fleetRival) next() {
	if r.switches {
		r.at = (r.at + 1) % fleetSize
	}
}

// step does one thing.
func (r *fleetRival) step() {
	key := fleetKey(r.rng.IntN(fleetKeys))
	switch n := r.rng.IntN(100); {
	case n < 40: // mostly a key that nobody else wants
		r.burst(r.own, 1+r.rng.IntN(8))
	case n < 60:
		r.burst(key, 1+r.rng.IntN(3))
	case n < 65:
		r.client.send(command(unlock, key, 0))
		r.answers()
	case n < 68:
		r.leave(key)
	default:
		r.hold(key, upTo(r.rng, 15*time.Millisecond), r.patience())
	}
}

// burst locks and unlocks a key some times, in one write.
func (r *fleetRival) burst(key string, times int) {
	var commands []operation
	for range times {
		commands = append(commands, command(lock, key, r.patience()), command(fence, key, 0), command(unlock, key, 0))
	}
	r.client.send(commands...)
	r.answers()
}

// hold takes a key, writes to the resource while it has it, and gives it back.
func (r *fleetRival) hold(key string, length, timeout time.Duration) {
	r.client.send(command(lock, key, timeout))
	if timeout == fleetWait && r.rng.IntN(2) == 0 {
		r.f.t.pause(3 * time.Millisecond) // until its place has come, mostly
		r.client.confirmAt(r.client.session.node.process())
	}
	if r.answer() != locked {
		return
	}
	r.client.send(command(fence, key, 0))
	reply := r.answer()
	if kind(reply) != tokenIs {
		return
	}
	token, _ := strconv.ParseUint(reply[len(tokenIs)+1:], 10, 64) // the check of the history parses it as well
	r.f.use(r.client, key, token, length)
	if r.client.session.ended != never {
		r.lost()
		return
	}
	r.client.send(command(unlock, key, 0))
	r.answer()
}

// patience returns a timeout.
func (r *fleetRival) patience() time.Duration {
	switch r.rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return time.Duration(1+r.rng.IntN(50)) * time.Millisecond
	}
	return fleetWait
}

// leave ends the connection, with a command under way or with a key that is held.
func (r *fleetRival) leave(key string) {
	r.client.send(command(lock, key, r.patience()))
	if r.rng.IntN(2) == 0 && r.answer() == "" {
		return
	}
	if r.rng.IntN(2) == 0 {
		r.client.reset()
	} else {
		r.client.close()
	}
	r.lost()
}

// lost says that there is no connection any more.
func (r *fleetRival) lost() {
	r.client = nil
	r.next()
}

// answer reads an answer. It is empty if the connection has ended.
func (r *fleetRival) answer() string {
	reply := r.client.answerWithin(fleetWait + fleetAnswer)
	if reply == "" {
		r.client.close()
		r.lost()
	}
	return reply
}

// answers reads all answers that are due.
func (r *fleetRival) answers() {
	for r.client != nil && r.client.next < len(r.client.session.operations) {
		r.answer()
	}
}

// use writes to the resource again and again while a client holds a key, as it believes until it sees the end of its connection.
func (f *fleet) use(c *client, key string, token uint64, length time.Duration) {
	for end := time.Now().Add(length); ; {
		at := now()
		if !f.resource.write(key, token, c.session.id) {
			c.session.refused = append(c.session.refused, refusal{key, at})
		}
		c.look(2 * time.Millisecond)
		if c.session.ended != never || time.Now().After(end) {
			return
		}
	}
}

// look waits for the end of the connection, for as long as within. There must be no answer to come.
func (c *client) look(within time.Duration) {
	if err := c.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.end(err)
		return
	}
	at := now()
	switch text, err := c.in.ReadString('\n'); {
	case err == nil:
		c.lab.t.violate("session %d: it has asked nothing, and got %q", c.session.id, text)
	case errors.Is(err, os.ErrDeadlineExceeded) && text == "":
		c.session.alive = max(c.session.alive, at) // else there would have been its end to read
	default:
		c.end(err)
	}
}

// keyNames returns all keys that there are.
func (o *fleetClients) keyNames() (all []string) {
	for k := range fleetKeys {
		all = append(all, fleetKey(k))
	}
	for k := range longKeys {
		all = append(all, longKey(k))
	}
	for i := range o.count + fleetSize {
		all = append(all, "own"+strconv.Itoa(i))
	}
	return all
}
