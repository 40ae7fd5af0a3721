package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// lock begins a lock command at the daemon.
func (d *daemon) lock(tb testing.TB, args ...string) *job {
	tb.Helper()
	return begin(tb, []string{"DREADLOCK_SERVER=" + d.address}, append([]string{"lock"}, args...)...)
}

// free fails the test unless the key is free, or will be: a waiter gets it.
func (d *daemon) free(tb testing.TB, key string) {
	tb.Helper()
	c := d.dial(tb)
	c.Do("lock "+key+" 30000", "l locked")
	c.Do("unlock "+key, "u unlocked")
	c.Close()
}

// obedient is a command that runs until it is told to go on, by a line.
var obedient = []string{"--", "sh", "-c", `echo "runs with $DREADLOCK_KEY of $DREADLOCK_SERVER"; read line; echo "$line"`}

// Two at a time: one runs, the other leaves at once with status 75. When the first is done the key is free.
func TestTry(t *testing.T) {
	d := startDaemon(t)
	try := append([]string{"nightly", "--try"}, obedient...)
	first := d.lock(t, try...)
	first.stdout.await(t, "runs with nightly of "+d.address+"\n")

	began := time.Now()
	second := d.lock(t, try...).wait()
	t.Logf("the second left after %s", time.Since(began).Round(time.Millisecond))
	if second.status != 75 || second.stdout != "" || !oneLine(second.stderr, "somebody else holds nightly", "dreadlockctl waiters nightly") {
		t.Errorf("%+v", second)
	}
	if got := d.lock(t, "nightly", "--try", "-E", "9", "-q", "--", "true").wait(); got.status != 9 || got.stderr != "" {
		t.Errorf("%+v, want 9 and silence", got)
	}
	d.lock(t, append([]string{"other", "--try"}, obedient...)...).stdout.await(t, "runs with other")

	fmt.Fprintln(first.stdin, "done")
	if got := first.wait(); got.status != 0 || got.stderr != "" || !strings.HasSuffix(got.stdout, "\ndone\n") {
		t.Errorf("%+v", got)
	}
	if got := d.lock(t, "nightly", "--try", "--", "true").wait(); got.status != 0 {
		t.Errorf("after the first: %+v", got)
	}
}

// Waiting: until the time is over, or until the key is free; by default for ever.
func TestWait(t *testing.T) {
	d := startDaemon(t)
	holder := d.dial(t)
	holder.Do("lock k 0", "l locked")
	began := time.Now()
	got := d.lock(t, "k", "--wait", "50ms", "--", "true").wait()
	if got.status != 75 || !oneLine(got.stderr, "somebody else holds k") || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	var waiting []*job
	for _, wait := range [][]string{{}, {"--wait", "1h"}, {"-w", "2000000h"}} {
		waiting = append(waiting, d.lock(t, append(append([]string{"k", "-v"}, wait...), "--", "echo", "runs")...))
	}
	for _, j := range waiting {
		j.stderr.await(t, "locking k at "+d.address)
	}
	holder.Do("unlock k", "u unlocked")
	for _, j := range waiting {
		got := j.wait()
		if got.status != 0 || got.stdout != "runs\n" {
			t.Errorf("%+v", got)
		}
		contains(t, got.stderr, "dreadlockctl: locked k after ", "dreadlockctl: held k for ")
	}
}

// The status is that of the command, as a shell would have it.
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
		status  int
		says    string // on one line; nothing if empty
		command []string
	}{
		{0, "", []string{"true"}},
		{7, "", []string{"sh", "-c", "exit 7"}},
		{75, "", []string{"sh", "-c", "exit 75"}},
		{255, "", []string{"sh", "-c", "exit 255"}},
		{128 + 15, "", []string{"sh", "-c", "kill $$"}},
		{128 + 9, "", []string{"sh", "-c", "kill -9 $$"}},
		{127, "no command nonsenseprogram in PATH", []string{"nonsenseprogram"}},
		{127, "no command ./nonsense", []string{"./nonsense"}},
		{127, "does the program in its first line exist", []string{file("interpreter", "#!/missing/sh\n", 0o700)}},
		{126, "chmod +x", []string{file("plain", "#!/bin/sh\n", 0o600)}},
		{126, "is a directory", []string{dir}},
		{126, "#!/bin/sh", []string{file("headless", "echo\n", 0o700)}},
	} {
		got := d.lock(t, append([]string{"k", "--try", "--"}, c.command...)...).wait()
		if got.status != c.status || c.says == "" && got.stderr != "" || c.says != "" && !oneLine(got.stderr, c.says) {
			t.Errorf("%q: %+v, want %d and %q", c.command, got, c.status, c.says)
		}
	}
	// Options behind the command are its own, with -- and without.
	for _, dashes := range [][]string{nil, {"--"}} {
		got := d.lock(t, append(append([]string{"k", "--try"}, dashes...), "echo", "--try", "--", "-v")...).wait()
		if got.status != 0 || got.stdout != "--try -- -v\n" {
			t.Errorf("%q: %+v", dashes, got)
		}
	}
}

