package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// With few descriptors it serves as many connections as fit, and refuses the others with a word. A connection that
// could not be accepted would end the daemon.
func TestFewDescriptors(t *testing.T) {
	const descriptors, fit = 200, 56 // what is left beside the reserves of two loops
	d := startWith(t, launch{limit: descriptors}, "--listen", "127.0.0.1:0", "--loops", "2")
	if d.ready.text("max_connections") != fmt.Sprint(fit) {
		t.Fatalf("with %d descriptors it serves %s connections, want %d", descriptors, d.ready.text("max_connections"), fit)
	}
	var served []*prototest.Client
	for i := range fit {
		c := d.dial()
		c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
		served = append(served, c)
	}

	// More of them at a time than there are descriptors; none hangs up until it was told.
	var wg sync.WaitGroup
	for range 3 * descriptors {
		wg.Go(func() {
			c := d.dial()
			c.Expect("e too many connections")
			c.ExpectEnd()
			c.Close()
		})
	}
	for range 5 { // nobody else notices
		for i, c := range served {
			c.Do(fmt.Sprintf("lock k%d 0", i), "e already locked")
		}
	}
	wg.Wait()
	if _, ok := d.log.await("connection refused: raise --max-connections, or look for clients that leak connections"); !ok {
		t.Error("it does not say that it refuses connections")
	}

	// One that leaves makes room, and gives up its key.
	served[1].Reset()
	for deadline := time.Now().Add(prototest.Patience); ; {
		c := d.dial()
		c.Send("lock k1 30000")
		reply, err := c.ReadReply()
		if reply == "l locked" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the place of a client that left: %q, %v", reply, err)
		}
		c.Close()
	}
	served[0].Do("lock k1 0", "t timeout")
	d.stop()
}

// --max-connections is a limit of its own, and is refused with advice where it cannot be kept.
func TestMaxConnections(t *testing.T) {
	d := start(t, "--max-connections", "2")
	a, b := d.dial(), d.dial()
	a.Do("lock a 0", "l locked")
	b.Do("lock a 0", "t timeout")
	for _, commands := range [][]string{nil, {"lock a 0"}} { // a refused client may have spoken first
		c := d.dial()
		c.Send(commands...)
		c.Expect("e too many connections")
		c.ExpectEnd()
	}
	a.Do("unlock a", "u unlocked")

	const advice = "--max-connections 57: the limit on open files leaves room for 56: raise it with ulimit -n or LimitNOFILE="
	if got := run(t, launch{limit: 200}, "--loops", "2", "--max-connections", "57"); got.status != 2 || !oneLine(got.stderr, advice) {
		t.Errorf("%+v, want 2 and one line with %q", got, advice)
	}
	if got := run(t, launch{limit: 140}, "--loops", "2"); got.status != 2 || !oneLine(got.stderr, "leaves no room for connections: raise it with ulimit -n") {
		t.Errorf("without room: %+v", got)
	}
}
