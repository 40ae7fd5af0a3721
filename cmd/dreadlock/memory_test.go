package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// cgroup is one with a limit of memory.
type cgroup struct {
	tb    testing.TB
	dir   string
	usage string // the file that says how much is in use
}

// newCgroup makes a cgroup, or skips the test where none can be made.
func newCgroup(t *testing.T, limit int) *cgroup {
	t.Helper()
	const root = "/sys/fs/cgroup"
	name := fmt.Sprintf("dreadlock-test-%d", os.Getpid())
	g, file := &cgroup{t, filepath.Join(root, "memory", name), "memory.usage_in_bytes"}, "memory.limit_in_bytes" // version 1
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		g, file = &cgroup{t, filepath.Join(root, name), "memory.current"}, "memory.max"
	}
	err := os.Mkdir(g.dir, 0o755)
	t.Cleanup(func() { _ = os.Remove(g.dir) }) // after the daemon has ended
	if err == nil {
		err = os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(limit)), 0o644)
	}
	if err != nil {
		t.Skipf("floods in a cgroup are NOT tested: no cgroup with a limit of memory can be made here: run it as root, "+
			"with the memory controller: %v", err)
	}
	return g
}

// inUse returns how much memory the processes of the cgroup take, in bytes.
func (g *cgroup) inUse() int {
	g.tb.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, g.usage))
	if err != nil {
		g.tb.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		g.tb.Fatal(err)
	}
	return n
}

// via returns the command that runs a program in the cgroup instead of the one that it is given: the race detector would
// take most of the memory.
func (g *cgroup) via(program string) []string {
	return []string{"sh", "-c", fmt.Sprintf(`echo $$ >%s/cgroup.procs && exec %s "$@"`, g.dir, program)}
}

// buildPlain builds the daemon without the race detector.
func buildPlain(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "dreadlock")
	if output, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return program
}

// A limit on the address space counts as well: the Go runtime ends a process that comes there.
func TestAddressSpace(t *testing.T) {
	const limit = 4 << 30
	script := fmt.Sprintf(`ulimit -v %d && exec %s "$@"`, limit>>10, buildPlain(t))
	d := startWith(t, launch{via: []string{"sh", "-c", script}}, "--listen", "127.0.0.1:0", "--loops", "2")
	if got, _ := d.ready["max_memory"].(float64); got <= 0 || got > limit/2 {
		t.Errorf("max_memory is %v, want at most half of the address space, %d", d.ready["max_memory"], limit)
	}
}

// TestFloods floods a daemon that has 300 MiB with keys, with input that it has to keep, and with answers that nobody reads,
// from which it would take gigabytes. It lives, holders keep their keys and waiters their places, and after each flood the
// memory is given back to the system.
func TestFloods(t *testing.T) {
	const limit = 300 << 20
	g := newCgroup(t, limit)
	d := startWith(t, launch{via: g.via(buildPlain(t))},
		"--listen", "127.0.0.1:0", "--loops", "2", "--max-keys", "1000000000", "--max-key-bytes", "1GiB")
	if got := d.ready["max_memory"]; got != float64(limit/2) {
		t.Errorf("max_memory is %v, want half of the cgroup's %d", got, limit)
	}
	holder, waiter := d.dial(), d.dial()
	holder.Do("lock held 0", "l locked")
	waiter.Send("lock held 3600000")
	clients := scaled(t, 3000, 1000)
	pending := bytes.Repeat([]byte("unlock nothing\r\n"), 64<<10) // 1 MB
	unread := bytes.Repeat([]byte("unlock held\r\n"), 256<<10)    // 3 MB, and as much in answers
	for _, f := range []struct {
		name    string
		clients int
		send    func(i int, c *net.TCPConn)
	}{
		{"keys", 1, func(_ int, c *net.TCPConn) {
			var text []byte
			for i := range 3_000_000 { // 430 MB
				if text = fmt.Appendf(text, "lock key%d 0\r\n", i); len(text) >= 64<<10 {
					if _, err := c.Write(text); err != nil {
						return
					}
					text = text[:0]
				}
			}
		}},
		{"pending input", clients, func(i int, c *net.TCPConn) {
			fmt.Fprintf(c, "lock own%d 0\r\nlock held 3600000\r\n", i)
			_, _ = c.Write(pending)
		}},
		{"unread answers", clients, func(i int, c *net.TCPConn) {
			fmt.Fprintf(c, "lock own%d 0\r\n", i)
			_, _ = c.Write(unread)
		}},
	} {
		d.flood(t, g, f.name, f.clients, f.send, holder)
	}
	holder.Do("unlock held", "u unlocked")
	waiter.Expect("l locked")
	waiter.Do("unlock held", "u unlocked")
	d.dial().Do("lock key1 0", "l locked")
	d.stop()
}

