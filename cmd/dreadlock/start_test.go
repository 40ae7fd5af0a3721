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

// Two daemons on one port would be two lock tables. When two start at the same time, one serves and the other says why it
// does not.
func TestTwoStarts(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		address := freeAddress(t)
		var daemons [2]*daemon
		var ready [2]bool
		for i := range daemons {
			daemons[i] = spawn(t, launch{}, "--listen", address, "--loops", "2")
		}
		var wg sync.WaitGroup
		for i, d := range daemons {
			wg.Go(func() { _, ready[i] = d.log.await("dreadlock is ready") })
		}
		wg.Wait()
		if ready[0] == ready[1] {
			t.Fatalf("serving: %v\n%s\n%s", ready, daemons[0].log, daemons[1].log)
		}
		winner, loser := daemons[0], daemons[1]
		if ready[1] {
			winner, loser = loser, winner
		}
		if state := loser.wait(); state.ExitCode() != 1 || !strings.Contains(loser.log.String(), "address already in use") {
			t.Errorf("the loser: %v, %s", state, loser.log)
		}
		winner.address = address
		first := winner.dial()
		first.Do("lock a 0", "l locked")
		for range 8 { // whichever socket the kernel chooses, it is the same table
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
