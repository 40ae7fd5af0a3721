package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// Keys that rest are shown with their last holder, if it is known, and with the time until they are free.
func TestRestingKeys(t *testing.T) {
	var table strings.Builder
	if err := writeKeys(&table, &page[api.Key]{entries: slices.Concat(fakeKeys[:1], restingKeys)}); err != nil {
		t.Fatal(err)
	}
	const want = `KEY    HELD            CONN  HOLDER          WAITERS  LONGEST WAIT  NAME
a1     250 ms          5     10.0.0.1:40001  0        -             nightly@db1
rests  free in 8.0 s   5     10.0.0.1:40001  1        3.0 s         nightly@db1
early  free in 250 ms  -     unknown         1        2.0 s         -
`
	if table.String() != want {
		t.Errorf("locks:\n%s\nwant\n%s", &table, want)
	}
	var screen []string
	for _, l := range hottestKeys(restingKeys).table(120, 10) {
		screen = append(screen, l.text)
	}
	contains(t, strings.Join(screen, "\n"), "free in 8.0 s", "free in 250 ms  unknown")

	var status strings.Builder
	s := statusAt(1)
	s.LockDelaySeconds, s.RestingKeys, s.GrantsInSeconds = 15, 2, 7.5
	if err := writeStatus(&status, &s, ""); err != nil {
		t.Fatal(err)
	}
	contains(t, status.String(), "granting      in 7.5 s", "resting keys  2, for 15 s after")
}

// A dreadlockctl that is killed cannot say that it is done with the key, and what it was doing may go on for a moment: the next
// one gets the key after the lock delay. One that ends passes it on.
func TestLockDelay(t *testing.T) {
	const delay = 2 * time.Second
	v := startViewed(t, "--lock-delay", delay.String())
	v.says("status", `resting keys +\d, for 2\.0 s`)
	began := time.Now()
	killed := v.lock(t, "k", "--", "sh", "-c", "echo killed runs; sleep 1000")
	killed.stdout.await(t, "killed runs\n")
	next := v.lock(t, "k", "--", "echo", "next runs")
	v.eventually("waiters k --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })

	before := time.Now()
	killed.signal(syscall.SIGKILL)
	if got := next.wait(); got.status != 0 || got.stdout != "next runs\n" {
		t.Errorf("the next one: %+v", got)
	}
	if took := time.Since(before); took < delay {
		t.Errorf("the next one has had the key %s after the holder was killed, want %s", took, delay)
	}

	// What has ended with an unlock does not keep the next one waiting: in one of some tries on a busy machine.
	last := func() time.Duration {
		c := v.dial(t)
		c.Do("lock k 60000", "l locked")
		defer c.Close()
		queued := v.lock(t, "k", "--", "true")
		v.eventually("waiters k --json", func(o outcome) bool { return strings.Contains(o.stdout, `"waiters": 1`) })
		before := time.Now()
		c.Do("unlock k", "u unlocked")
		queued.wait()
		return time.Since(before)
	}
	for last() >= delay {
		if time.Since(began) > prototest.Patience {
			t.Fatal("an unlock never passes the key on before the lock delay is over")
		}
	}
}