// A daemon that is not there, or is none, is told with advice, and is status 69.
func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	liar := serve(t, func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	full := startDaemon(t, "--max-connections", "1", "--loops", "1")
	full.dial(t).Do("lock a 0", "l locked")
	for _, c := range []struct{ address, says string }{
		{nobody, "nothing listens at " + nobody + ": start dreadlock there"},
		{liar, "is --server right?"},
		{full.address, "refuses: too many connections"},
	} {
		got := runs(t, "lock", "k", "--try", "--server", c.address, "--", "echo", "runs")
		if got.status != exitUnreachable || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v, want 69 and one line with %q", c.address, got, c.says)
		}
	}
}

// serve listens and handles each connection until the end of the test.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return l.Addr().String()
}

var allSignals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
}

// Signals to dreadlockctl reach the command, which does with them what it likes.
func TestSignalsArePassedOn(t *testing.T) {
	d := startDaemon(t)
	for name, s := range allSignals {
		t.Run(name, func(t *testing.T) {
			script := fmt.Sprintf(`trap 'kill $!; echo got it; exit 5' %s; sleep 1000 & echo ready; wait`, name)
			j := d.lock(t, "k", "--", "sh", "-c", script)
			j.stdout.await(t, "ready\n")
			j.signal(s)
			if got := j.wait(); got.status != 5 || got.stdout != "ready\ngot it\n" || got.stderr != "" {
				t.Errorf("%+v", got)
			}
			d.free(t, "k")
		})
	}
	t.Run("deadly", func(t *testing.T) {
		j := d.lock(t, "k", "--", "sh", "-c", "echo ready; exec sleep 1000")
		j.stdout.await(t, "ready\n")
		j.signal(syscall.SIGTERM)
		if got := j.wait(); got.status != 128+15 {
			t.Errorf("%+v, want 143", got)
		}
	})
	t.Run("ignored", func(t *testing.T) { // by nohup, and so by all below it
		j := beginCommand(t, []string{"DREADLOCK_SERVER=" + d.address},
			exec.Command("sh", append([]string{"-c", `trap "" HUP; exec "$0" "$@"`, program, "lock", "k"}, obedient...)...))
		j.stdout.await(t, "runs with k")
		j.signal(syscall.SIGHUP)
		fmt.Fprintln(j.stdin, "still there")
		if got := j.wait(); got.status != 0 || !strings.Contains(got.stdout, "still there") {
			t.Errorf("%+v", got)
		}
	})
}

// A signal ends the wait at once: the connection, and with it the place in the line. WINCH is no reason to give up.
func TestSignalWhileWaiting(t *testing.T) {
	for name, s := range allSignals {
		t.Run(name, func(t *testing.T) {
			asked, left := make(chan string, 1), make(chan error, 1)
			address := serve(t, func(conn net.Conn) { // a daemon whose key is held by somebody else
				in := bufio.NewReader(conn)
				command, _ := in.ReadString('\n')
				asked <- command
				_, err := in.ReadByte()
				left <- err
			})
			j := begin(t, nil, "lock", "k", "--server", address, "--", "echo", "runs")
			if command := <-asked; !strings.HasPrefix(command, "lock k 9223372036") {
				t.Fatalf("it sent %q, want a wait for ever", command)
			}
			j.signal(s)
			if s == syscall.SIGWINCH {
				s = syscall.SIGTERM
				j.signal(s)
			}
			<-left
			if got := j.wait(); got.status != 128+int(s) || got.stdout != "" || got.stderr != "" {
				t.Errorf("%+v, want %d", got, 128+int(s))
			}
		})
	}
}

// A daemon that is killed takes the locks with it: the command is ended, with all it has started, and in time.
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
			j := d.lock(t, append([]string{"nightly", "--"}, command...)...)
			j.stdout.await(t, "ready\n")
			began := time.Now()
			d.kill()
			got := j.wait() // its streams end when the last process has
			t.Logf("all ended %s after the daemon", time.Since(began).Round(time.Millisecond))
			if got.status != exitLost || got.stdout != "ready\n" || !oneLine(got.stderr, "and with it nightly: ending the command") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// What does not end of TERM is killed after the grace.
