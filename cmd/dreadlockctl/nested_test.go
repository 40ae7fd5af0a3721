package main

import (
	"strconv"
	"strings"
	"testing"
)

// A key inside itself is refused with its reason, however deep, and also where it would only be tried. Another key, another
// daemon, and a command that has outlived its dreadlockctl are no reason.
func TestKeyInsideItself(t *testing.T) {
	d, other := startDaemon(t), startDaemon(t)
	for _, inner := range []string{
		`"$0" lock a -- echo runs`,
		`"$0" lock a --try -- echo runs`,
		`"$0" lock b -- sh -c '"$0" lock a -- echo runs' "$0"`,
	} {
		got := d.lock(t, "a", "--", "sh", "-c", inner, program).wait()
		if got.status != exitUsage || got.stdout != "" || !oneLine(got.stderr, "a is held by the dreadlockctl around this command (process ", "inside itself") {
			t.Errorf("%s: %+v, want 2 and the reason", inner, got)
		}
	}
	for _, inner := range []string{
		`"$0" lock b -- echo runs`,
		`"$0" lock a --server ` + other.address + ` -- echo runs`,
	} {
		if got := d.lock(t, "a", "--", "sh", "-c", inner, program).wait(); got.status != 0 || got.stdout != "runs\n" {
			t.Errorf("%s: %+v", inner, got)
		}
	}
	const script = `sh -c 'while kill -0 $1 2>/dev/null; do sleep 0.02; done; "$0" lock a -- echo runs' "$0" $PPID &`
	if got := d.lock(t, "a", "--orphans=leave", "--", "sh", "-c", script, program).wait(); got.status != 0 || got.stdout != "runs\n" {
		t.Errorf("a command that outlives it: %+v", got)
	}
}

// The command is told the list of keys and the token, which grows with each grant of a key.
func TestKeyAndFence(t *testing.T) {
	d := startDaemon(t)
	const show = `echo "$DREADLOCK_KEY,$DREADLOCK_FENCE"`
	got := d.lock(t, "a", "--", "sh", "-c", show+`; "$0" lock b -- sh -c '`+show+`'; "$0" lock b -- sh -c '`+show+`'`, program).wait()
	var last uint64
	lines := strings.Fields(strings.ReplaceAll(got.stdout, " ", "+"))
	for i, keys := range []string{"a", "a+b", "a+b"} {
		if i >= len(lines) {
			t.Fatalf("%+v", got)
		}
		shown, token, _ := strings.Cut(lines[i], ",")
		n, err := strconv.ParseUint(token, 10, 64)
		if err != nil || shown != keys || n == 0 || i == 2 && n <= last { // of two grants of one key
			t.Errorf("line %d is %q after token %d, want the keys %s and a greater one", i, lines[i], last, keys)
		}
		last = n
	}
}
