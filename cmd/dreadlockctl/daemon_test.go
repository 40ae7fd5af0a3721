package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// viewed is a daemon with its admin interface.
type viewed struct {
	*daemon
	tb  testing.TB
	url string
}

// startViewed starts a daemon with an admin interface.
func startViewed(tb testing.TB, args ...string) *viewed {
	tb.Helper()
	d := startDaemon(tb, append([]string{"--admin", "127.0.0.1:0"}, args...)...)
	return &viewed{daemon: d, tb: tb, url: adminURL(tb, d)}
}

// adminURL returns the first address of the daemon's admin interface.
func adminURL(tb testing.TB, d *daemon) string {
	tb.Helper()
	line := d.log.awaitLine(tb, "admin is ready")
	_, rest, _ := strings.Cut(line, `addresses=["`)
	url, _, found := strings.Cut(rest, `"`)
	if !found {
		tb.Fatalf("no addresses in %q", line)
	}
	return url
}

// address returns the address in a line of the log.
func address(tb testing.TB, line string) string {
	tb.Helper()
	_, rest, found := strings.Cut(line, "address=")
	if !found {
		tb.Fatalf("no address in %q", line)
	}
	return strings.Fields(rest)[0]
}

// ctl runs dreadlockctl for the daemon.
func (v *viewed) ctl(args ...string) outcome {
	v.tb.Helper()
	return runWith(v.tb, []string{"DREADLOCK_ADMIN=" + v.url}, args...)
}

// says expects status 0, and output that matches all patterns.
func (v *viewed) says(args string, patterns ...string) {
	v.tb.Helper()
	got := v.ctl(strings.Fields(args)...)
	if got.status != 0 || got.stderr != "" {
		v.tb.Errorf("%s: %+v", args, got)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(got.stdout) {
			v.tb.Errorf("%s: no %q in\n%s", args, p, got.stdout)
		}
	}
}

// eventually runs dreadlockctl until its result is as expected.
func (v *viewed) eventually(args string, reached func(outcome) bool) (got outcome) {
	v.tb.Helper()
	eventually(v.tb, func() (bool, any) {
		got = v.ctl(strings.Fields(args)...)
		return reached(got), got
	})
	return got
}