func TestGrace(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "k", "--grace", "50ms", "--", "sh", "-c", "trap '' TERM; sleep 1000 & echo ready; wait; sleep 1000")
	j.stdout.await(t, "ready\n")
	began := time.Now()
	d.kill()
	got := j.wait()
	if got.status != exitLost || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v after %s", got, time.Since(began))
	}
	contains(t, got.stderr, "has not ended after 50ms: killing it")

	// With enough of it a command can tidy up.
	d = startDaemon(t)
	j = d.lock(t, "k", "--", "sh", "-c", "trap 'echo tidy; exit 0' TERM; sleep 1000 & echo ready; wait")
	j.stdout.await(t, "ready\n")
	d.kill()
	if got := j.wait(); got.status != exitLost || got.stdout != "ready\ntidy\n" {
		t.Errorf("%+v", got)
	}
}

func TestOnLostWarn(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, append([]string{"k", "--on-lost=warn"}, obedient...)...)
	j.stdout.await(t, "runs with k")
	d.kill()
	j.stderr.await(t, "somebody else may hold it now, and the command runs on")
	fmt.Fprintln(j.stdin, "done")
	if got := j.wait(); got.status != 0 || !strings.HasSuffix(got.stdout, "\ndone\n") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("%+v", got)
	}
}

// Whoever kills dreadlockctl kills the command.
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

// Without a command the key is held until somebody wants an end, or it is lost.
func TestHold(t *testing.T) {
	d := startDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		j := d.lock(t, "k")
		j.stderr.await(t, "holding k; Ctrl-C gives it up\n")
		j.signal(syscall.SIGWINCH)
		d.dial(t).Do("lock k 0", "t timeout")
		j.signal(s)
		if got := j.wait(); got.status != 0 || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: %+v", s, got)
		}
		d.free(t, "k")
	}
	j := d.lock(t, "k", "--on-lost=warn")
	j.stderr.await(t, "holding k")
	d.kill()
	if got := j.wait(); got.status != exitLost || !strings.Contains(got.stderr, "and with it k: somebody else may hold it now") {
		t.Errorf("%+v", got)
	}
}

// What the command leaves in the background is not waited for, and not ended.
func TestBackground(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "k", "--", "sh", "-c", "sleep 1000 & echo $!")
	if status := j.waitStatus(); status != 0 {
		t.Errorf("status %d", status)
	}
	d.free(t, "k")
	j.stdout.await(t, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(j.stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process in the background has ended: %v", err)
	}
	j.stdout.awaitEnd(t)
}

// Whoever loses its parent while the command runs is reaped when it ends.
func TestOrphans(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "k", "--", "sh", "-c", `sh -c 'true & echo $!'; echo; read line`)
	j.stdout.await(t, "\n\n")
	orphan := strings.TrimSpace(j.stdout.String())
	for deadline := time.Now().Add(prototest.Patience); ; {
		if _, err := os.Stat("/proc/" + orphan); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is a zombie")
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // nothing tells that a process has gone
	}
	j.stdin.Close()
	j.wait()
}

// An unlock that fails is told, and the status stays that of the command.
func TestUnlockFails(t *testing.T) {
	address := serve(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		in.ReadString('\n')
		fmt.Fprint(conn, "l locked\r\n")
		in.ReadString('\n') // unlock
	})
	got := runs(t, "lock", "k", "--server", address, "--", "sh", "-c", "exit 3")
	if got.status != 3 || !oneLine(got.stderr, "has not confirmed that k is free") {
		t.Errorf("%+v", got)
	}
}

// A reader of the warnings that goes away does not take the command with it, and a command dies of a broken pipe as
// ever.
func TestBrokenPipe(t *testing.T) {
	d := startDaemon(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	defer write.Close()
	cmd := exec.Command(program, "lock", "k", "-v", "--server", d.address, "--", "sh", "-c", "exit 4")
	cmd.Env, cmd.Stderr = environment(), write
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("%v, want 4", err)
	}
	cmd = exec.Command(program, "lock", "k", "--server", d.address, "--", "cat", "/dev/zero")
	cmd.Env, cmd.Stdout = environment(), write
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 128+int(unix.SIGPIPE) {
		t.Errorf("%v, want 141", err)
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		text        string
		pid, parent int
		running     bool
	}{
		{"7 (sleep) S 1 7 7 0", 7, 1, true},
		{"123 (a (b) c) R) R 45 1", 123, 45, true},
		{"7 (sh) T 2 7", 7, 2, true},
		{"7 (sleep) Z 1 7", 7, 1, false},
		{"", 0, 0, false},
		{"7 (sleep)", 0, 0, false},
		{"x (sleep) S 1", 0, 0, false},
	} {
		pid, parent, running := parseStat([]byte(c.text))
		if pid != c.pid || parent != c.parent || running != c.running {
			t.Errorf("%q: %d %d %v", c.text, pid, parent, running)
		}
	}
}
