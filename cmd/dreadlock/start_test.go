package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"dreadlock/proto/prototest"
)

// freeAddress returns an address that nobody listens on. It is below the range of ports that the kernel gives to clients.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// If it cannot listen, it says why in one line with advice, and the exit status is 1.
func TestCannotListen(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken := other.Addr().String()
	port := strings.TrimPrefix(taken, "127.0.0.1")
	for _, c := range []struct{ listen, says string }{
		{taken, "address already in use: stop what listens there"},
		{port, "address already in use: stop what listens there"}, // one of all addresses
		{"192.0.2.1:0", "cannot assign requested address: this machine has no such address"},
	} {
		got := run(t, launch{}, "--listen", c.listen)
		if got.status != 1 || got.stdout != "" || !oneLine(got.stderr, c.says) || !oneLine(got.stderr, "listen "+c.listen) {
			t.Errorf("%s: %+v, want 1 and one line with %q", c.listen, got, c.says)
		}
	}
	d := start(t)
	got := run(t, launch{}, "--listen", d.address)
	if got.status != 1 || !oneLine(got.stderr, "address already in use") {
		t.Errorf("beside another daemon: %+v", got)
	}
	d.alive()
}

func TestNoPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run it as nobody")
	}
	if start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(start)) != "1024" {
		t.Skipf("ports below 1024 are for everybody here: %s %v", start, err)
	}
	cmd := command(launch{nobody: true}, "--listen", "127.0.0.1:1")
	output, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skipf("cannot run it as nobody: %v", err)
	}
	if cmd.ProcessState.ExitCode() != 1 || !oneLine(string(output), "permission denied: ports below 1024 need root") {
		t.Errorf("%v, %q", err, output)
	}
}

// Two daemons on one port would be two lock tables. When many start at the same time, one serves and the others say why they
// do not.
func TestManyStarts(t *testing.T) {
	const daemons = 20
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		address := freeAddress(t)
		var all [daemons]*daemon
		for i := range all {
			all[i] = spawn(t, launch{}, "--listen", address, "--loops", "2")
		}
		var ready [daemons]bool
		var wg sync.WaitGroup
		for i, d := range all {
			wg.Go(func() { _, ready[i] = d.log.await("dreadlock is ready") })
		}
		wg.Wait()
		var winner *daemon
		for i, d := range all {
			switch {
			case !ready[i]:
				if state := d.wait(); state.ExitCode() != 1 || !strings.Contains(d.log.String(), "address already in use") {
					t.Errorf("a loser: %v, %s", state, d.log)
				}
			case winner == nil:
				winner = d
			default:
				t.Fatalf("two serve:\n%s\n%s", winner.log, d.log)
			}
		}
		if winner == nil {
			t.Fatal("none serves")
		}
		winner.address = address
		first := winner.dial()
		first.Do("lock a 0", "l locked")
		for range 8 {
			winner.dial().Do("lock a 0", "t timeout")
		}
		winner.stop()
	}
}

// The connections that a stop leaves behind do not keep the next daemon from listening on the port.
func TestRestart(t *testing.T) {
	address := freeAddress(t)
	for round := range 4 {
		d := startWith(t, launch{}, "--listen", address, "--loops", "2")
		for i := range 20 {
			c := d.dial()
			c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
			if i%2 == 0 {
				prototest.Dial(t, address).Send(fmt.Sprintf("lock k%d 30000", i))
			}
		}
		d.stop()
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// One log line when it is ready, one for the admin interface and one when it stops, in JSON.
func TestLogLines(t *testing.T) {
	d := start(t, "--loops", "3", "--max-connections", "20")
	for field, want := range map[string]string{
		"level": "info", "loops": "3", "max_connections": "20", "max_pipeline": "262144", "max_output": "262144",
		"keepalive": "30s", "tick": "5ms",
	} {
		if got := d.ready.text(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	for _, field := range []string{"time", "version"} {
		if d.ready[field] == nil {
			t.Errorf("the line has no %s: %v", field, d.ready)
		}
	}
	d.adminAddresses()
	d.stop()
	if lines := strings.Count(d.log.String(), "\n"); lines != 3 {
		t.Errorf("%d lines, want 3:\n%s", lines, d.log)
	}
}
