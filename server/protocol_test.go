package server

import "testing"

// The table of answers in the protocol, each through every pair of a connection's loop and a key's loop: the kernel
// spreads the connections, the keys are chosen.
func TestAnswers(t *testing.T) {
	d := startDaemon(t, nil)
	for loop := range d.server.cfg.Loops {
		for _, key := range d.keysOf(loop, 4) {
			holder, other := d.dial(), d.dial()
			holder.Do("unlock "+key, "e not locked")
			holder.Do("LoCk  "+key+"  0 ", "l locked")
			holder.Do("lock "+key+" 1000", "e already locked")
			other.Do("unlock "+key, "e not owner")
			other.Do("lock "+key+" 0", "t timeout")
			other.Do("lock "+key+" 20", "t timeout")
			other.Send("lock "+key+" 0030000", "unlock "+key)
			holder.Do("unlock "+key, "u unlocked")
			other.Expect("l locked", "u unlocked")
			holder.Do("unlock "+key, "e not locked")
		}
	}
}
