package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// scaled returns a size, or a smaller one for -short or where there are fewer descriptors.
func scaled(t *testing.T, full, short int) int {
	t.Helper()
	if testing.Short() {
		return short
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if room := int(min(limit.Cur, 1<<20)) - 1000; room < full {
		t.Logf("%d instead of %d: that is what the limit on open files leaves", room, full)
		return room
	}
	return full
}

// dialMany opens n connections and calls first for each.
func dialMany(t *testing.T, d *daemon, n int, first func(i int, c *prototest.Client)) []*prototest.Client {
	t.Helper()
	clients := make([]*prototest.Client, n)
	var wg sync.WaitGroup
	const dialers = 16
	for start := range dialers {
		wg.Go(func() {
			for i := start; i < n; i += dialers {
				clients[i] = d.dial()
				first(i, clients[i])
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return clients
}

// A hundred clients increment a counter that only a lock protects.
func TestCounter(t *testing.T) {
	clients, increments := 100, scaled(t, 100, 20)
	d := start(t)
	counter := 0
	var order []int // of the clients
	var wg sync.WaitGroup
	for i := range clients {
		c := d.dial()
		wg.Go(func() {
			last := -1
			for range increments {
				c.Do("lock counter 60000", "l locked")
				seen := counter
				if seen <= last {
					t.Errorf("client %d saw %d after %d", i, seen, last)
				}
				order = append(order, i)
				counter = seen + 1
				last = seen
				c.Do("unlock counter", "u unlocked")
			}
		})
	}
	wg.Wait()
	if want := clients * increments; counter != want || len(order) != want {
		t.Errorf("the counter is %d with %d entries, want %d: updates are lost", counter, len(order), want)
	}
	for i := range clients {
		if n := len(slices.DeleteFunc(slices.Clone(order), func(c int) bool { return c != i })); n != increments {
			t.Errorf("client %d is there %d times, want %d", i, n, increments)
		}
	}
}

// Ten thousand clients wait for one key and get it in the order in which they asked. Each holds it until the next one is
// expected to have it, so one out of turn would block the others.
func TestLongQueue(t *testing.T) {
	n := scaled(t, 10_000, 1000)
	d := start(t)
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	clients := dialMany(t, d, n, func(int, *prototest.Client) {})
	q := newQueuer(d, 2, clients...)
	rand.Shuffle(n, func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })
	begun := time.Now()
	for _, c := range clients {
		q.queue(c, "a", 600_000)
	}
	t.Logf("%d are queued after %s", n, time.Since(begun))
	begun = time.Now()
	for _, c := range clients {
		holder.Do("unlock a", "u unlocked")
		c.Expect("l locked")
		holder = c
	}
	t.Logf("and served after %s", time.Since(begun))
}

// Fifteen thousand connections hold a key each and end at once: all keys are released.
func TestMassDrop(t *testing.T) {
	n := scaled(t, 15_000, 1500)
	t.Parallel() // beside the tests that wait, no other that needs many descriptors
	for _, way := range []struct {
		name string
		drop func(*prototest.Client)
	}{
		{"close", (*prototest.Client).Close},
		{"reset", (*prototest.Client).Reset},
	} {
		t.Run(way.name, func(t *testing.T) {
			d := start(t)
			next := d.dial()
			clients := dialMany(t, d, n, func(i int, c *prototest.Client) { c.Do("lock k"+strconv.Itoa(i)+" 0", "l locked") })
			next.Do("lock k"+strconv.Itoa(n-1)+" 0", "t timeout")
			var commands []byte
			for i := range n {
				commands = fmt.Appendf(commands, "lock k%d 600000\r\n", i)
			}
			begun := time.Now()
			for _, c := range clients {
				way.drop(c)
			}
			dropped := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = next.Conn().Write(commands) }) // an error costs answers
			want := slices.Repeat([]byte("l locked\r\n"), n)
			got := make([]byte, len(want))
			_ = next.Conn().SetReadDeadline(time.Now().Add(prototest.Patience))
			if _, err := io.ReadFull(next.Conn(), got); err != nil || !slices.Equal(got, want) {
				t.Errorf("not all keys are free: %v", err)
			}
			took := time.Since(dropped)
			wg.Wait()
			t.Logf("%d dropped within %s; all keys free and taken again %s later", n, dropped.Sub(begun), took)
			d.stop()
		})
	}
}

// An unlock at the very moment at which the first waiter times out: it is granted the key or has a timeout, never both, and
// the state of the key agrees.
func TestUnlockAtTimeout(t *testing.T) {
	n := scaled(t, 400, 100)
	const timeout = 200 * time.Millisecond
	d := start(t)
	var mu sync.Mutex
	outcomes := map[string]int{}
	var wg, ready sync.WaitGroup
	ready.Add(n)
	for i := range n {
		key := "k" + strconv.Itoa(i)
		holder, waiter := d.dial(), d.dial()
		wg.Go(func() {
			holder.Do("lock "+key+" 0", "l locked")
			waiter.Do("unlock "+key, "e not owner")
			ready.Done()
			ready.Wait()
			waiter.Send(fmt.Sprintf("lock %s %d", key, timeout.Milliseconds()))
			time.Sleep(timeout + rand.N(6*time.Millisecond)) //nolint:forbidigo // to meet the end of the wait, which is up to a tick of 5 ms late
			holder.Do("unlock "+key, "u unlocked")
			reply, err := waiter.ReadReply()
			switch reply {
			case "l locked":
				holder.Do("lock "+key+" 0", "t timeout")
				waiter.Do("unlock "+key, "u unlocked")
			case "t timeout":
				holder.Do("lock "+key+" 0", "l locked")
				waiter.Do("unlock "+key, "e not owner")
			default:
				t.Errorf("key %s: %q, %v", key, reply, err)
			}
			waiter.Do("unlock nobodys", "e not locked") // no second outcome
			mu.Lock()
			defer mu.Unlock()
			outcomes[reply]++
		})
	}
	wg.Wait()
	t.Logf("%v", outcomes)
}

// Fifteen thousand connections, by TCP, by TLS with client certificates, by a Unix socket and by a socket that was passed, hold
// a key each. A queue across all ways is served in order, and all keys are free when all connections have ended.
func TestAllWaysAtOnce(t *testing.T) {
	n := scaled(t, 15_000, 1500)
	passed, file := passable(t)
	ca, path := prototest.NewCA(t), socketPath(t)
	cert, key := ca.Files(ca.Server())
	d := startWith(t, launch{passed: file}, "--loops", "2", "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca.File(), "--admin", "127.0.0.1:0",
		"--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0", "--listen", "unix://"+path, "--listen", "fd://")
	secure := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("worker")}}
	secured := strings.TrimPrefix(d.listen()[1], "tls://")
	connect := func(i int) *prototest.Client {
		switch {
		case i%15 == 0: // a handshake takes far longer than the others' connects
			return prototest.DialTLS(t, secured, secure)
		case i%3 == 0:
			return prototest.DialUnix(t, path)
		case i%3 == 1:
			return prototest.Dial(t, passed.Addr().String())
		}
		return d.dial()
	}
	clients := make([]*prototest.Client, n)
	var dialing sync.WaitGroup
	const dialers = 16
	for start := range dialers {
		dialing.Go(func() {
			for i := start; i < n; i += dialers {
				clients[i] = connect(i)
				clients[i].Do(fmt.Sprintf("lock k%d 0", i), "l locked")
			}
		})
	}
	dialing.Wait()
	if t.Failed() {
		t.FailNow()
	}
	v := &view{d: d, url: d.adminAddresses()[0]}
	clients[0].Do("lock shared 0", "l locked")
	for i, c := range clients[1:30] {
		c.Send("lock shared 600000")
		eventually(t, "a client does not stand in the queue", func() bool {
			var status api.Status
			v.get("/api/v1/status", &status)
			return status.Waiters == i+1
		})
	}
	clients[0].Do("unlock shared", "u unlocked")
	for _, c := range clients[1:30] {
		c.Expect("l locked")
		c.Do("unlock shared", "u unlocked")
	}
	for _, c := range clients {
		c.Close()
	}
	next := d.dial()
	for i := range n {
		next.Do(fmt.Sprintf("lock k%d 600000", i), "l locked")
	}
	d.stop()
}
