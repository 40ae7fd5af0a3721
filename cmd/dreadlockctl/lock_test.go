package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// lock begins dreadlockctl lock at a daemon.
func (d *daemon) lock(tb testing.TB, args ...string) *job {
	tb.Helper()
	return begin(tb, []string{"DREADLOCK_SERVER=" + d.address}, append([]string{"lock"}, args...)...)
}

// free expects that nobody holds the key, or will not for long: a key is free when the daemon sees its holder's end.
func (d *daemon) free(tb testing.TB, key string) {
	tb.Helper()
	c := d.dial(tb)
	c.Do("lock "+key+" 30000", "l locked")
	c.Do("unlock "+key, "u unlocked")
}

// awaitEnd waits until a process that is none of ours has ended.
func awaitEnd(tb testing.TB, pid int) {
	tb.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if _, _, running := parseStat(text); !running {
			return // a zombie that nobody has asked for
		}
		if time.Now().After(deadline) {
			tb.Fatalf("process %d still runs", pid)
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // nobody tells of the end of somebody else's child
	}
}

// pid reads a process number that a command has printed.
func (j *job) pid() int {
	j.tb.Helper()
	j.stdout.await(j.tb, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(j.stdout.String()))
	if err != nil {
		j.tb.Fatal(err)
	}
	return pid
}

// One runs, and the other leaves at once, with a status that says why.
func TestTwoJobs(t *testing.T) {
	d := startDaemon(t)
	script := filepath.Join(t.TempDir(), "job.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"runs with $DREADLOCK_KEY of $DREADLOCK_SERVER\"\nread line\necho \"read $line\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	first := d.lock(t, "nightly", "--try", "--", script)
	first.stdout.await(t, "runs with nightly of "+d.address)
	second := d.lock(t, "nightly", "--try", "--", script).wait()
	if second.status != exitConflict || second.stdout != "" || !oneLine(second.stderr, "somebody else holds nightly") {
		t.Errorf("the second: %+v, want %d", second, exitConflict)
	}
	if third := d.lock(t, "nightly", "--try", "-E", "0", "-q", "--", script).wait(); third != (outcome{}) {
		t.Errorf("the third wants no fuss about it: %+v", third)
	}
	if fourth := d.lock(t, "nightly", "--wait", "50ms", "--", script).wait(); fourth.status != exitConflict {
		t.Errorf("the fourth waits 50 ms: %+v", fourth)
	}
	fmt.Fprintln(first.stdin, "on")
	if got := first.wait(); got.status != 0 || !strings.HasSuffix(got.stdout, "read on\n") || got.stderr != "" {
		t.Errorf("the first: %+v", got)
	}
	d.free(t, "nightly")
}

// Who waits runs when his turn comes.
func TestWaits(t *testing.T) {
	d := startDaemon(t)
	holder := d.dial(t)
	holder.Do("lock a 0", "l locked")
	j := d.lock(t, "a", "-v", "--", "echo", "my turn")
	j.stderr.await(t, "locking a at "+d.address)
	holder.Do("unlock a", "u unlocked")
	if got := j.wait(); got.status != 0 || got.stdout != "my turn\n" || !strings.Contains(got.stderr, "locked a after") ||
		!strings.Contains(got.stderr, "held a for") {
		t.Errorf("%+v", got)
	}
}

// The exit status is that of the command, as a shell has it.
func TestExitStatus(t *testing.T) {
	d := startDaemon(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		command []string
		status  int
		says    string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "exit 42"}, 42, ""},
		{[]string{"sh", "-c", "kill -USR1 $$"}, exitSignal + int(syscall.SIGUSR1), ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, exitSignal + int(syscall.SIGKILL), ""},
		{[]string{"no-such-command"}, exitNotFound, "there is no command no-such-command"},
		{[]string{"/no/such/command"}, exitNotFound, "there is no command /no/such/command"},
		{[]string{file("data", "no program", 0o600)}, exitNotExecutable, "chmod +x"},
		{[]string{file("text", "no program", 0o700)}, exitNotExecutable, "its first line"},
		{[]string{file("script", "#!/no/such/shell\n", 0o700)}, exitNotFound, "the program in its first line"},
	} {
		got := d.lock(t, append([]string{"a", "--"}, c.command...)...).wait()
		if got.status != c.status || got.stdout != "" || !strings.Contains(got.stderr, c.says) || c.says == "" && got.stderr != "" {
			t.Errorf("%q: %+v, want %d and %q", c.command, got, c.status, c.says)
		}
		d.free(t, "a")
	}
}

// Where there is no daemon, it says what to do.
func TestNoDaemon(t *testing.T) {
	d := startDaemon(t)
	d.kill()
	got := d.lock(t, "a", "--try", "--", "true").wait()
	if got.status != exitUnreachable || !oneLine(got.stderr, "nothing listens at "+d.address, "--server") {
		t.Errorf("%+v", got)
	}
}

// The daemon dies under a command: it is ended, with all that it has started.
func TestDaemonKilled(t *testing.T) {
	for _, c := range []struct {
		name    string
		command []string
		says    string
	}{
		{"command", []string{"sh", "-c", "echo $$; exec sleep 1000"}, ""},
		{"descendants", []string{"sh", "-c", "sleep 1000 & setsid sleep 1000 & echo $!; wait"}, ""},
		{"deaf", []string{"sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1000; done"}, "killing it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDaemon(t)
			grace := "100ms"
			if c.says == "" {
				grace = "1h"
			}
			j := d.lock(t, append([]string{"a", "--grace", grace, "--"}, c.command...)...)
			pid := j.pid()
			began := time.Now()
			d.kill()
			status := j.waitStatus()
			t.Logf("ended %s after the daemon", time.Since(began))
			if status != exitLost {
				t.Errorf("status %d, want %d", status, exitLost)
			}
			contains(t, j.stderr.String(), "lost the connection", c.says)
			awaitEnd(t, pid)
			j.wait() // nobody of them has the streams any more
		})
	}
}

