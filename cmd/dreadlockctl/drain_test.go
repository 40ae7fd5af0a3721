package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

var fakeDrain = api.Drain{Since: began, Until: began.Add(90 * time.Second), SecondsLeft: 72.5, HeldKeys: 3, Waiters: 1}

// drainAt returns a state of the drain.
func drainAt(left float64, keys, waiters int) api.Drain {
	d := fakeDrain
	d.SecondsLeft, d.HeldKeys, d.Waiters = left, keys, waiters
	return d
}

// over returns the last state of the drain.
func over(lost int) api.Drain {
	d := drainAt(0, lost, 0)
	d.Over = true
	return d
}

// What a drain shows and asks for, and how it ends.
func TestDrainShows(t *testing.T) {
	for _, c := range []struct {
		args   string
		states []api.Drain
		cut    bool
		status int
		asks   string
		shows  string
		says   string // on stderr
	}{
		{args: "", asks: "POST /api/v1/drain", shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n"},
		{args: "--timeout 90s", asks: "POST /api/v1/drain?timeout=90", shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n"},
		{args: "--timeout 0s", asks: "POST /api/v1/drain?timeout=0", shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n"},
		{
			args: "--wait --timeout 1.5s", asks: "POST /api/v1/drain?timeout=1.5&wait=true",
			states: []api.Drain{fakeDrain, drainAt(71.5, 3, 1), drainAt(70.5, 3, 0), drainAt(69.5, 1, 0), over(0)},
			shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n" + "draining: 3 held keys, 0 waiters, 1 min 10 s left\n" +
				"draining: 1 held key, 0 waiters, 1 min 9 s left\n" + "drained: the daemon has ended, and no key is lost\n",
		},
		{
			args: "--wait", asks: "POST /api/v1/drain?wait=true", states: []api.Drain{fakeDrain, over(2)}, status: exitFailed,
			shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n", says: "the daemon has ended, and 2 keys are lost: its log names them",
		},
		{
			args: "--wait", asks: "POST /api/v1/drain?wait=true", states: []api.Drain{over(1)}, status: exitFailed,
			says: "the daemon has ended, and 1 key is lost: its log names it",
		},
		{
			args: "--wait", asks: "POST /api/v1/drain?wait=true", states: []api.Drain{fakeDrain}, status: exitUnreachable,
			shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n", says: "has ended without saying what is lost",
		},
		{
			args: "--wait", asks: "POST /api/v1/drain?wait=true", states: []api.Drain{fakeDrain}, cut: true, status: exitUnreachable,
			shows: "draining: 3 held keys, 1 waiter, 1 min 12 s left\n", says: "has ended without saying what is lost",
		},
	} {
		a := serveAdmin(t)
		if c.states == nil {
			c.states = []api.Drain{fakeDrain}
		}
		a.drains(c.cut, c.states...)
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + a.url}, append([]string{"drain"}, strings.Fields(c.args)...)...)
		if got.status != c.status || got.stdout != c.shows || (c.says == "") != (got.stderr == "") || c.says != "" && !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v\nwant %d\n%s%s", c.args, got, c.status, c.shows, c.says)
		}
		if seen := a.seen(); seen != c.asks {
			t.Errorf("%s asks %s, want %s", c.args, seen, c.asks)
		}
	}
}

// JSON has the type of the admin interface: one value, or with --wait a line for each state.
func TestDrainJSON(t *testing.T) {
	a := serveAdmin(t)
	states := []api.Drain{fakeDrain, fakeDrain, over(1)}
	a.drains(false, states...)
	var lines strings.Builder
	for _, state := range states {
		json.NewEncoder(&lines).Encode(state)
	}
	one, err := json.MarshalIndent(fakeDrain, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		shows  string
	}{
		{"drain --json", 0, string(one) + "\n"},
		{"drain --json --wait", exitFailed, lines.String()},
	} {
		if got := runs(t, append(strings.Fields(c.args), "--admin", a.url)...); got.status != c.status || got.stdout != c.shows {
			t.Errorf("%s: %+v\nwant %d\n%s", c.args, got, c.status, c.shows)
		}
	}
}

// What is wrong is said in one line.
func TestDrainErrors(t *testing.T) {
	down, page := serveAdmin(t), httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<h1>") }))
	down.down.Store(true)
	defer page.Close()
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"--timeout=-1s", exitUsage, "--timeout -1s: want at least 0s"},
		{"--timeout soon", exitUsage, "--timeout"},
		{"--admin " + down.url, exitUnreachable, "too busy or stopping"},
		{"--wait --admin " + down.url, exitUnreachable, "too busy or stopping"},
		{"--wait --admin http://" + deaf(t), exitUnreachable, "nothing listens at"},
		{"--admin " + page.URL, exitFailed, "is --admin right?"},
		{"--wait --admin " + page.URL, exitFailed, "is --admin right?"},
	} {
		got := runs(t, append([]string{"drain"}, strings.Fields(c.args)...)...)
		if got.status != c.status || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v, want %d and one line with %q", c.args, got, c.status, c.says)
		}
	}
}

