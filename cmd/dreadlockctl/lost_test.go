package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// When the daemon is killed the key is lost, and the command is ended with all that it has started. No shell here traps a
// signal, so SIGTERM ends every process, before an exec and after it.
func TestDaemonKilled(t *testing.T) {
	for name, command := range map[string][]string{
		"sleep":   {"sh", "-c", "echo ready; exec sleep 1000"},
		"script":  {"sh", "-c", "echo ready; sleep 1000; echo goes on; sleep 1000"},
		"tree":    {"sh", "-c", "sh -c 'sleep 1000; :' & sh -c '(sleep 1000; :); :' & echo ready; wait; echo goes on"},
		"daemons": {"sh", "-c", "setsid sh -c 'setsid sleep 1000 & echo ready; wait' & wait"},
		"stopped": {"sh", "-c", "echo ready; kill -STOP $$; sleep 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t)
			j := d.lock(t, append([]string{"nightly", "--grace", "20s", "--"}, command...)...)
			j.stdout.await(t, "ready\n")
			began := time.Now()
			d.kill()
			got := j.wait() // its streams end with the last process
			t.Logf("all ended %s after the daemon", time.Since(began).Round(time.Millisecond))
			if got.status != exitLost || got.stdout != "ready\n" || !oneLine(got.stderr, "and with it the key nightly: ending the command") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A command that does not end after SIGTERM is killed after the grace period.
func TestGrace(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, append([]string{"k", "--grace", "50ms"}, childCommand("ignore", "TERM")...)...)
	j.stdout.await(t, "ready\n")
	began := time.Now()
	d.kill()
	got := j.wait()
	if got.status != exitLost || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	contains(t, got.stderr, "has not ended after 50ms: killing it")

	// Within the grace period a command can clean up.
	d = startDaemon(t)
	j = d.lock(t, append([]string{"k", "--grace", "1m"}, childCommand("catch", "TERM")...)...)
	j.stdout.await(t, "ready\n")
	d.kill()
	if got := j.wait(); got.status != exitLost || got.stdout != "ready\ngot it\n" {
		t.Errorf("%+v", got)
	}
}

func TestOnLostWarn(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, append([]string{"k", "--on-lost=warn"}, obedient...)...)
	j.stdout.await(t, "runs with k")
	d.kill()
	j.stderr.await(t, "somebody else may hold it now; the command keeps running")
	fmt.Fprintln(j.stdin, "done")
	if got := j.wait(); got.status != 0 || !strings.HasSuffix(got.stdout, "\ndone\n") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%+v", got)
	}
}

// If dreadlockctl is killed, the command is killed too.
func TestKilled(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "k", "--", "sh", "-c", "trap '' TERM HUP INT; echo ready; read line; echo goes on")
	j.stdout.await(t, "ready\n")
	j.signal(syscall.SIGKILL)
	<-j.ended
	j.stdout.awaitEnd(t)
	if got := j.stdout.String(); got != "ready\n" {
		t.Errorf("it said %q", got)
	}
	d.free(t, "k")
}
