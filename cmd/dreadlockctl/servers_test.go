package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/fleet/fleettest"
)

// serveSpace is the role of a daemon that is alone in a fleet with that name, which it may share with another one. It says when it is ready, and how many wait.
func serveSpace(listen, space string) int {
	cfg := server.DefaultConfig()
	cfg.Listen = []string{listen}
	cfg.Loops = 1
	cfg.Ready = func(address string) { fmt.Println("ready address=" + address) }
	number, err := strconv.ParseUint(space, 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	alone := fleettest.NewFleet(time.Minute)
	alone.Space = number
	cfg.Fleet = alone.Store()
	srv, err := server.New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		before := 0
		for range time.Tick(5 * time.Millisecond) {
			if status, err := srv.Status(context.Background()); err == nil && status.Waiters != before {
				before = status.Waiters
				fmt.Printf("%d waits\n", before)
			}
		}
	}()
	if err := srv.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startMember starts a daemon that names a lock table, as a process of its own.
func startMember(tb testing.TB, listen string, space int) *daemon {
	tb.Helper()
	self := childCommand("serve", listen, strconv.Itoa(space))
	d := &daemon{cmd: exec.Command(self[1], self[2:]...)}
	d.cmd.Env = environment()
	var write *os.File
	d.log, write = newText(tb)
	defer write.Close()
	d.cmd.Stdout, d.cmd.Stderr = write, write
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.kill)
	d.address = address(tb, d.log.awaitLine(tb, "ready"))
	return d
}

// freeAddress returns an address where nobody listens.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// members are two daemons of a fleet. At both of them somebody holds the key k, so that a wait for it can be seen.
type members struct {
	t       *testing.T
	all     [2]*daemon
	holders [2]*prototest.Client
}

func startMembers(t *testing.T) *members {
	t.Helper()
	m := &members{t: t}
	for i := range m.all {
		m.all[i] = startMember(t, "127.0.0.1:0", 7)
		m.holders[i] = m.all[i].dial(t)
		m.holders[i].Do("lock k 0", "l locked")
	}
	return m
}

func (m *members) list() string { return m.all[0].address + "," + m.all[1].address }

func (m *members) lock(args ...string) *job {
	m.t.Helper()
	return begin(m.t, []string{"DREADLOCK_SERVER=" + m.list()}, append([]string{"lock", "k"}, args...)...)
}

// awaitWait returns at which of them somebody waits.
func (m *members) awaitWait() (i int) {
	m.t.Helper()
	eventually(m.t, func() (bool, any) {
		for i = range m.all {
			if strings.HasSuffix(m.all[i].log.String(), "1 waits\n") {
				return true, nil
			}
		}
		return false, "nobody waits"
	})
	return i
}

// Two daemons that are no fleet are refused before the command runs, at once, whatever the wait.
func TestTwoTables(t *testing.T) {
	a, b := startDaemon(t), startDaemon(t)
	for _, args := range [][]string{{"--try"}, {}, {"--wait", "1h"}} {
		got := runWith(t, []string{"DREADLOCK_SERVER=" + a.address + "," + b.address}, append(append([]string{"lock", "k"}, args...), "--", "echo", "runs")...)
		if got.status != exitTables || got.stdout != "" ||
			!oneLine(got.stderr, a.address, b.address, " are two lock tables, not a fleet: a lock at one says nothing at the other; "+
				"start both with --fleet, or name one") {
			t.Errorf("%q: %+v", args, got)
		}
	}
	a.free(t, "k")
	b.free(t, "k")
	if got := runs(t, "lock", "k", "--server", a.address+", "+a.address, "--", "echo", "runs"); got.status != 0 || got.stdout != "runs\n" || got.stderr != "" {
		t.Errorf("one daemon, named twice: %+v", got)
	}
}

// A wait that loses its daemon stands in line at another one. All lines say where.
func TestWaitMovesToAnotherDaemon(t *testing.T) {
	m := startMembers(t)
	j := m.lock("-v", "--", "sh", "-c", `echo "$DREADLOCK_SERVER"`)
	gone := m.awaitWait()
	rest := 1 - gone
	m.all[gone].kill()
	j.stderr.await(t, "trying again")
	j.stderr.await(t, "waits for k again at "+m.all[rest].address+", at the end of the line\n")
	m.holders[rest].Do("unlock k", "u unlocked")
	got := j.wait()
	if got.status != 0 || got.stdout != m.list()+"\n" {
		t.Errorf("%+v", got)
	}
	contains(t, got.stderr, "locking k at "+m.list(), "locked k at "+m.all[rest].address+" after")
	m.all[rest].kill()
	got = m.lock("--try", "--", "true").wait()
	if got.status != exitUnreachable ||
		!oneLine(got.stderr, "none of the daemons can be used: ", m.all[0].address+": connect: connection refused", m.all[1].address+": connect: connection refused") {
		t.Errorf("all are gone: %+v", got)
	}
}