// In a drain the status says until when, and what is still held.
func TestStatusOfDrain(t *testing.T) {
	a := serveAdmin(t)
	a.drains(false, fakeDrain)
	got := runWith(t, []string{"TZ=UTC"}, "status", "--admin", a.url)
	head := regexp.MustCompile(`^dreadlock 1\.2\.3 at \[::\]:6001, draining, up 3 h 12 min, 4 loops

draining     since 2026-11-24T12:00:00Z, until 2026-11-24T12:01:30Z at the latest \(1 min 12 s left\)
process      4711
connections  1,200 of 10,000
held keys    3, the longest for 5 min 0 s
`)
	const tail = `
still held, the longest first:

KEY  HELD       CONN  HOLDER          WAITERS  LONGEST WAIT  NAME
a1   250 ms     5     10.0.0.1:40001  0        -             nightly@db1
b    2 h 0 min  7     10.0.0.1:40003  1        3.0 s         -
2 of 3 keys; dreadlockctl locks --sort age --all --admin URL shows all
`
	got.stdout = strings.ReplaceAll(got.stdout, a.url, "URL")
	if got.status != 0 || !head.MatchString(got.stdout) || !strings.HasSuffix(got.stdout, tail) {
		t.Errorf("%+v", got)
	}
	if seen := a.seen(); !strings.HasSuffix(seen, "GET /api/v1/keys?limit=10&order=age") {
		t.Errorf("it asks %s", seen)
	}
	v := view{sample: &sample{Status: statusAt(1)}}
	v.sample.Status.Drain = &fakeDrain
	if lines := v.render(80, 24); lines[2].text != "it drains: 1 min 12 s left" {
		t.Errorf("top shows %v", lines)
	}
}

// A real daemon is drained: its clients finish, it ends with status 0, and who waits for that is told that nothing is lost.
func TestDrain(t *testing.T) {
	v := startViewed(t)
	holder, waiter := v.dial(t), v.dial(t)
	holder.Do("lock k 0", "l locked")
	waiter.Send("lock k 600000")
	v.eventually("waiters k", func(o outcome) bool { return strings.Contains(o.stdout, waiter.Conn().LocalAddr().String()) })
	j := begin(t, []string{"DREADLOCK_ADMIN=" + v.url}, "drain", "--wait", "--timeout", "1h")
	j.stdout.await(t, "draining: 1 held key, 1 waiter, ")
	v.says("status", `(?m)^dreadlock .*, draining, up `, `(?m)^draining +since .*until .* \((59 min|1 h)`, `still held, the longest first:`, `(?m)^k +`)
	holder.Do("unlock k", "u unlocked")
	holder.ExpectEnd()
	waiter.Expect("l locked")
	waiter.Do("unlock k", "u unlocked")
	if got := j.wait(); got.status != 0 || !strings.HasSuffix(got.stdout, "drained: the daemon has ended, and no key is lost\n") || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	v.endsWell(t)
	contains(t, v.log.String(), "the drain ends: nobody holds a key", "dreadlock stops: no key was held")
}

// endsWell fails the test unless the daemon ends by itself, with status 0, and nothing of it is left.
func (d *daemon) endsWell(t *testing.T) {
	t.Helper()
	d.exitsWell(t)
	d.log.awaitEnd(t)
}

// exitsWell fails the test unless the process of the daemon ends by itself, with status 0.
func (d *daemon) exitsWell(t *testing.T) {
	t.Helper()
	killer := time.AfterFunc(prototest.Patience, func() { _ = d.cmd.Process.Kill() })
	defer killer.Stop()
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the daemon has ended with %v; log:\n%s", err, d.log)
	}
}

// A drain that takes too long is ended by another one, and both who wait are told what is lost. A longer time is no use.
func TestDrainIsShortened(t *testing.T) {
	v := startViewed(t, "--drain", "1h")
	holder := v.dial(t)
	holder.Do("lock k 0", "l locked")
	v.says("drain", `^draining: 1 held key, 0 waiters, (59 min|1 h 0 min)`)
	v.says("drain --timeout 5h", `^draining: 1 held key, 0 waiters, (59 min|1 h 0 min)`)
	first := begin(t, []string{"DREADLOCK_ADMIN=" + v.url}, "drain", "--wait")
	first.stdout.await(t, "draining")
	second := v.ctl("drain", "--timeout", "0s", "--wait")
	for _, got := range []outcome{first.wait(), second} {
		if got.status != exitFailed || !oneLine(got.stderr, "1 key is lost: its log names it") {
			t.Errorf("%+v", got)
		}
	}
	v.endsWell(t)
	contains(t, v.log.String(), "the drain ends: its time is up", "key lost", "key=k", "client="+holder.Conn().LocalAddr().String())
}

// A daemon at which nobody holds anything ends at once. dreadlockctl says so with and without --wait.
func TestDrainOfIdle(t *testing.T) {
	for _, args := range []string{"drain", "drain --wait"} {
		v := startViewed(t)
		idle := v.dial(t)
		got := v.ctl(strings.Fields(args)...)
		if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, "drain") {
			t.Errorf("%s: %+v", args, got)
		}
		v.endsWell(t)
		idle.ExpectEnd()
		if conn, err := net.Dial("tcp", v.address); err == nil {
			conn.Close()
			t.Errorf("%s: somebody listens still", args)
		}
	}
}

// A command that runs under a lock goes on in a drain, and the daemon ends after it.
func TestLockInDrain(t *testing.T) {
	v := startViewed(t)
	j := v.lock(t, append([]string{"k"}, obedient...)...)
	j.stdout.await(t, "runs with k")
	v.says("drain --timeout 1h", "1 held key")
	if got := runWith(t, []string{"DREADLOCK_SERVER=" + v.address}, "lock", "k", "--wait", "100ms", "--", "true"); got.status != exitUnreachable {
		t.Errorf("another lock: %+v", got)
	}
	fmt.Fprintln(j.stdin, "done")
	if got := j.wait(); got.status != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	v.endsWell(t)
	contains(t, v.log.String(), "dreadlock stops: no key was held")
}