// flood has clients send what they like for a while, and then break their connections.
func (d *daemon) flood(
	t *testing.T, g *cgroup, name string, clients int, send func(i int, c *net.TCPConn), holder *prototest.Client,
) {
	t.Helper()
	var senders sync.WaitGroup
	var conns []*net.TCPConn
	for i := range clients {
		conn, err := net.Dial("tcp", d.address)
		if err != nil {
			t.Fatal(err)
		}
		c := conn.(*net.TCPConn)
		conns = append(conns, c)
		_ = c.SetReadBuffer(16 << 10)
		if clients == 1 {
			senders.Go(func() { discard(c) })
		}
		senders.Go(func() { send(i, c) })
	}
	most := 0
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	const flooded = 100 << 20
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) || most < flooded; <-pace.C {
		holder.Do("lock held 0", "e already locked")
		holder.Send("lock more 0")
		switch line, err := holder.ReadReply(); {
		case err != nil:
			t.Fatalf("%s: %v; log:\n%s", name, err, d.log)
		case line == "l locked":
			holder.Do("unlock more", "u unlocked")
		case line != "e out of memory":
			t.Errorf("%s: %q", name, line)
		}
		most = max(most, g.inUse())
		if time.Since(end) > prototest.Patience {
			t.Fatalf("%s: %d bytes are in use, which is no flood", name, most)
		}
	}
	for _, c := range conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	senders.Wait()
	const little = 64 << 20
	began := time.Now()
	eventually(t, name+": the memory is not given back", func() bool { return g.inUse() < little })
	t.Logf("%s by %d clients: at most %d MiB, given back to %d MiB after %s",
		name, clients, most>>20, g.inUse()>>20, time.Since(began).Round(100*time.Millisecond))
	d.alive()
}

// discard reads what the daemon says.
func discard(c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// GOMEMLIMIT follows --max-memory, unless the environment sets it, and GOGC of the environment is left alone.
func TestRuntimeMemory(t *testing.T) {
	for _, c := range []struct {
		env         []string
		args        []string
		limit, gogc float64 // 0: it depends on the heap
	}{
		{nil, []string{"--max-memory", "64MiB"}, 112 << 20, 0},
		{[]string{"GOMEMLIMIT=1GiB"}, []string{"--max-memory", "64MiB"}, 1 << 30, 0},
		{[]string{"DREADLOCK_MAX_MEMORY=128MiB", "GOGC=90"}, nil, 208 << 20, 90},
	} {
		v := startAdminWith(t, launch{env: c.env}, c.args...)
		_, text := v.request("GET", "/metrics")
		if got := metric(text, "go_gc_gomemlimit_bytes"); got != c.limit {
			t.Errorf("%q %q: GOMEMLIMIT is %g, want %g", c.env, c.args, got, c.limit)
		}
		if got := metric(text, "go_gc_gogc_percent"); got != c.gogc && (c.gogc > 0 || got < gcPercent || got > 200) {
			t.Errorf("%q %q: GOGC is %g, want %g", c.env, c.args, got, c.gogc)
		}
	}
}

// The metrics and the status have the memory and its limit.
func TestMemoryMetrics(t *testing.T) {
	v := startAdminWith(t, launch{}, "--max-memory", "64MiB")
	c := v.d.dial()
	c.Do("lock a 0", "l locked")
	_, text := v.request("GET", "/metrics")
	if used, limit := metric(text, "dreadlock_memory_bytes"), metric(text, "dreadlock_memory_limit_bytes"); used < 1000 || used > 1<<20 || limit != 64<<20 {
		t.Errorf("%g bytes of %g", used, limit)
	}
	var st api.Status
	v.get("/api/v1/status", &st)
	if st.MemoryBytes < 1000 || st.MemoryLimitBytes != 64<<20 {
		t.Errorf("%d bytes of %d", st.MemoryBytes, st.MemoryLimitBytes)
	}
}

// metric returns the value of a metric without labels, -1 if there is none.
func metric(text, name string) float64 {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// startAdminWith is startAdmin for a daemon that is started in some way.
func startAdminWith(t *testing.T, l launch, args ...string) *view {
	t.Helper()
	d := startWith(t, l, append([]string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, args...)...)
	return &view{d: d, url: d.adminAddresses()[0]}
}
