package main

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

var allSignals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
}

// Signals to dreadlockctl are passed on to the command, which may catch them.
func TestSignalsArePassedOn(t *testing.T) {
	d := startDaemon(t)
	for name, s := range allSignals {
		t.Run(name, func(t *testing.T) {
			j := d.lock(t, append([]string{"k"}, childCommand("catch", name)...)...)
			j.stdout.await(t, "ready\n")
			j.signal(s)
			if got := j.wait(); got.status != 5 || got.stdout != "ready\ngot it\n" || got.stderr != "" {
				t.Errorf("%+v", got)
			}
			d.free(t, "k")
		})
	}
	t.Run("deadly", func(t *testing.T) {
		j := d.lock(t, append([]string{"k"}, childCommand("wait")...)...)
		j.stdout.await(t, "ready\n")
		j.signal(syscall.SIGTERM)
		if got := j.wait(); got.status != 128+15 {
			t.Errorf("%+v, want 143", got)
		}
	})
}

// ignoring returns a command that runs dreadlockctl with hang-ups ignored, as under nohup, and interrupts ignored, as in the
// background of a script. The shell does not fork: it becomes dreadlockctl.
func ignoring(args ...string) *exec.Cmd {
	return exec.Command("sh", append([]string{"-c", `trap "" HUP INT; exec "$0" "$@"`, program}, args...)...)
}

// Signals that were ignored at the start stay ignored, by dreadlockctl and by the command.
func TestIgnoredSignals(t *testing.T) {
	d := startDaemon(t)
	env := []string{"DREADLOCK_SERVER=" + d.address}
	t.Run("command", func(t *testing.T) {
		j := beginCommand(t, env, ignoring(append([]string{"lock", "k"}, obedient...)...))
		j.stdout.await(t, "runs with k")
		j.signal(syscall.SIGHUP)
		j.signal(syscall.SIGINT)
		fmt.Fprintln(j.stdin, "still there")
		if got := j.wait(); got.status != 0 || !strings.Contains(got.stdout, "still there") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("hold", func(t *testing.T) {
		j := beginCommand(t, env, ignoring("lock", "k"))
		j.stderr.await(t, "holding k; SIGTERM releases it\n")
		j.signal(syscall.SIGHUP)
		j.signal(syscall.SIGINT)
		d.dial(t).Do("lock k 0", "t timeout")
		j.signal(syscall.SIGTERM)
		if got := j.wait(); got.status != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("top", func(t *testing.T) {
		a := serveAdmin(t)
		j := beginCommand(t, nil, ignoring("top", "--json", "-i", "100ms", "--admin", a.url))
		j.stdout.await(t, "\n")
		j.signal(syscall.SIGHUP)
		j.signal(syscall.SIGINT)
		before := j.stdout.len()
		j.stdout.awaitAfter(t, before, "\n")
		j.signal(syscall.SIGTERM)
		if got := j.wait(); got.status != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// A signal ends the wait at once, and with it the connection and the place in the queue; but not SIGWINCH.
func TestSignalWhileWaiting(t *testing.T) {
	for name, s := range allSignals {
		t.Run(name, func(t *testing.T) {
			asked, left := make(chan string, 1), make(chan error, 1)
			address := serve(t, func(conn net.Conn) { // a daemon at which somebody else holds the key
				in := bufio.NewReader(conn)
				_, _ = in.ReadString('\n') // its name
				_, _ = in.ReadString('\n') // and owner
				fmt.Fprint(conn, "n named 60000 00000000000000af\r\no owned\r\n")
				command, _ := in.ReadString('\n')
				_, _ = in.ReadString('\n') // for the token
				asked <- command
				_, err := in.ReadByte()
				left <- err
			})
			j := begin(t, nil, "lock", "k", "--server", address, "--", "echo", "runs")
			if command := receive(t, asked); !strings.HasPrefix(command, "lock k 9223372036") {
				t.Fatalf("it sent %q, want a wait without a limit", command)
			}
			j.signal(s)
			if s == syscall.SIGWINCH {
				s = syscall.SIGTERM
				j.signal(s)
			}
			if err := receive(t, left); err == nil {
				t.Error("it sent more")
			}
			if got := j.wait(); got.status != 128+int(s) || got.stdout != "" || got.stderr != "" {
				t.Errorf("%+v, want %d", got, 128+int(s))
			}
		})
	}
}

// receive returns the next value of a channel.
func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(prototest.Patience):
		t.Fatal("nothing came")
	}
	return value
}
