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

// free fails the test unless the key is or becomes free.
func (d *daemon) free(tb testing.TB, key string) {
	tb.Helper()
	c := d.dial(tb)
	c.Do("lock "+key+" 30000", "l locked")
	c.Do("unlock "+key, "u unlocked")
	c.Close()
}

// obedient is a command that runs until it gets a line of input.
var obedient = []string{"--", "sh", "-c", `echo "runs with $DREADLOCK_KEY of $DREADLOCK_SERVER"; read line; echo "$line"`}

// Of two at a time one runs, and the other gives up at once with status 75. When the first has ended the key is free.
func TestTry(t *testing.T) {
	d := startDaemon(t)
	try := append([]string{"nightly", "--try"}, obedient...)
	first := d.lock(t, try...)
	first.stdout.await(t, "runs with nightly of "+d.address+"\n")

	began := time.Now()
	second := d.lock(t, try...).wait()
	t.Logf("the second left after %s", time.Since(began).Round(time.Millisecond))
	if second.status != 75 || second.stdout != "" || !oneLine(second.stderr, "somebody else holds nightly", "dreadlockctl waiters nightly --server "+d.address+" shows who") {
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

// It waits until the time has run out or until the key is free; by default without a limit.
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

// The options of flock are understood.
func TestHabitsOfFlock(t *testing.T) {
	d := startDaemon(t)
	holder := d.dial(t)
	holder.Do("lock k 0", "l locked")
	for _, args := range [][]string{
		{"k", "-n"}, {"k", "--nonblock"}, {"-n", "k"}, {"k", "--nb"}, {"k", "-w", "0.05"}, {"k", "-w", "0"}, {"k", "-w0.05"},
		{"k", "--timeout", "0.05"}, {"k", "--wait=50ms"},
	} {
		began := time.Now()
		got := d.lock(t, append(args, "-E", "9", "-c", "echo runs")...).wait()
		if got.status != 9 || !oneLine(got.stderr, "somebody else holds k") || strings.Contains(args[len(args)-1], "5") && time.Since(began) < 50*time.Millisecond {
			t.Errorf("%q: %+v after %s, want 9", args, got, time.Since(began))
		}
	}
	holder.Do("unlock k", "u unlocked")
	for _, args := range [][]string{
		{"k", "-c", "echo a && echo $0; exit 3"}, {"-w", "5", "k", "-c", "echo a && echo $0; exit 3"},
		{"k", "--shell", "echo a && echo $0; exit 3"}, {"k", "--command=echo a && echo $0; exit 3"},
	} {
		if got := d.lock(t, args...).wait(); got.status != 3 || got.stdout != "a\nsh\n" || got.stderr != "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// The status is that of the command, as in a shell.
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
	// Options after the command are its own, with -- and without.
	for _, dashes := range [][]string{nil, {"--"}} {
		got := d.lock(t, append(append([]string{"k", "--try"}, dashes...), "echo", "--try", "--", "-v")...).wait()
		if got.status != 0 || got.stdout != "--try -- -v\n" {
			t.Errorf("%q: %+v", dashes, got)
		}
	}
}

// If there is no daemon, or something else at its address, there is advice and status 69.
func TestUnreachable(t *testing.T) {
	nobody := deaf(t)
	liar := serve(t, func(conn net.Conn) { fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	full := startDaemon(t, "--max-connections", "1", "--loops", "1")
	full.dial(t).Do("lock a 0", "l locked")
	for _, c := range []struct{ address, says string }{
		{nobody, "nothing listens at " + nobody + ": start dreadlock there"},
		{noHost + ":6001", "there is no such host"},
		{liar, "is not a lock daemon: is --server right?"},
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

// Without a command the key is held until a signal comes or it is lost.
func TestHold(t *testing.T) {
	d := startDaemon(t)
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		j := d.lock(t, "k")
		j.stderr.await(t, "holding k; Ctrl-C releases it\n")
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
	if got := j.wait(); got.status != exitLost || !strings.Contains(got.stderr, "and with it the key k: somebody else may hold it now") {
		t.Errorf("%+v", got)
	}
}

// The key is held for --at-least in all, also when the command is done sooner. A signal ends that, and one that has ended
// the command as well.
func TestAtLeast(t *testing.T) {
	d := startDaemon(t)
	next := d.dial(t)
	began := time.Now()
	j := d.lock(t, "k", "--at-least", "700ms", "--", "sh", "-c", "echo ready; exit 3")
	j.stdout.await(t, "ready")
	next.Do("lock k 60000", "l locked")
	if held := time.Since(began); held < 700*time.Millisecond {
		t.Errorf("the next has it after %s", held)
	}
	if got := j.wait(); got.status != 3 || got.stderr != "" {
		t.Errorf("%+v, want 3", got)
	}
	j = d.lock(t, "a", "--at-least", "1h", "-v", "--", "true")
	j.stderr.await(t, "keeping a")
	j.signal(syscall.SIGHUP)
	if got := j.wait(); got.status != 0 {
		t.Errorf("%+v, want 0", got)
	}
	j = d.lock(t, append([]string{"b", "--at-least", "1h"}, childCommand("catch", "TERM")...)...)
	j.stdout.await(t, "ready")
	j.signal(syscall.SIGTERM)
	if got := j.wait(); got.status != 5 {
		t.Errorf("%+v, want 5", got)
	}
	j = d.lock(t, "c", "--at-least", "1h", "-v", "--", "true")
	j.stderr.await(t, "keeping c")
	d.kill()
	if got := j.wait(); got.status != 0 || !strings.Contains(got.stderr, "before it was held for 1h") {
		t.Errorf("%+v, want 0 and a warning", got)
	}
}

// With --orphans=leave, what the command leaves in the background is neither waited for nor ended.
func TestBackground(t *testing.T) {
	d := startDaemon(t)
	j := d.lock(t, "k", "--orphans=leave", "--", "sh", "-c", "sleep 1000 & echo $!")
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

// A process whose parent ends while the command runs is reaped when it ends itself.
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

// An unlock that fails is reported, and the status stays that of the command.
func TestUnlockFails(t *testing.T) {
	address := serve(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for range 4 { // name, owner, lock, fence
			in.ReadString('\n')
		}
		fmt.Fprint(conn, "n named 60000 00000000000000af\r\no owned\r\nl locked\r\nf 7\r\n")
		in.ReadString('\n') // unlock
	})
	got := runs(t, "lock", "k", "--server", address, "--", "sh", "-c", "exit 3")
	if got.status != 3 || !oneLine(got.stderr, "has not confirmed the unlock of k") {
		t.Errorf("%+v", got)
	}
}

// The command survives the reader of the warnings, and still dies of its own broken pipe.
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