// With --on-lost=warn the command runs on, and is not unlocked for.
func TestLostWarning(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "a", "--on-lost=warn", "--", "sh", "-c", "echo begun; read line; exit 7")
	j.stdout.await(t, "begun")
	d.kill()
	j.stderr.await(t, "the command runs on")
	fmt.Fprintln(j.stdin)
	if got := j.wait(); got.status != 7 || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%+v", got)
	}
}

// Signals go to the command, which decides what they mean.
func TestSignals(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "a", "--", "sh", "-c", `
		for s in INT TERM HUP QUIT USR1 USR2; do trap "echo got $s" $s; done
		echo ready
		while [ "$line" != end ]; do read line; done # a signal ends a read
		exit 3`)
	j.stdout.await(t, "ready")
	for s, name := range map[syscall.Signal]string{
		syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP",
		syscall.SIGQUIT: "QUIT", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2",
	} {
		j.signal(s)
		fmt.Fprintln(j.stdin, "a shell looks at signals between two commands")
		j.stdout.await(t, "got "+name)
	}
	fmt.Fprintln(j.stdin, "end")
	if got := j.wait(); got.status != 3 {
		t.Errorf("%+v, want 3", got)
	}
	d.free(t, "a")
}

// Whoever kills dreadlockctl kills the command: the key is free, and it must not work on.
func TestKilled(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "a", "--", "sh", "-c", "echo $$; exec sleep 1000")
	pid := j.pid()
	j.signal(syscall.SIGKILL)
	awaitEnd(t, pid)
	d.free(t, "a")
}

// An interrupt while it waits ends the wait, and the queue is one shorter.
func TestInterruptedWait(t *testing.T) {
	d := startDaemon(t, "--loops", "1")
	holder := d.dial(t)
	holder.Do("lock a 0", "l locked")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		j := d.lock(t, "a", "-v", "--", "echo", "not to be run")
		j.stderr.await(t, "locking a")
		j.signal(s)
		if got := j.wait(); got.status != exitSignal+int(s) || got.stdout != "" {
			t.Errorf("%v: %+v, want %d", s, got, exitSignal+int(s))
		}
	}
	next := d.dial(t)
	next.Send("lock a 30000")
	holder.Do("unlock a", "u unlocked")
	next.Expect("l locked")
}

// Without a command it holds the key until somebody wants an end, or the daemon is gone.
func TestHold(t *testing.T) {
	d := startDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		j := d.lock(t, "a")
		j.stderr.await(t, "holding a")
		d.dial(t).Do("lock a 0", "t timeout")
		j.signal(s)
		if got := j.wait(); got.status != 0 {
			t.Errorf("%v: %+v, want 0", s, got)
		}
		other := d.dial(t)
		other.Do("lock a 30000", "l locked")
		other.Do("unlock a", "u unlocked")
	}
	j := d.lock(t, "a")
	j.stderr.await(t, "holding a")
	d.kill()
	if got := j.wait(); got.status != exitLost {
		t.Errorf("%+v, want %d", got, exitLost)
	}
}

// In a terminal the command has it: it reads what is typed, and gets an interrupt from the keyboard once.
func TestTerminal(t *testing.T) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("there is no script(1) here to make a terminal")
	}
	d := startDaemon(t)
	inner := fmt.Sprintf("%s lock a --server %s -- sh -c 'trap \"echo interrupted\" INT; echo ready; while [ \"$line\" != end ]; do line=; read line; echo \"typed $line\"; done'",
		program, d.address)
	j := beginCommand(t, nil, exec.Command(script, "-qec", inner, "/dev/null"))
	j.stdout.await(t, "ready")
	fmt.Fprintln(j.stdin, "something")
	j.stdout.await(t, "typed something")
	fmt.Fprint(j.stdin, "\x03")
	j.stdout.await(t, "interrupted")
	fmt.Fprintln(j.stdin, "more")
	j.stdout.await(t, "typed more")
	if n := strings.Count(j.stdout.String(), "interrupted"); n != 1 {
		t.Errorf("the command was interrupted %d times, want once", n)
	}
	fmt.Fprintln(j.stdin, "end")
	if status := j.waitStatus(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		text        string
		pid, parent int
		running     bool
	}{
		{"7 (sleep) S 1 7 7 0", 7, 1, true},
		{"8 (a ) S (b) R 12 8", 8, 12, true},
		{"9 (gone) Z 1 9", 9, 1, false},
		{"", 0, 0, false},
		{"10 (cut", 0, 0, false},
		{"11 (cut) S", 0, 0, false},
	} {
		pid, parent, running := parseStat([]byte(c.text))
		if pid != c.pid || parent != c.parent || running != c.running {
			t.Errorf("%q: %d, %d, %t", c.text, pid, parent, running)
		}
	}
}

func TestExitUnwraps(t *testing.T) {
	if err := failed(1, "x: %w", os.ErrNotExist); !errors.Is(err, os.ErrNotExist) || err.Error() != "x: file does not exist" {
		t.Errorf("%v", err)
	}
}
