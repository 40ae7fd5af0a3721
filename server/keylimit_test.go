package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dreadlock/lockmgr"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// A client that holds as many keys as one may is refused another, on every loop. What it holds it keeps, and an unlock makes
// room at once.
func TestMaxKeys(t *testing.T) {
	const limit = 10
	for _, loops := range []int{1, 2} {
		d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxKeys = loops, limit })
		c, other := d.dial(), d.dial()
		other.Do("lock theirs 0", "l locked")
		for i := range limit {
			c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
		}
		hits := uint64(0)
		for i := range 2 * limit {
			c.Do(fmt.Sprintf("lock more%d 1000", i), "e too many keys")
			hits++
		}
		c.Do("lock theirs 1000", "e too many keys")
		hits++
		c.Do("lock theirs 0", "t timeout")
		c.Do("lock k3 1000", "e already locked")
		c.Do("fence k3", "f "+d.token("k3"))
		other.Do("lock more0 0", "l locked") // it is free
		c.Do("unlock more1", "e not locked")
		c.Do("unlock more0", "e not owner")
		for i := range limit {
			c.Send(fmt.Sprintf("unlock k%d", i), fmt.Sprintf("lock next%d 0", i), "lock nomore 0")
			c.Expect("u unlocked", "l locked", "e too many keys")
			hits++
		}
		d.wantHits(api.LimitKeys, hits)
		d.wantHits(api.LimitKeyBytes, 0)
		c.Close()
		d.wantFree("k3", "next3", "nomore", "more1")
	}
}

// token returns the token of a held key.
func (d *daemon) token(key string) string { return fmt.Sprint(d.key(key).Token) }

// A grant after a wait counts like any other.
func TestMaxKeysAfterWait(t *testing.T) {
	for _, loops := range []int{1, 2} {
		d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxKeys = loops, 1 })
		for loop := range loops {
			key := d.keysOf(loop, 1)[0]
			a, b := d.dial(), d.dial()
			a.Do("lock "+key+" 0", "l locked")
			b.Send("lock " + key + " 30000")
			d.awaitWaiters(1)
			a.Do("unlock "+key, "u unlocked")
			b.Expect("l locked")
			b.Do("lock x 0", "e too many keys")
			b.Do("unlock "+key, "u unlocked")
			b.Do("lock x 0", "l locked")
			leave(a)
			leave(b)
		}
	}
}

// The keys of a client may take so much memory and not more, whether they are many or long.
func TestMaxKeyBytes(t *testing.T) {
	const limit = 100_000
	for _, loops := range []int{1, 2} {
		d := startDaemon(t, func(cfg *Config) { cfg.Loops, cfg.MaxKeyBytes = loops, limit })
		for _, length := range []int{5, 28, 29, 500, 9000} {
			c := d.dial()
			key := func(i int) string { return fmt.Sprintf("k%0*d", length-1, i) }
			fit := limit / lockmgr.KeySize(length)
			for i := range fit {
				c.Send("lock " + key(i) + " 0")
			}
			c.Expect(slices.Repeat([]string{"l locked"}, fit)...)
			c.Do("lock "+key(fit)+" 0", "e too many keys")
			c.Do("unlock "+key(0), "u unlocked")
			c.Do("lock "+key(fit)+" 0", "l locked")
			c.Do("lock "+key(fit+1)+" 0", "e too many keys")
			for i := 1; i <= fit; i++ {
				c.Do("unlock "+key(i), "u unlocked")
			}
			wantAllLocked(t, c, key, fit)
			leave(c)
		}
		d.wantHits(api.LimitKeyBytes, 10)
		d.wantHits(api.LimitKeys, 0)
	}
}

// wantAllLocked locks n keys at once.
func wantAllLocked(t *testing.T, c *prototest.Client, key func(int) string, n int) {
	t.Helper()
	var text strings.Builder
	for i := range n {
		text.WriteString("lock " + key(i) + " 0\r\n")
	}
	c.Write([]byte(text.String()))
	c.Expect(slices.Repeat([]string{"l locked"}, n)...)
}
