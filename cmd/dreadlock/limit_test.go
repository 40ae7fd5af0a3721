package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// With few descriptors it serves as many connections as fit, and refuses the others with an answer. A connection that
// could not be accepted would end the daemon.
func TestFewDescriptors(t *testing.T) {
	const descriptors, fit = 200, 23 // what is left beside the reserves of two loops
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

	// More at a time than there are descriptors; none hangs up before it was refused.
	var wg sync.WaitGroup
	for range 3 * descriptors {
		wg.Go(func() {
			c := d.dial()
			c.Expect("e too many connections")
			c.ExpectEnd()
			c.Close()
		})
	}
	for range 5 { // the others are not affected
		for i, c := range served {
			c.Do(fmt.Sprintf("lock k%d 0", i), "e already locked")
		}
	}
	wg.Wait()
	if _, ok := d.log.await("connection refused: raise --max-connections, or look for clients that leak connections"); !ok {
		t.Error("it does not say that it refuses connections")
	}

	// One that leaves makes room, and releases its key.
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

// --max-connections is a limit of its own. It is refused with advice if there are not enough descriptors.
func TestMaxConnections(t *testing.T) {
	d := start(t, "--max-connections", "2")
	a, b := d.dial(), d.dial()
	a.Do("lock a 0", "l locked")
	b.Do("lock a 0", "t timeout")
	for _, commands := range [][]string{nil, {"lock a 0"}} { // a refused client may have sent a command already
		c := d.dial()
		c.Send(commands...)
		c.Expect("e too many connections")
		c.ExpectEnd()
	}
	a.Do("unlock a", "u unlocked")

	const advice = "--max-connections 24: the limit on open files is 200, which leaves room for 23 connections, and 201 are needed: raise it " +
		"with ulimit -n or LimitNOFILE="
	if got := run(t, launch{limit: 200}, "--loops", "2", "--max-connections", "24"); got.status != 2 || !oneLine(got.stderr, advice) {
		t.Errorf("%+v, want 2 and one line with %q", got, advice)
	}
	const none = "the limit on open files is 177, and with 2 loops at least 178 are needed: raise it with ulimit -n or LimitNOFILE="
	if got := run(t, launch{limit: 177}, "--loops", "2"); got.status != 2 || !oneLine(got.stderr, none) {
		t.Errorf("without room: %+v", got)
	}
	startWith(t, launch{limit: 178}, "--loops", "2", "--listen", "127.0.0.1:0") // as many as it says are enough
}

// Health is answered, from the address of the crowd too, beside more connections than the admin interface has: some that have
// asked and are kept alive, and some with half a header.
func TestHealthBesideCrowd(t *testing.T) {
	v := startAdmin(t)
	address := strings.TrimPrefix(v.url, "http://")
	for i := range 300 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request := "GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
		if i%2 == 0 {
			request += "\r\n"
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/api/v1/status", "/metrics"} {
		if status, body := v.requestOnce("GET", path); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	v.d.alive()
}

// The admin interface takes its descriptors from the reserve: with as many clients as fit, and more of each kind trying to
// connect, both keep serving.
func TestFewDescriptorsWithAdmin(t *testing.T) {
	const descriptors, fit = 200, 23
	d := startWith(t, launch{limit: descriptors}, "--listen", "127.0.0.1:0", "--loops", "2", "--admin", "127.0.0.1:0")
	v := &view{d: d, url: d.adminAddresses()[0]}
	var served []*prototest.Client
	for i := range fit {
		c := d.dial()
		c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
		served = append(served, c)
	}
	for range 3 * server.AdminConnections { // more than it has
		conn, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	var wg sync.WaitGroup
	for range 2 * descriptors {
		wg.Go(func() {
			c := d.dial()
			c.Expect("e too many connections")
			c.Close()
		})
	}
	for i, c := range served { // and move to other loops meanwhile, which takes a second descriptor
		c.Do(fmt.Sprintf("unlock k%d", i), "u unlocked")
		for range 40 {
			c.Do(fmt.Sprintf("lock m%d 0", i), "l locked")
			c.Do(fmt.Sprintf("unlock m%d", i), "u unlocked")
		}
	}
	wg.Wait()
	if status, body := v.request("GET", "/metrics"); status != 200 || !strings.Contains(body, `dreadlock_limit_hits_total{limit="max_connections"}`) {
		t.Errorf("metrics: %d", status)
	}
	for i, c := range served {
		c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
	}
	d.stop()
}
