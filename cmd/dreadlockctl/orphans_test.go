package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/prototest"
)

// stubborn is the script of a worker that prints its pid and works on, whatever SIGTERM says.
const stubborn = `sh -c 'trap "" TERM; echo $$; while :; do sleep 0.05; done'`

// runsOn reports whether a process exists and is not a zombie.
func runsOn(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// next waits for the key as the next holder, and fails the test if a process of the former one runs when it has it.
func (d *daemon) next(t *testing.T, key, pid string, meanwhile func()) {
	t.Helper()
	c := prototest.Dial(t, d.address)
	c.Send("lock " + key + " 60000")
	meanwhile()
	c.Expect("l locked")
	if runsOn(pid) {
		t.Errorf("the next holder has %s, and process %s of the former one runs", key, pid)
	}
	c.Close()
}

// The key is given back when all that the command has started has ended: after a signal that ended only the command, and
// after an end of its own.
func TestOrphansEnd(t *testing.T) {
	d := startDaemon(t)
	t.Run("signal", func(t *testing.T) {
		j := d.lock(t, "a", "--grace", "300ms", "--", "sh", "-c", stubborn+"; echo goes on")
		pid := strings.TrimSpace(j.stdout.awaitLine(t, "\n"))
		d.next(t, "a", pid, func() { j.signal(syscall.SIGTERM) })
		got := j.wait()
		if got.status != 128+15 || strings.Contains(got.stdout, "goes on") {
			t.Errorf("%+v, want 143", got)
		}
		contains(t, got.stderr, "what the command left has not ended after 300ms: killing it")
	})
	t.Run("end", func(t *testing.T) {
		j := d.lock(t, "b", "--grace", "1ms", "--", "sh", "-c", stubborn+" & read line; exit 3")
		pid := strings.TrimSpace(j.stdout.awaitLine(t, "\n"))
		d.next(t, "b", pid, func() { j.stdin.Close() })
		got := j.wait()
		if got.status != 3 {
			t.Errorf("%+v, want 3", got)
		}
		contains(t, got.stderr, pid, "--wait-children waits for them, --orphans=leave lets them run")
	})
	t.Run("reader", func(t *testing.T) { // it ends by itself in a moment
		got := d.lock(t, "c", "--", "sh", "-c", "sleep 0.02; exec 1>&2; sh -c 'sleep 0.02; echo the rest' &").wait()
		if got.status != 0 || got.stderr != "the rest\n" {
			t.Errorf("%+v", got)
		}
	})
}

// The key is lost while leftovers are being ended: they still have their time, and the status says so.
func TestLostWithOrphans(t *testing.T) {
	for _, more := range [][]string{{"--wait-children"}, {"--grace", "500ms"}} {
		d := startDaemon(t)
		args := append(append([]string{"k", "--grace", "1m"}, more...), "--", "sh", "-c", stubborn+" & read line")
		j := d.lock(t, args...)
		pid := strings.TrimSpace(j.stdout.awaitLine(t, "\n"))
		j.stdin.Close()
		if more[0] == "--grace" {
			j.stderr.await(t, "ending processes")
		}
		d.kill()
		j.stderr.await(t, "lost the connection")
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(n, syscall.SIGKILL) // it may have been killed
		if got := j.wait(); got.status != exitLost {
			t.Errorf("%q: %+v, want 76", more, got)
		}
	}
}

// With --wait-children the key is kept until all have ended by themselves; signals go to them once the command has ended.
func TestWaitChildren(t *testing.T) {
	d := startDaemon(t)
	file := filepath.Join(t.TempDir(), "go")
	script := "sh -c 'echo $$; while ! test -e " + file + "; do sleep 0.02; done; echo done' & read line; exit 4"
	begin := func(key string) (j *job, pid string) {
		j = d.lock(t, key, "--wait-children", "--", "sh", "-c", "echo $$; "+script)
		command := strings.TrimSpace(j.stdout.awaitLine(t, "\n"))
		j.stdout.until(func() bool { return strings.Count(string(j.stdout.all), "\n") == 2 })
		j.stdin.Close()
		eventually(t, func() (bool, any) {
			_, err := os.Stat("/proc/" + command)
			return os.IsNotExist(err), "the command has not ended"
		})
		d.dial(t).Do("lock "+key+" 0", "t timeout")
		return j, strings.Fields(j.stdout.String())[1]
	}
	j, pid := begin("a")
	d.next(t, "a", pid, func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if got := j.wait(); got.status != 4 || !strings.HasSuffix(got.stdout, "\ndone\n") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	j, pid = begin("b")
	d.next(t, "b", pid, func() { j.signal(syscall.SIGTERM) })
	if got := j.wait(); got.status != 4 || strings.Contains(got.stdout, "done") {
		t.Errorf("%+v", got)
	}
}

// Signals that end a program of Go with the stacks of its goroutines end this one without, like any other.
func TestNoStackDump(t *testing.T) {
	d := startDaemon(t)
	for _, dumped := range append([]os.Signal{syscall.SIGQUIT}, dumping...) {
		s := dumped.(syscall.Signal)
		t.Run(s.String(), func(t *testing.T) {
			j := d.lock(t, "k", "--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 1000")
			j.stdout.await(t, "ready")
			j.signal(s)
			if got := j.wait(); got.status != 128+int(s) || got.stderr != "" {
				t.Errorf("while it runs a command: %+v, want %d and silence", got, 128+int(s))
			}
			d.free(t, "k")
		})
	}
	asked := make(chan struct{}, 1)
	silent := serve(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1<<16))
		asked <- struct{}{}
		<-t.Context().Done()
	})
	j := begin(t, nil, "status", "--admin", "http://"+silent)
	receive(t, asked)
	j.signal(syscall.SIGABRT)
	if got := j.wait(); got.status != 128+6 || got.stderr != "" {
		t.Errorf("status: %+v, want 134 and silence", got)
	}
	j = d.lock(t, "k")
	j.stderr.await(t, "holding k")
	j.signal(syscall.SIGABRT)
	if got := j.wait(); got.status != 128+6 || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("while it holds a key: %+v, want 134 and no stacks", got)
	}
}
