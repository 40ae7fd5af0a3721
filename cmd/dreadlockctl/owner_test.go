package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/client"
	"dreadlock/server/api"
)

// nest is the role of a Go program that takes one key under another, when it is told to on its input.
func nest(address, outer, inner string) int {
	ctx := context.Background()
	c := client.New(address, client.Options{Name: "program" + outer})
	first, err := c.Lock(ctx, outer, -1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("holds " + outer)
	_, _ = fmt.Scanln()
	second, err := c.Lock(first.Context(), inner, -1)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitDeadlock
	}
	fmt.Println("has both")
	_, _ = second.Unlock(ctx), first.Unlock(ctx)
	return 0
}

// nestedAt begins two programs that take the keys a and b in two orders, one in another, in a deadlock.
func nestedAt(t *testing.T, v *viewed, begin func(outer, inner string) *job) (jobs []*job) {
	t.Helper()
	jobs = []*job{begin("a", "b"), begin("b", "a")}
	for i, j := range jobs {
		j.stdout.await(t, "holds "+[]string{"a", "b"}[i])
	}
	for i, j := range jobs {
		fmt.Fprintln(j.stdin)
		if i == 0 { // so that this wait is the older one
			v.eventually("waiters b --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })
		}
	}
	return jobs
}

// nesting are the programs of which two can be in a deadlock, with the name of that which holds a key.
var nesting = map[string]struct {
	begin func(t *testing.T, v *viewed, outer, inner string) *job
	named string
}{
	"dreadlockctl": {
		func(t *testing.T, v *viewed, outer, inner string) *job {
			script := `echo holds ` + outer + `; read line; exec "$0" lock ` + inner + ` -- echo has both`
			return v.lock(t, outer, "--", "sh", "-c", script, program)
		},
		`\S+@\S+:\d+:(sh|echo)`,
	},
	"Go": {
		func(t *testing.T, v *viewed, outer, inner string) *job {
			nested := childCommand("nest", v.address, outer, inner)[1:]
			return beginCommand(t, nil, exec.Command(nested[0], nested[1:]...))
		},
		`program[ab]`,
	},
}

// Two nested programs in a deadlock are shown everywhere, with their names.
func TestNestedDeadlockIsShown(t *testing.T) {
	for kind, n := range nesting {
		t.Run(kind, func(t *testing.T) {
			v := startViewed(t)
			nestedAt(t, v, func(outer, inner string) *job { return n.begin(t, v, outer, inner) })
			got := v.eventually("deadlocks", func(o outcome) bool { return o.status == exitDeadlocks })
			shown := regexp.MustCompile(`^#1: \d+ \(` + n.named + `, 127\.0\.0\.1:\d+\) waits \S+.* for b, held by \d+ of the same owner as \d+ \(` +
				n.named + `, 127\.0\.0\.1:\d+\), which waits \S+.* for a, held by \d+ of the same owner as \d+\n`)
			if !shown.MatchString(got.stdout) {
				t.Errorf("got %s, want %s", got.stdout, shown)
			}
			if line := v.log.awaitLine(t, "deadlock: "); !regexp.MustCompile(n.named).MatchString(line) || !strings.Contains(line, "owner ") {
				t.Errorf("log: %s", line)
			}
			var d api.Deadlocks
			if err := json.Unmarshal([]byte(v.ctl("deadlocks", "--json").stdout), &d); err != nil || len(d.Cycles) != 1 || len(d.Cycles[0].Waits) != 2 {
				t.Fatalf("%v, %+v", err, d)
			}
			youngest := d.Cycles[0].Waits[1]
			t.Logf("found %s after the last wait began", d.Cycles[0].Found.Sub(youngest.Since).Round(time.Millisecond))
			for _, w := range d.Cycles[0].Waits {
				if w.Name == "" || w.Owner == "" || d.Cycles[0].Waits[0].Owner == d.Cycles[0].Waits[1].Owner {
					t.Errorf("%+v", w)
				}
			}
			response, err := http.Get(v.url + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			metrics, _ := io.ReadAll(response.Body)
			contains(t, string(metrics), "\ndreadlock_deadlocks 1\n")
			v.says("locks", n.named)
			v.says("waiters a", n.named)
			v.says("connections", n.named)
		})
	}
}

// A daemon that breaks deadlocks ends one of the waits, with its status, and the other program goes on.
func TestNestedDeadlockIsBroken(t *testing.T) {
	for kind, n := range nesting {
		t.Run(kind, func(t *testing.T) {
			v := startViewed(t, "--break-deadlocks")
			jobs := nestedAt(t, v, func(outer, inner string) *job { return n.begin(t, v, outer, inner) })
			if got := jobs[1].wait(); got.status != exitDeadlock || !strings.Contains(got.stderr, "deadlock") {
				t.Errorf("%+v, want %d", got, exitDeadlock)
			}
			if got := jobs[0].wait(); got.status != 0 || got.stdout != "holds a\nhas both\n" || got.stderr != "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Commands that run side by side under one key are not taken for one: the second waits for the first, which waits for nobody.
func TestNestedSideBySide(t *testing.T) {
	v := startViewed(t, "--break-deadlocks")
	const script = `
		exec 3<&0
		"$0" lock b -- sh -c 'echo runs; read line' <&3 &
		"$0" lock b -- sh -c 'echo runs; read line' <&3 &
		wait`
	j := v.lock(t, "a", "--", "sh", "-c", script, program)
	j.stdout.await(t, "runs")
	v.eventually("waiters b --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })

	left, right := v.dial(t), v.dial(t) // the daemon has looked when it has found this one
	left.Do("lock left 0", "l locked")
	right.Do("lock right 0", "l locked")
	left.Send("lock right 600000")
	v.eventually("waiters right --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })
	right.Send("lock left 600000")
	right.Expect("e deadlock")
	v.says("deadlocks", "1 found and 1 broken")
	fmt.Fprintln(j.stdin)
	j.stdout.await(t, "runs\nruns\n")
	fmt.Fprintln(j.stdin)
	if got := j.wait(); got.status != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// Who belongs to whom: a command to the one that it runs under, one at a time. A script may say so itself. What is left of a
// dreadlockctl that has ended belongs to nobody else.
func TestOwnerOfCommand(t *testing.T) {
	d := startDaemon(t)
	const show = `echo $DREADLOCK_OWNER`
	owners := func(env []string, script string) []string {
		t.Helper()
		env = append(env, "DREADLOCK_SERVER="+d.address)
		got := begin(t, env, "lock", "a", "--orphans=leave", "--", "sh", "-c", script, program).wait()
		if got.status != 0 || got.stderr != "" {
			t.Fatalf("%s: %+v", script, got)
		}
		return strings.Fields(got.stdout)
	}
	nested := owners(nil, show+`; "$0" lock b -- sh -c '`+show+`; "$0" lock c -- sh -c "`+strings.ReplaceAll(show, "$", `\$`)+`"' "$0"; "$0" lock b -- sh -c '`+show+`'`)
	if len(nested) != 4 || nested[0] == "" || nested[1] != nested[0] || nested[2] != nested[0] || nested[3] != nested[0] {
		t.Errorf("nested: %q", nested)
	}
	const beside = `%s; "$0" lock b -- sh -c 'while echo $DREADLOCK_OWNER; do sleep 0.05; done' | { read first; echo $first; "$0" lock c -- sh -c '%[1]s'; }`
	if got := owners(nil, fmt.Sprintf(beside, show)); len(got) != 3 || got[1] != got[0] || got[2] == got[0] {
		t.Errorf("side by side: %q", got)
	}
	if got := owners([]string{"DREADLOCK_OWNER=deploy42"}, show); len(got) != 1 || got[0] != "deploy42" {
		t.Errorf("a script's own: %q", got)
	}
	left := owners(nil, show+`; sh -c 'while kill -0 $1 2>/dev/null; do sleep 0.02; done; "$0" lock a -- sh -c "echo \$DREADLOCK_OWNER"' "$0" $PPID &`)
	if len(left) != 2 || left[0] == left[1] {
		t.Errorf("left: %q", left)
	}
	got := runWith(t, []string{"DREADLOCK_OWNER=a-b", "DREADLOCK_SERVER=" + d.address}, "lock", "a", "--", "true")
	if got.status != exitUsage || !oneLine(got.stderr, "DREADLOCK_OWNER: ", "want at most 64 letters and digits") {
		t.Errorf("%+v", got)
	}
}

// The name is that of the option or the variable, or tells who runs what and where.
func TestName(t *testing.T) {
	v := startViewed(t)
	for _, c := range []struct {
		env, args, want string
	}{
		{"", "lock k -- cat", `^[^@]+@[^:]+:\d+:cat$`},
		{"", "lock k --name nightly@db1 -- cat", `^nightly@db1$`},
		{"DREADLOCK_NAME=ann", "lock k -- cat", `^ann$`},
		{"DREADLOCK_NAME=ann", "lock k --name bob -- cat", `^bob$`},
		{"", "lock k", `:dreadlockctl$`},
	} {
		j := begin(t, []string{"DREADLOCK_SERVER=" + v.address, c.env}, strings.Fields(c.args)...)
		var key api.Key
		v.eventually("waiters k --json", func(o outcome) bool {
			return json.Unmarshal([]byte(o.stdout), &key) == nil && key.Holder.Connection != 0
		})
		if !regexp.MustCompile(c.want).MatchString(key.Holder.Name) {
			t.Errorf("%s %s: %q, want %s", c.env, c.args, key.Holder.Name, c.want)
		}
		if c.want == `:dreadlockctl$` {
			j.signal(15)
		} else {
			j.stdin.Close()
		}
		j.wait()
		v.eventually("locks", func(o outcome) bool { return o.stdout == "no keys are held\n" })
	}
}
