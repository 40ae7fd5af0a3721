package server

import (
	"fmt"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// However the bytes of a pipeline are cut, the answers are the same. The canary makes the loop read one part before the
// next is sent.
func TestFragments(t *testing.T) {
	for _, loops := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) {
			d := startDaemon(t, func(cfg *Config) { cfg.Loops = loops })
			cs := d.canaries()
			for loop := range loops {
				var keys []string
				for k := range min(loops, 2) {
					keys = append(keys, d.keysOf((loop+k)%loops, 1)[0])
				}
				text := makeCycle(0, keys...)
				c := d.dialOn(loop)
				send := func(p []byte) {
					c.Write(p)
					cs.pass(loop, loop)
				}
				check := func(how string) {
					t.Helper()
					_ = c.Conn().SetReadDeadline(time.Now().Add(prototest.Patience))
					if err := text.wantAnswers(c.Conn(), 1); err != nil {
						t.Fatalf("loop %d, keys %q, %s: %v", loop, keys, how, err)
					}
				}
				for cut := 1; cut < len(text.commands); cut++ {
					send(text.commands[:cut])
					c.Write(text.commands[cut:])
					check(fmt.Sprintf("cut at %d", cut))
				}
				for i := range text.commands {
					send(text.commands[i : i+1])
				}
				check("byte by byte")
			}
		})
	}
}

// Cut while the loop of the key stands still: what comes behind is kept, in pieces, and runs in order.
func TestFragmentsBehindRequest(t *testing.T) {
	d, g := startGated(t, nil)
	cs := d.canaries()
	for frozen := range 2 {
		text := makeCycle(0, d.keysOf(0, 1)[0], d.keysOf(1, 1)[0])
		c := d.dialOn(1 - frozen)
		thaw := d.freeze(g, frozen)
		c.Send("unlock " + d.keysOf(frozen, 1)[0])
		for i := range text.commands {
			c.Write(text.commands[i : i+1])
			cs.pass(1-frozen, 1-frozen)
		}
		thaw()
		text.answers = append([]byte("e not locked\r\n"), text.answers...)
		_ = c.Conn().SetReadDeadline(time.Now().Add(prototest.Patience))
		if err := text.wantAnswers(c.Conn(), 1); err != nil {
			t.Fatal(err)
		}
	}
}
