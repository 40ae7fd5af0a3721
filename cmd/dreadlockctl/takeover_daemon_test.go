package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// takeOver has the daemon taken over, and returns what dreadlockctl says. The new process is killed at the end of the test.
func (v *viewed) takeOver(t *testing.T) (done api.Takeover) {
	t.Helper()
	got := v.ctl("takeover", "--json")
	if err := json.Unmarshal([]byte(got.stdout), &done); err != nil || got.status != 0 || got.stderr != "" {
		t.Fatalf("%v, %+v; log:\n%s", err, got, v.log)
	}
	t.Cleanup(func() { _ = syscall.Kill(done.PID, syscall.SIGKILL) }) // it is nobody's child
	return done
}

// Holders and waiters keep what they have, and every command that looks at the daemon or uses it goes on: lock, watch and top
// notice no more than a moment.
func TestTakeoverOfDaemon(t *testing.T) {
	v := startViewed(t)
	holder, waiter := v.dial(t), v.dial(t)
	holder.Do("lock k 0", "l locked")
	waiter.Send("lock k 600000")
	v.eventually("waiters k", func(o outcome) bool { return strings.Contains(o.stdout, waiter.Conn().LocalAddr().String()) })
	lock := v.lock(t, append([]string{"nightly"}, obedient...)...)
	lock.stdout.await(t, "runs with nightly")
	env := []string{"DREADLOCK_ADMIN=" + v.url}
	watch, top := begin(t, env, "watch", "k", "--json", "--limit", "1"), begin(t, env, "top", "--json", "-i", "100ms")
	watch.stdout.await(t, `"kind":"granted"`)
	top.stdout.await(t, "\n")

	first := v.takeOver(t)
	if first.Count != 1 || first.FromPID != v.cmd.Process.Pid || first.PID == first.FromPID || first.Connections != 3 || first.HeldKeys != 2 ||
		first.Waiters != 1 || first.Closed != 0 || first.PauseSeconds <= 0 {
		t.Errorf("%+v", first)
	}
	v.exitsWell(t)
	contains(t, v.log.String(), "dreadlock has handed over", "dreadlock has taken over")
	v.says("status", fmt.Sprintf(`(?m)^process +%d\ntook over +from process %d \(`, first.PID, first.FromPID), `held keys +2\b`, `waiters +1\b`, `lock +2 locked`)
	v.says("takeover", fmt.Sprintf(`^process \d+ \(.*\) has taken over from %d \(.*\): nobody was answered for \d+ ms\n`, first.PID),
		`handed over: 3 connections, 2 held keys, 1 waiter\n$`)
	var status api.Status
	if err := json.Unmarshal([]byte(v.ctl("status", "--json").stdout), &status); err != nil || status.Takeover == nil || status.Takeover.Count != 2 {
		t.Fatalf("%v, %+v", err, status.Takeover)
	}
	t.Cleanup(func() { _ = syscall.Kill(status.PID, syscall.SIGKILL) })

	watch.stderr.await(t, "watches again\n")
	holder.Do("unlock k", "u unlocked")
	waiter.Expect("l locked")
	watch.stdout.await(t, `"kind":"released"`)
	top.stdout.await(t, fmt.Sprintf(`"pid":%d,`, status.PID))
	goOn(t, top.stdout.String())
	fmt.Fprintln(lock.stdin, "done")
	if got := lock.wait(); got.status != 0 || got.stderr != "" {
		t.Errorf("lock: %+v", got)
	}
}

