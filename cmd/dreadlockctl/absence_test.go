package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// comesAndGoes is a place where a daemon listens at times.
type comesAndGoes struct {
	tb     testing.TB
	socket string
}

func newPlace(tb testing.TB) *comesAndGoes {
	tb.Helper()
	dir, err := os.MkdirTemp("", "ctl") // the path of a Unix socket must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return &comesAndGoes{tb, "unix://" + filepath.Join(dir, "s")}
}

// start starts a daemon there, where somebody holds the key k: he comes before the daemon can be found, by those who wait.
func (p *comesAndGoes) start() (*daemon, *prototest.Client) {
	p.tb.Helper()
	hidden := p.socket + "-hidden"
	d := startDaemon(p.tb, "--listen", hidden)
	holder := d.dial(p.tb)
	holder.Do("lock k 0", "l locked")
	if err := os.Rename(strings.TrimPrefix(hidden, "unix://"), strings.TrimPrefix(p.socket, "unix://")); err != nil {
		p.tb.Fatal(err)
	}
	return d, holder
}

func (p *comesAndGoes) lock(args ...string) *job {
	p.tb.Helper()
	return begin(p.tb, []string{"DREADLOCK_SERVER=" + p.socket}, append([]string{"lock", "k"}, args...)...)
}

// A wait lasts through the absence of the daemon, before its start and after its end. One line says when that begins, and
// one when it ends.
func TestWaitCoversAbsence(t *testing.T) {
	p := newPlace(t)
	j := p.lock("--", "echo", "runs")
	j.stderr.await(t, "cannot reach the daemon: trying again: there is no socket at "+p.socket)
	first, _ := p.start()
	j.stderr.await(t, "waits for k again, at the end of the line\n")
	first.kill()
	j.stderr.await(t, "cannot reach "+p.socket+" any more: trying again")
	before := j.stderr.len()
	_, holder := p.start()
	j.stderr.awaitAfter(t, before, "waits for k again, at the end of the line\n")
	holder.Do("unlock k", "u unlocked")
	if got := j.wait(); got.status != 0 || got.stdout != "runs\n" || strings.Count(got.stderr, "\n") != 4 {
		t.Errorf("%+v, want the command to run, and four lines", got)
	}
}

// The absence ends with the key at once.
func TestReachedAgain(t *testing.T) {
	p := newPlace(t)
	j := p.lock("--wait", "1h", "--", "echo", "runs")
	j.stderr.await(t, "trying again")
	startDaemon(t, "--listen", p.socket)
	if got := j.wait(); got.status != 0 || got.stdout != "runs\n" || !strings.HasSuffix(got.stderr, "has reached "+p.socket+": locked k\n") {
		t.Errorf("%+v", got)
	}
}

// --wait bounds the absence too, and --try does not try again.
func TestAbsenceEndsTheWait(t *testing.T) {
	p := newPlace(t)
	began := time.Now()
	got := p.lock("--wait", "300ms", "--", "true").wait()
	if took := time.Since(began); got.status != exitUnreachable || took < 300*time.Millisecond {
		t.Errorf("%+v after %s", got, took)
	}
	contains(t, got.stderr, "trying again", "\ndreadlockctl: there is no socket at")
	if got := p.lock("--try", "--", "true").wait(); got.status != exitUnreachable || !oneLine(got.stderr, "there is no socket at") {
		t.Errorf("%+v", got)
	}
}

// A daemon that is stopped does not answer: --connect-timeout bounds a try, and what comes after a wait.
func TestStoppedDaemon(t *testing.T) {
	p := newPlace(t)
	d, _ := p.start()
	if err := d.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []string{"--try", "--wait=100ms"} {
		got := p.lock(wait, "--connect-timeout", "100ms", "--", "true").wait()
		if got.status != exitUnreachable || !oneLine(got.stderr, "does not answer: it may be stopped") {
			t.Errorf("%s: %+v", wait, got)
		}
	}
}

// With --restart the command runs again when the key was lost and is had again, until it ends by itself.
func TestRestart(t *testing.T) {
	p := newPlace(t)
	d := startDaemon(t, "--listen", p.socket)
	j := p.lock("--restart", "--", "sh", "-c", `echo "runs with $DREADLOCK_KEY"; read line; exit 76`)
	const runs = "runs with k\n"
	j.stdout.await(t, runs)
	for range 2 {
		before := j.stdout.len()
		d.kill()
		j.stderr.await(t, "waiting for k again")
		d = startDaemon(t, "--listen", p.socket)
		j.stdout.awaitAfter(t, before, runs)
	}
	j.stdin.Close()
	if got := j.wait(); got.status != 76 || got.stdout != strings.Repeat(runs, 3) {
		t.Errorf("%+v, want the status of the command after three runs", got)
	}
}

// A signal ends a service for good: while it runs, while it is being ended because the key was lost, and while it waits.
func TestRestartEnds(t *testing.T) {
	p := newPlace(t)
	start := func(command ...string) (*daemon, *job) {
		d := startDaemon(t, "--listen", p.socket)
		j := p.lock(append([]string{"--restart", "--grace", "1m"}, command...)...)
		j.stdout.await(t, "ready")
		return d, j
	}
	d, j := start(childCommand("wait")...)
	j.signal(syscall.SIGTERM)
	if got := j.wait(); got.status != 128+15 {
		t.Errorf("while it runs: %+v", got)
	}
	d.kill()
	d, j = start(childCommand("wait")...)
	d.kill()
	j.stderr.await(t, "trying again")
	j.signal(syscall.SIGTERM)
	if got := j.wait(); got.status != 128+15 {
		t.Errorf("while it waits: %+v", got)
	}
	d, j = start("--", "sh", "-c", `trap "echo got it" TERM; echo ready; while :; do sleep 0.05; done`)
	d.kill()
	j.stdout.await(t, "ready\ngot it\n")
	j.signal(syscall.SIGTERM)
	j.stdout.await(t, "ready\ngot it\ngot it\n")
	j.signal(syscall.SIGUSR1) // which ends it
	if got := j.wait(); got.status != exitLost {
		t.Errorf("while it is being ended: %+v", got)
	}
}

// An operator who kicks a wait ends it: the client does not stand in line again.
func TestKickedWait(t *testing.T) {
	v := startViewed(t)
	v.dial(t).Do("lock k 0", "l locked")
	j := v.lock(t, "k", "--", "echo", "runs")
	var page api.ConnectionPage
	v.eventually("connections --waiting --json", func(o outcome) bool {
		return json.Unmarshal([]byte(o.stdout), &page) == nil && len(page.Connections) == 1
	})
	v.says("kick -y "+number(page.Connections[0].Connection), "kicked")
	if got := j.wait(); got.status != exitKicked || got.stdout != "" || !oneLine(got.stderr, "an operator has ended the wait for k") {
		t.Errorf("%+v, want 77", got)
	}
}
