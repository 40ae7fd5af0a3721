package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

func someSample(keys int) *sample {
	l := &sample{Time: time.Date(2026, 11, 24, 15, 12, 5, 0, time.UTC), Status: statusAt(1)}
	for i := range keys {
		k := api.Key{Key: fmt.Sprintf("k%02d", i), Holder: peer(5), HeldSeconds: 75, Waiters: keys - i, LongestWaitSeconds: 3}
		l.Hottest = append(l.Hottest, k)
		l.Longest = append(l.Longest, k)
	}
	return l
}

func screenText(lines []line) string {
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l.text + "\n")
	}
	return text.String()
}

// What the screen shows, character by character.
func TestRender(t *testing.T) {
	t.Setenv("TZ", "UTC")
	l := someSample(2)
	l.Rates = &rates{Commands: 12_345.6, Locks: 6000, Unlocks: 5999.4, Grants: 3.25, Timeouts: 0.04}
	v := view{sample: l, interval: 2 * time.Second}
	want := `dreadlock 1.2.3 at [::]:6001, up 3 h 12 min, 4 loops
2 waiters, 1 deadlock, 3 keys held, 1,200 of 10,000 connections
per second: 12,346 commands, 6,000 locks, 5,999 unlocks
            3.2 grants to waiters, 0.0 timeouts, 0 accepted, 0 ended

Hottest keys
KEY  WAITERS  LONGEST WAIT  HELD        HOLDER
k00  2        3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)
k01  1        3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)

Longest waits
KEY  WAITERS  LONGEST WAIT  HELD        HOLDER
k00  2        3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)
k01  1        3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)

q quits, ` + api.Instant(l.Time) + `, every 2s
`
	if got := screenText(v.render(120, 40)); got != want {
		t.Errorf("it shows\n%s\nwant\n%s", got, want)
	}
	v = view{sample: someSample(0), err: errors.New("nobody\nthere")}
	got := screenText(v.render(120, 40))
	contains(t, got, "known after the next update", "Hottest keys: nobody waits", "Longest waits: nobody waits", "not up to date: nobody there\n")
}

// On a small screen, what does not fit is left out whole, and the screen says so. Who waits comes first.
func TestRenderSmall(t *testing.T) {
	t.Setenv("TZ", "UTC")
	for _, c := range []struct {
		keys, width, height int
		want                string
	}{
		{3, 50, 24, `dreadlock 1.2.3 at [::]:6001, up 3 h 12 min, …
2 waiters, 1 deadlock, 3 keys held, …
per second: 0 commands, 0 locks, 0 unlocks
            0 grants to waiters, 0 timeouts, …

Hottest keys (without HELD and addresses)
KEY  WAITERS  LONGEST WAIT  HOLDER
k00  3        3.0 s         5 (nightly@db1)
k01  2        3.0 s         5 (nightly@db1)
k02  1        3.0 s         5 (nightly@db1)

Longest waits (without HELD and addresses)
KEY  WAITERS  LONGEST WAIT  HOLDER
k00  3        3.0 s         5 (nightly@db1)
k01  2        3.0 s         5 (nightly@db1)
k02  1        3.0 s         5 (nightly@db1)

q quits, 2026-11-24T15:12:05Z, every 2s
`},
		{50, 80, 15, `dreadlock 1.2.3 at [::]:6001, up 3 h 12 min, 4 loops
2 waiters, 1 deadlock, 3 keys held, 1,200 of 10,000 connections
per second: 0 commands, 0 locks, 0 unlocks
            0 grants to waiters, 0 timeouts, 0 accepted, 0 ended

Hottest keys: k00 (50 waiters), k01 (49 waiters), k02 (48 waiters), 47 more keys

Longest waits
KEY  WAITERS  LONGEST WAIT  HELD        HOLDER
k00  50       3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)
k01  49       3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)
k02  48       3.0 s         1 min 15 s  5 (nightly@db1, 10.0.0.1:40001)
47 more keys

q quits, 2026-11-24T15:12:05Z, every 2s
`},
		{3, 50, 12, `dreadlock 1.2.3 at [::]:6001, up 3 h 12 min, …
2 waiters, 1 deadlock, 3 keys held, …
per second: 0 commands, 0 locks, 0 unlocks
            0 grants to waiters, 0 timeouts, …
Hottest keys: k00 (3 waiters), 2 more keys
Longest waits: k00 (3.0 s), 2 more keys
q quits, 2026-11-24T15:12:05Z, every 2s
`},
		{3, 80, 4, `2 waiters, 1 deadlock, 3 keys held, 1,200 of 10,000 connections
Hottest keys: k00 (3 waiters), k01 (2 waiters), k02 (1 waiter)
Longest waits: k00 (3.0 s), k01 (3.0 s), k02 (3.0 s)
q quits, 2026-11-24T15:12:05Z, every 2s
`},
		{3, 30, 3, `2 waiters, 1 deadlock, …
Longest waits: 3 keys
q quits, …
`},
		{3, 12, 2, `2 waiters, …
q quits, …
`},
	} {
		l := someSample(c.keys)
		l.Rates = &rates{}
		v := view{sample: l, interval: 2 * time.Second}
		if got := screenText(v.render(c.width, c.height)); got != c.want {
			t.Errorf("%d keys on %d columns and %d lines:\n%s\nwant\n%s", c.keys, c.width, c.height, got, c.want)
		}
	}
}