// A key is lost with its daemon, and had again at another one.
func TestHolderMovesToAnotherDaemon(t *testing.T) {
	m := startMembers(t)
	for _, h := range m.holders {
		h.Do("unlock k", "u unlocked")
	}
	j := m.lock("--restart", "-v", "--", "sh", "-c", `echo runs; read line; exit 3`)
	line := j.stderr.awaitLine(t, "locked k at ")
	used := 0
	if strings.Contains(line, m.all[1].address) {
		used = 1
	}
	j.stdout.await(t, "runs\n")
	m.all[used].kill()
	j.stderr.await(t, "lost the connection to "+m.all[used].address+", and with it the key k")
	j.stdout.await(t, "runs\nruns\n")
	j.stderr.await(t, "locked k at "+m.all[1-used].address)
	j.stdin.Close()
	if got := j.wait(); got.status != 3 {
		t.Errorf("%+v", got)
	}
}

// A daemon that is stopped is passed over, within the time of a try.
func TestStoppedDaemonOfSeveral(t *testing.T) {
	m := startMembers(t)
	for i := range m.all {
		m.all[i].silence(t, true)
		m.holders[1-i].Do("unlock k", "u unlocked")
		if got := m.lock("--try", "--", "echo", "runs").wait(); got.status != 0 || got.stdout != "runs\n" {
			t.Errorf("%+v", got)
		}
		m.all[i].silence(t, false)
	}
}

// A wait whose daemon is gone does not go on in the lock table of another one, and says why; it does when its own is back, if that
// has the same one now.
func TestWaitKeepsItsTable(t *testing.T) {
	addressB := freeAddress(t)
	a := startMember(t, "127.0.0.1:0", 7)
	a.dial(t).Do("lock k 0", "l locked")
	env := []string{"DREADLOCK_SERVER=" + a.address + "," + addressB}
	j := begin(t, env, "lock", "k", "--", "echo", "runs")
	a.log.await(t, "1 waits\n")
	limited := begin(t, env, "lock", "k", "--wait", "5s", "--", "echo", "runs")
	a.log.await(t, "2 waits\n")
	b := startMember(t, addressB, 8)
	a.kill()
	j.stderr.await(t, "waits until "+a.address+" is back: "+addressB+" has another lock table than "+a.address+", where the wait stood in line\n")
	b.free(t, "k")
	got := limited.wait()
	if got.status != exitUnreachable || got.stdout != "" || !strings.Contains(got.stderr, "\ndreadlockctl: "+a.address+" did not come back: ") {
		t.Errorf("%+v", got)
	}
	startMember(t, a.address, 8)
	if got := j.wait(); got.status != 0 || got.stdout != "runs\n" {
		t.Errorf("%+v", got)
	}
}

// A nested lock is asked for at the daemon of the one around it, where a deadlock of both can be seen. The key around it is known,
// in whatever order the daemons are named.
func TestNestedAtTheSameDaemon(t *testing.T) {
	m := startMembers(t)
	for range 8 {
		got := begin(t, []string{"DREADLOCK_SERVER=" + m.list()}, "lock", "a", "-v", "--", program, "lock", "b", "-v", "--", "true").wait()
		var at []string
		for line := range strings.Lines(got.stderr) {
			if _, rest, found := strings.Cut(line, "locked "); found {
				at = append(at, strings.Fields(rest)[2])
			}
		}
		if got.status != 0 || len(at) != 2 || at[0] != at[1] {
			t.Fatalf("they are at %q: %+v", at, got)
		}
	}
	reversed := m.all[1].address + "," + m.all[0].address
	got := begin(t, []string{"DREADLOCK_SERVER=" + m.list()}, "lock", "a", "--", program, "lock", "a", "--server", reversed, "--", "true").wait()
	if got.status != exitUsage || !strings.Contains(got.stderr, "inside itself") {
		t.Errorf("%+v", got)
	}
}

// Invalid lists are reported before any request.
func TestBadLists(t *testing.T) {
	ca := prototest.NewCA(t).File()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--server", "a:6001,"}, "want host:port"},
		{[]string{"--server", "tls://a:6001,b:6001", "--tls-ca", ca}, "--server b:6001: a connection there is not encrypted: give tls://b:6001"},
		{[]string{"--server", "tls://a:6001,b:6001,c", "--tls-ca", filepath.Join(t.TempDir(), "none")}, "--server: "},
	} {
		if got := runs(t, append([]string{"lock", "k", "--try"}, append(c.args, "--", "true")...)...); got.status != exitUsage || !oneLine(got.stderr, c.want) {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
	got := runs(t, "status", "--server", "192.0.2.1:6001,tls://192.0.2.1:6002")
	if got.status != exitUnreachable || !oneLine(got.stderr, "the daemons at 192.0.2.1:6001,tls://192.0.2.1:6002 are on other machines", "--admin URL") {
		t.Errorf("%+v", got)
	}
}
