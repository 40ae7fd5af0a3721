package faults

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	memoryLimit = 300 << 20        // of the daemon's cgroup, in bytes
	givenBack   = 10 * time.Second // after which the memory of a flood is given back
	remains     = 64 << 20         // bytes that may stay
)

// flood is what one of many connections sends to use up the memory of the daemon.
type flood struct {
	name, what  string
	connections int
	send        func(conn net.Conn, n int)
}

func memoryCases() (all []*Case) {
	for _, f := range []flood{
		{"keys", "keys", 100, floodKeys},
		{"waiters", "waiters with long keys", 12_000, floodWaiters},
		{"input", "pending input", 2000, floodInput},
		{"output", "unread answers", 2000, floodOutput},
	} {
		all = append(all, &Case{
			Name:  "memory-" + f.name,
			Fault: fmt.Sprintf("a flood of %s in a cgroup of %d MiB", f.what, memoryLimit>>20),
			Promise: fmt.Sprintf("the daemon lives, nothing that is held is lost, all but %d MiB are given back within %s", remains>>20,
				givenBack),
			run:   func(t *trial) string { return testFlood(t, &f) },
			alone: true,
		})
	}
	return all
}

// testFlood has many connections flood the daemon, while others hold, wait and are served.
func testFlood(t *trial, f *flood) string {
	l := t.newLabBy(t.inCgroup(memoryLimit), 0, "--loops", "2")
	l.unrecorded = true
	holder, waiter := l.dial(l.near), l.dial(l.near)
	holder.mustLock("a", "b")
	waiter.waits("b", 1)
	before := t.resident(l.daemon)

	conns := make([]net.Conn, f.connections)
	var next atomic.Int64
	const senders = 16
	t.parallel(senders, func(int) {
		for i := int(next.Add(1)) - 1; i < len(conns) && l.daemon.running() && !t.stopped(); i = int(next.Add(1)) - 1 {
			conn, err := l.near(t.ctx)
			if err != nil {
				continue // refused: that is allowed
			}
			conns[i] = conn
			f.send(conn, i)
		}
	})
	defer closeAll(conns)
	// Whoever holds is served as ever.
	for range 10 {
		holder.send(command(lock, "a", 0))
		holder.want(alreadyLocked)
	}
	peak := t.resident(l.daemon)
	closeAll(conns)
	began := time.Now()
	holder.unlock("b")
	waiter.want(locked)
	var after int64
	t.eventually(givenBack, "memory is given back", func() error {
		if after = t.resident(l.daemon); after > before+remains {
			return fmt.Errorf("%d MiB, and it began with %d MiB", after>>20, before>>20)
		}
		return nil
	})
	took := time.Since(began)
	newcomer := l.dial(l.near)
	if got := newcomer.lock("c", 0); got != locked {
		t.violate("after the flood a newcomer is answered %q", got)
	}
	return fmt.Sprintf("%d MiB, then %d MiB, and %d MiB after %s", before>>20, peak>>20, after>>20, seconds(took))
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// resident returns the resident memory of the daemon, in bytes. It stops the case if the daemon has ended.
func (t *trial) resident(d *daemon) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.pid()))
	fields := strings.Fields(string(text))
	if err == nil && len(fields) > 1 {
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err == nil && pages > 0 {
			return pages * int64(os.Getpagesize())
		}
	}
	d.checkLog()
	t.violate("the daemon has ended")
	t.fatal("the daemon has ended: %v", err)
	return 0
}

// A flood waits this long for a daemon that holds it back, and this long for one that answers.
const (
	sendWithin   = 100 * time.Millisecond
	answerWithin = 2 * time.Second
)

// floodKeys locks keys until the daemon takes no more.
func floodKeys(conn net.Conn, n int) {
	const batches, batch = 200, 1000
	answers := make([]byte, 64<<10)
	var text bytes.Buffer
	for i := range batches {
		text.Reset()
		for k := range batch {
			fmt.Fprintf(&text, "lock flood%dx%dx%d 0\r\n", n, i, k)
		}
		_ = conn.SetDeadline(time.Now().Add(answerWithin))
		if _, err := conn.Write(text.Bytes()); err != nil {
			return
		}
		for lines := 0; lines < batch; {
			got, err := conn.Read(answers)
			if err != nil || bytes.Contains(answers[:got], []byte("e ")) {
				return
			}
			lines += bytes.Count(answers[:got], []byte("\n"))
		}
	}
}

// floodWaiters waits for a key with a name of its own that is as long as can be: it locks the key and waits for one of another.
func floodWaiters(conn net.Conn, n int) {
	const length = 9900
	name := func(n int) string { return strings.Repeat("k", length) + strconv.Itoa(n) }
	_ = conn.SetDeadline(time.Now().Add(sendWithin))
	_, _ = fmt.Fprintf(conn, "lock %s 0\r\nlock %s 3600000\r\n", name(n), name(max(0, n-1)))
}

// floodInput waits, and sends on until it is held back.
func floodInput(conn net.Conn, n int) {
	more := bytes.Repeat([]byte("lock more"+strconv.Itoa(n)+" 0\r\n"), 4000)
	_ = conn.SetDeadline(time.Now().Add(sendWithin))
	if _, err := io.WriteString(conn, "lock a 3600000\r\n"); err != nil {
		return
	}
	for range 12 {
		if _, err := conn.Write(more); err != nil {
			return
		}
	}
}

// floodOutput asks on and on and reads nothing, until it is held back.
func floodOutput(conn net.Conn, _ int) {
	if sock, ok := conn.(*net.TCPConn); ok {
		_ = sock.SetReadBuffer(4096)
	}
	more := bytes.Repeat([]byte("unlock nobodys\r\n"), 4000)
	_ = conn.SetDeadline(time.Now().Add(sendWithin))
	for range 60 {
		if _, err := conn.Write(more); err != nil {
			return
		}
	}
}