// Everything fits on the screen, whatever its size, and each list accounts for all keys: those that it shows, and the number of
// the others.
func TestRenderFits(t *testing.T) {
	digits := regexp.MustCompile(`(\d+) (?:more )?keys?\b`)
	for _, n := range []int{1, 3, 50} {
		v := view{sample: someSample(n), interval: time.Second}
		for width := 1; width < 130; width += 3 {
			for height := range 60 {
				lines := v.render(width, height)
				if len(lines) > height {
					t.Fatalf("%d lines on a screen of %d", len(lines), height)
				}
				for _, l := range lines {
					if len([]rune(l.text)) > width {
						t.Fatalf("%q on a screen of %d columns", l.text, width)
					}
				}
				text := screenText(lines)
				if height > 0 && width >= 10 && !strings.HasPrefix(lines[len(lines)-1].text, "q quits") {
					t.Fatalf("the last line of %d is %q", height, lines[len(lines)-1].text)
				}
				if strings.Contains(text, "nobody waits") {
					t.Fatalf("%d wait, and on %d columns and %d lines it says\n%s", n, width, height, text)
				}
				if width < 25 {
					continue // keys are shortened
				}
				for list := range strings.SplitSeq(text, "\n\n") {
					for _, title := range []string{"Hottest keys", "Longest waits"} {
						_, list, found := strings.Cut(list, title)
						if !found {
							continue
						}
						list, _, _ = strings.Cut(list, "\nLongest waits")
						list, _, _ = strings.Cut(list, "\nq quits")
						shown := strings.Count(list, "k0") + strings.Count(list, "k1") + strings.Count(list, "k2") +
							strings.Count(list, "k3") + strings.Count(list, "k4")
						if rest := digits.FindStringSubmatch(list); rest != nil {
							more, _ := strconv.Atoi(rest[1])
							shown += more
						}
						if shown != n {
							t.Fatalf("%s on %d columns and %d lines: %d of %d\n%s", title, width, height, shown, n, text)
						}
					}
				}
			}
		}
	}
	// Both lists get the same room, but a short one leaves the rest to the other.
	v := view{sample: someSample(50), interval: time.Second}
	text := screenText(v.render(100, 31))
	if n := strings.Count(text, "k00"); n != 2 {
		t.Errorf("the first key is there %d times:\n%s", n, text)
	}
	v.sample.Longest = v.sample.Longest[:1]
	contains(t, screenText(v.render(100, 31)), "k16")
}

func TestPaint(t *testing.T) {
	got := paint([]line{{text: "a", title: true}, {text: "b"}})
	if want := home + bold + "a" + plain + clearRight + "\r\nb" + clearRight + clearBelow; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRates(t *testing.T) {
	first, second := &sample{Status: statusAt(1)}, &sample{Status: statusAt(3)}
	second.Status.Counters.Disconnects = map[string]uint64{api.ClientClosed: 9, api.Kicked: 3}
	second.Status.Counters.Timeouts = 1 // less: loops are asked one after the other
	want := rates{Commands: 12_000, Locks: 7000, Unlocks: 5000, Grants: 40, Disconnects: 2}
	if got := ratesBetween(first, second); got == nil || *got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	restarted := &sample{Status: statusAt(4)}
	restarted.Status.Started = began.Add(time.Hour)
	for _, before := range []*sample{nil, restarted, second} {
		if got := ratesBetween(before, second); got != nil {
			t.Errorf("%+v, want none", got)
		}
	}
}

// A terminal that cannot move its cursor gets no screen.
func TestTopDumb(t *testing.T) {
	a := serveAdmin(t)
	tt := beginAt(t, nil, "sh", "-c", `TERM=dumb exec "$0" "$@"`, program, "top", "--admin", a.url)
	if status := tt.exit(); status != exitUsage {
		t.Errorf("status %d", status)
	}
	tt.shown.await(t, "cannot move its cursor (TERM=dumb): use --json")
}

// With --json there is a line for each sample.
func TestTopJSON(t *testing.T) {
	a := serveAdmin(t)
	got := runs(t, "top", "--json", "-n", "3", "-i", "100ms", "--admin", a.url)
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	if got.status != 0 || got.stderr != "" || len(lines) != 3 {
		t.Fatalf("%+v", got)
	}
	for i, text := range lines {
		var l sample
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		if (l.Rates == nil) != (i == 0) || i > 0 && l.Rates.Commands != 12_000 {
			t.Errorf("sample %d: rates %+v", i, l.Rates)
		}
		if len(l.Hottest) != 2 || l.Hottest[0].Key != "nightly" || len(l.Longest) != 2 || l.Status.Loops != 4 {
			t.Errorf("sample %d: %+v", i, l)
		}
	}
	contains(t, a.seen(), "order=waiters", "order=wait")
	a.down.Store(true)
	if got := runs(t, "top", "--json", "--admin", a.url); got.status != exitUnreachable {
		t.Errorf("%+v", got)
	}
}
