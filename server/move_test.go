package server

import (
	"fmt"
	"testing"

	"dreadlock/proto"
	"dreadlock/proto/prototest"
)

// homes returns how many sessions each loop has.
func (d *daemon) homes() (homes []int64) {
	for _, sh := range d.server.shards {
		homes = append(homes, sh.roster.population.Load())
	}
	return homes
}

// awaitHome waits until the loop has so many sessions. What moves does so in its own time, and tells nobody.
func (d *daemon) awaitHome(loop int, sessions int64) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		if homes := d.homes(); homes[loop] != sessions {
			return fmt.Errorf("sessions by loop: %v, want %d on loop %d", homes, sessions, loop)
		}
		return nil
	})
}

// A client that uses keys of the other loop goes there, takes up its work and can come back.
func TestMove(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	c := d.dial()
	for range 3 {
		for loop, keys := range [][]string{d.keysOf(0, 2), d.keysOf(1, 2)} {
			for range 2 {
				c.Do("lock "+keys[0]+" 0", "l locked")
				c.Do("unlock "+keys[0], "u unlocked")
			}
			d.awaitHome(loop, 1)
			d.awaitHome(1-loop, 0)
			c.Do("lock "+keys[1]+" 0", "l locked")
			other := d.dial()
			other.Do("lock "+keys[1]+" 0", "t timeout")
			other.Close()
			c.Do("unlock "+keys[1], "u unlocked")
			d.awaitLeft(1)
		}
	}
	c.Close()
	d.awaitLeft(0)
}

// awaitLeft waits until only so many sessions are left.
func (d *daemon) awaitLeft(sessions int64) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		sum, homes := int64(0), d.homes()
		for _, n := range homes {
			sum += n
		}
		if all := d.server.connections.Load(); sum != sessions || all != sessions {
			return fmt.Errorf("sessions by loop: %v, in all %d, want %d", homes, all, sessions)
		}
		return nil
	})
}

// What a session sends while it moves is executed there.
func TestMoveWithPipeline(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	c := d.dial()
	keys := [][]string{d.keysOf(0, 1), d.keysOf(1, 1)}
	const rounds = 2000
	go func() {
		for i := range rounds {
			key := keys[i%2][0]
			c.Send("lock "+key+" 0", "unlock "+key)
		}
	}()
	for range rounds {
		c.Expect("l locked", "u unlocked")
	}
}

// Who holds a key stays, and so does who has to wait for one, or does not get it.
func TestMoveRefused(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	var a, b *prototest.Client // both on loop 0
	here, there := d.keysOf(0, 2), d.keysOf(1, 2)
	settle := func(c *prototest.Client) { // by a key that nobody wants
		for range 2 {
			c.Do("lock "+here[0]+" 0", "l locked")
			c.Do("unlock "+here[0], "u unlocked")
		}
	}
	a = d.dial()
	settle(a)
	d.awaitHome(0, 1)
	b = d.dial()
	settle(b)
	d.awaitHome(0, 2)

	a.Do("lock "+here[1]+" 0", "l locked")
	for range 20 {
		a.Do("lock "+there[0]+" 0", "l locked")
		b.Do("lock "+there[0]+" 0", "t timeout")
		b.Do("unlock "+there[0], "e not owner")
		a.Do("unlock "+there[0], "u unlocked")
	}
	for range 20 {
		a.Do("lock "+there[1]+" 0", "l locked")
		b.Send("lock " + there[1] + " 600000")
		a.Do("unlock "+there[1], "u unlocked")
		b.Expect("l locked")
		b.Send("unlock " + there[1])
		a.Do("lock "+there[1]+" 600000", "l locked")
		b.Expect("u unlocked")
		a.Do("unlock "+there[1], "u unlocked")
	}
	if homes := d.homes(); homes[0] < 1 {
		t.Errorf("sessions by loop: %v, and one of loop 0 holds a key there", homes)
	}
	a.Do("unlock "+here[1], "u unlocked")
	for range 2 {
		a.Do("lock "+there[0]+" 0", "l locked")
		a.Do("unlock "+there[0], "u unlocked")
	}
	eventually(t, func() error {
		if homes := d.homes(); homes[1] == 0 {
			return fmt.Errorf("sessions by loop: %v, and the one that holds nothing is drawn to loop 1", homes)
		}
		return nil
	})
}

// A loop that has its share of the sessions draws no others.
func TestMoveNotToCrowd(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Loops = 2 })
	const n = 60
	key := d.keysOf(1, 1)[0]
	for range n {
		c := d.dial()
		for range 3 {
			c.Do("lock "+key+" 0", "l locked")
			c.Do("unlock "+key, "u unlocked")
		}
	}
	// It may take in one more for each loop that looks at the same time, beside those that the kernel gave it.
	if homes := d.homes(); homes[0] == 0 {
		t.Errorf("all are on one loop: %v", homes)
	} else {
		t.Logf("sessions by loop: %v", homes)
	}
}

func TestAffinity(t *testing.T) {
	var af affinity
	for i, step := range []struct {
		loop   int
		answer proto.Reply
		waited bool
		want   int32
	}{
		{1, proto.Locked, false, 1},
		{1, proto.Unlocked, false, 2},
		{2, proto.Locked, false, 1},
		{2, proto.Token, false, 2},
		{2, proto.Unlocked, false, 3},
		{2, proto.Locked, true, 0},
		{2, proto.Unlocked, false, 1},
		{2, proto.Locked, false, 2},
		{2, proto.TimedOut, false, 0},
		{2, proto.NotOwner, false, 0},
		{1, proto.Locked, false, 1},
	} {
		af.observe(step.loop, step.answer, step.waited)
		if af.score != step.want {
			t.Errorf("step %d: score %d, want %d", i, af.score, step.want)
		}
	}
}