// Holders and waiters are shown, in tables and in JSON.
func TestViews(t *testing.T) {
	v := startViewed(t)
	holder, first, second := v.dial(t), v.dial(t), v.dial(t)
	holder.Do("lock backup 0", "l locked")
	holder.Do("lock deploy 0", "l locked")
	first.Send("lock backup 600000")
	v.eventually("waiters backup --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })
	second.Send("lock backup 600000")
	v.eventually("waiters backup --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 2`) })
	from := func(c *prototest.Client) string { return regexp.QuoteMeta(c.Conn().LocalAddr().String()) }

	v.says("status", `dreadlock .* at 127\.0\.0\.1:`, `held keys +2\b`, `waiters +2\b`, `deadlocks +none`, `lock +2 locked`)
	v.says("locks", `(?s)backup +.*2.*`+from(holder), `deploy`)
	v.says("locks dep", `deploy`)
	if got := v.ctl("locks", "dep"); strings.Contains(got.stdout, "backup") {
		t.Errorf("other keys than those with the prefix are listed:\n%s", got.stdout)
	}
	v.says("waiters backup", from(holder), `(?s)`+from(first)+`.*`+from(second))
	v.says("connections", from(holder)+`.*(backup,deploy|deploy,backup)`, from(first)+`.*waiting.*backup`)
	v.says("connections --holding", from(holder))
	if got := v.ctl("connections", "--holding"); strings.Contains(got.stdout, first.Conn().LocalAddr().String()) {
		t.Errorf("a connection that holds nothing is listed:\n%s", got.stdout)
	}
	v.says("deadlocks", "no deadlocks")

	for _, args := range []string{"status", "locks", "locks --all", "waiters backup", "connections", "deadlocks"} {
		got := v.ctl(append(strings.Fields(args), "--json")...)
		if got.status != 0 || !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s --json: %+v", args, got)
		}
	}
	if got := v.ctl("waiters", "nobodys"); got.status != exitFailed || !oneLine(got.stderr, "nobody holds the key nobodys") {
		t.Errorf("a free key: %+v", got)
	}
}

// A list that is longer than a page is fetched page by page.
func TestAllPages(t *testing.T) {
	v := startViewed(t)
	c := v.dial(t)
	const keys = 2500
	for i := range keys {
		c.Do(fmt.Sprintf("lock k%04d 0", i), "l locked")
	}
	got := v.ctl("locks", "--all", "--json")
	var page api.KeyPage
	if err := json.Unmarshal([]byte(got.stdout), &page); err != nil {
		t.Fatalf("%v in %.200s %s", err, got.stdout, got.stderr)
	}
	if len(page.Keys) != keys {
		t.Fatalf("%d keys, want %d", len(page.Keys), keys)
	}
	for i, k := range page.Keys {
		if k.Key != fmt.Sprintf("k%04d", i) {
			t.Fatalf("key %d is %s", i, k.Key)
		}
	}
}

// An operator sees a deadlock and kicks one of its clients, and the other gets its key.
func TestDeadlockAndKick(t *testing.T) {
	v := startViewed(t)
	a, b := v.dial(t), v.dial(t)
	a.Do("lock left 0", "l locked")
	b.Do("lock right 0", "l locked")
	a.Send("lock right 600000")
	b.Send("lock left 600000")
	got := v.eventually("deadlocks", func(o outcome) bool { return o.status == exitDeadlocks })
	contains(t, got.stdout, "waits", "for left, held by", "for right, held by", a.Conn().LocalAddr().String())

	var d api.Deadlocks
	if err := json.Unmarshal([]byte(v.ctl("deadlocks", "--json").stdout), &d); err != nil || len(d.Cycles) != 1 {
		t.Fatalf("%v, %+v", err, d)
	}
	victim := d.Cycles[0].Waits[1]
	kicked, freed := a, b
	if victim.Address == b.Conn().LocalAddr().String() {
		kicked, freed = b, a
	}
	id := fmt.Sprint(victim.Connection)
	if got := v.ctl("kick", id, "--yes"); got.status != 0 || got.stdout != "kicked "+id+"\n" {
		t.Errorf("kick: %+v", got)
	}
	kicked.Expect("e kicked")
	kicked.ExpectEnd()
	freed.Expect("l locked")
	if got := v.ctl("kick", id, "--yes"); got.status != exitFailed || !oneLine(got.stderr, "there is no connection "+id) {
		t.Errorf("a second kick: %+v", got)
	}
}

// An operator takes a key from its holder: the first waiter has it, and the holder keeps its connection.
func TestReleaseOfDaemon(t *testing.T) {
	v := startViewed(t)
	holder, waiter := v.dial(t), v.dial(t)
	holder.Do("lock nightly 0", "l locked")
	waiter.Send("lock nightly 600000")
	v.eventually("waiters nightly", func(o outcome) bool { return strings.Contains(o.stdout, waiter.Conn().LocalAddr().String()) })
	got := v.ctl("release", "nightly", "--yes")
	if got.status != 0 || !strings.HasPrefix(got.stdout, "released nightly, which connection ") {
		t.Errorf("%+v", got)
	}
	contains(t, got.stdout, holder.Conn().LocalAddr().String(), waiter.Conn().LocalAddr().String()+") has it now, and nobody waits")
	waiter.Expect("l locked")
	holder.Do("unlock nightly", "e not owner")
	if got := v.ctl("release", "nightly", "--yes", "--token", "1"); got.status != exitFailed || !oneLine(got.stderr, "nightly was not released") {
		t.Errorf("%+v", got)
	}
	waiter.Do("unlock nightly", "u unlocked")
}

// A daemon that requires a token gets it.
func TestAdminToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := startViewed(t, "--admin-token-file", file)
	if got := v.ctl("status"); got.status != exitFailed || !oneLine(got.stderr, "with --admin-token-file FILE") {
		t.Errorf("without the token: %+v", got)
	}
	v.says("status --admin-token-file "+file, "held keys")
}