// A takeover is how options change: the new process reads the file of them. The default socket of the admin interface goes over
// like an address, and one that the new options do not have any more is closed. A file that makes no sense is no takeover.
func TestTakeoverChangesOptions(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "options")
	write := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("DREADLOCK_LOOPS=2\nDREADLOCK_ADMIN_LISTEN=127.0.0.1:0\n")
	d := startDaemonIn(t, dir, "--options-file", file)
	v := &viewed{daemon: d, tb: t, url: d.adminSocket(dir)}
	gone := adminURL(t, d)
	holder := v.dial(t)
	holder.Do("lock k 0", "l locked")

	write("DREADLOCK_LOOPS=many\n")
	if got := v.ctl("takeover"); got.status != exitFailed || !oneLine(got.stderr, "no takeover: ", "--loops", "; the daemon serves on as before") {
		t.Errorf("%+v", got)
	}
	v.says("status", "2 loops", "held keys +1")
	write("DREADLOCK_LOOPS=3\nDREADLOCK_MAX_KEYS=1\n")
	v.takeOver(t)
	v.says("status", "3 loops", "held keys +1", "takeovers +1 failed")
	holder.Do("lock more 0", "e too many keys")
	holder.Do("unlock k", "u unlocked")
	if got := runs(t, "status", "--admin", gone); got.status != exitUnreachable || !oneLine(got.stderr, "nothing listens at") {
		t.Errorf("%+v", got)
	}
}

// goOn fails the test unless the samples of top, a line each, are of one server: nothing counts from zero, and there are rates.
func goOn(t *testing.T, lines string) {
	t.Helper()
	var before *sample
	for line := range strings.Lines(lines) {
		if !strings.HasSuffix(line, "\n") {
			return // it is being written
		}
		l := new(sample)
		if err := json.Unmarshal([]byte(line), l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if before != nil {
			was, is := &before.Status, &l.Status
			if !is.Started.Equal(was.Started) || is.UptimeSeconds <= was.UptimeSeconds || l.Rates == nil ||
				commands(&is.Counters, "", "") < commands(&was.Counters, "", "") || is.Counters.Messages < was.Counters.Messages ||
				is.Counters.WakeUps < was.Counters.WakeUps || is.Counters.Accepted < was.Counters.Accepted {
				t.Errorf("after %+v\ncomes  %+v", was, is)
			}
		}
		before = l
	}
}

// A daemon that drains refuses, says why, and serves on.
func TestTakeoverRefused(t *testing.T) {
	v := startViewed(t)
	holder := v.dial(t)
	holder.Do("lock k 0", "l locked")
	v.says("drain --timeout 1h", "1 held key")
	if got := v.ctl("takeover"); got.status != exitFailed || !oneLine(got.stderr, "no takeover: ", "drain", "; the daemon serves on as before") {
		t.Errorf("%+v", got)
	}
	v.says("status", `(?m)^takeovers +1 failed: the log says why$`)
	holder.Do("unlock k", "u unlocked")
}

// A connection by TLS is closed in order, and what it held goes to the next. It is counted, and said.
func TestTakeoverClosesTLS(t *testing.T) {
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server("localhost"))
	v := startViewed(t, "--listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	_, rest, _ := strings.Cut(v.log.awaitLine(t, "dreadlock is ready"), `"tls://127.0.0.1:`)
	port, _, _ := strings.Cut(rest, `"`)
	env := []string{"DREADLOCK_SERVER=tls://localhost:" + port, "DREADLOCK_TLS_CA=" + ca.File()}
	lock := begin(t, env, append([]string{"lock", "k"}, obedient...)...)
	lock.stdout.await(t, "runs with k")
	waiter := v.dial(t)
	waiter.Send("lock k 600000")
	v.eventually("waiters k", func(o outcome) bool { return strings.Contains(o.stdout, waiter.Conn().LocalAddr().String()) })
	if done := v.takeOver(t); done.Closed != 1 || done.Connections != 1 || done.HeldKeys != 1 || done.Waiters != 1 {
		t.Errorf("%+v", done)
	}
	waiter.Expect("l locked")
	if got := lock.wait(); got.status != exitLost {
		t.Errorf("%+v", got)
	}
	v.says("status", `(?m)^ended +1 takeover$`)
	v.says("history k", `lost .* takeover`)
}
