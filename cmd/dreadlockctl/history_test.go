package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// What a history shows, character by character but for the zone.
func TestHistory(t *testing.T) {
	for _, c := range []struct{ args, asks, shows string }{
		{"history nightly", "GET /api/v1/events?key=nightly&limit=100", `TIME  WHAT      CONN  WHO                          WAITED  HELD  TOKEN  REASON
@11  granted   5     nightly@db1, 10.0.0.1:40001  2.5 s   -     7      -
@12  timeout   7     10.0.0.1:40003               30 s    -     -      -
@13  released  5     nightly@db1, 10.0.0.1:40001  -       0 ms  7      -
all events of key nightly since @0
`},
		{"history --connection 7", "GET /api/v1/events?connection=7&limit=100", `TIME  WHAT     KEY      CONN  WHO             WAITED  HELD       TOKEN  REASON
@12  timeout  nightly  7     10.0.0.1:40003  30 s    -          -      -
@14  granted  b        7     10.0.0.1:40003  -       -          8      -
@17  kicked   -        7     10.0.0.1:40003  -       -          -      by 10.0.0.9:5, freed 18 keys: b,c and 16 more
@18  lost     b        7     10.0.0.1:40003  -       1 min 0 s  8      kicked, by 10.0.0.9:5
all events of connection 7 since @0
`},
		{"history b --connection 5", "GET /api/v1/events?connection=5&key=b&limit=100", `TIME  WHAT           CONN  WHO             WAITED  HELD  TOKEN  REASON
@15  deadlock       5     10.0.0.1:40001  3.0 s   -     -      deadlock 2, held by 7
@16  deadlock over  5     10.0.0.1:40001  -       -     -      deadlock 2, held by 7, broken
all events of key b of connection 5 since @0
`},
		{"history --limit 1", "GET /api/v1/events?limit=1", `TIME  WHAT     KEY  CONN  WHO             WAITED  HELD  TOKEN  REASON
@19  refused  -    -     uid 7, unix:/s  -       -     -      max connections
the latest 1 event; --all shows all since @0
`},
		{"history nightly --all", "GET /api/v1/events?key=nightly&limit=1000&since=0", ""},
		{"history nightly --limit 2000", "GET /api/v1/events?key=nightly&limit=1000&since=0", ""},
		{"history zz", "GET /api/v1/events?key=zz&limit=100", "no events of key zz since @0\n"},
	} {
		a := serveAdmin(t)
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + a.url}, strings.Fields(c.args)...)
		want := regexp.MustCompile(`@\d+`).ReplaceAllStringFunc(c.shows, func(second string) string {
			return moment(began.Add(time.Duration(atoi(second[1:])) * time.Second))
		})
		want = strings.Replace(want, "TIME", fmt.Sprintf("%-*s", len(moment(began)), "TIME"), 1)
		if got.status != 0 || got.stderr != "" || c.shows != "" && got.stdout != want {
			t.Errorf("%s: %+v\ngot\n%s\nwant\n%s", c.args, got, got.stdout, want)
		}
		if seen := a.seen(); seen != c.asks {
			t.Errorf("%s asks\n%s\nwant\n%s", c.args, seen, c.asks)
		}
	}
}

// A time has its zone.
func TestMoment(t *testing.T) {
	if _, err := time.Parse(time.RFC3339, moment(began)); err != nil {
		t.Error(err)
	}
}

// A history that is longer than a page is fetched page by page, and says what the daemon has.
func TestLongHistory(t *testing.T) {
	v := startViewed(t, "--events", "5000")
	c := v.dial(t)
	const pairs = 1200
	for range pairs {
		c.Do("lock long 0", "l locked")
		c.Do("unlock long", "u unlocked")
	}
	c.Do("lock other 0", "l locked")
	for args, want := range map[string]int{"history long --all": 2 * pairs, "history --limit 2300": 2300, "history long": api.DefaultLimit} {
		got := v.ctl(append(strings.Fields(args), "--json")...)
		var page api.EventPage
		if err := json.Unmarshal([]byte(got.stdout), &page); err != nil {
			t.Fatalf("%v in %.200s %s", err, got.stdout, got.stderr)
		}
		if len(page.Events) != want || page.Lost != 0 || page.Next == 0 {
			t.Errorf("%s: %d events, want %d; next %d, lost %d", args, len(page.Events), want, page.Next, page.Lost)
		}
		for i := range page.Events[1:] {
			if page.Events[i].Seq >= page.Events[i+1].Seq {
				t.Fatalf("%s: event %d comes before %d", args, page.Events[i].Seq, page.Events[i+1].Seq)
			}
		}
	}
	if got := startViewed(t, "--events", "0").ctl("history", "k"); got.status != exitFailed || !oneLine(got.stderr, "keeps no events") {
		t.Errorf("without events: %+v", got)
	}
}

// A kick is in the history, in the stream and in the log, with who asked for it and what it has freed.
func TestKickIsRecorded(t *testing.T) {
	v := startViewed(t)
	w := begin(t, []string{"DREADLOCK_ADMIN=" + v.url}, "watch", "--limit", "100")
	c := v.dial(t)
	c.Send("name ann@host7")
	if reply, err := c.ReadReply(); err != nil || !strings.HasPrefix(reply, "n named ") {
		t.Fatalf("%q, %v", reply, err)
	}
	c.Do("lock nightly 0", "l locked")
	c.Do("lock deploy 0", "l locked")
	if got := v.ctl("kick", "--name", "ann@host7", "--yes"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	from := c.Conn().LocalAddr().String()
	line := v.log.awaitLine(t, "client kicked")
	contains(t, line, "WRN", "by=127.0.0.1:", "client="+from, "held_keys=2", "name=ann@host7", "nightly", "deploy")
	v.says("history nightly", `granted +1 +ann@host7, `+from, `lost +1 +ann@host7, `+from+`.*kicked, by 127\.0\.0\.1:\d+`)
	v.says("history", `kicked .*by 127\.0\.0\.1:\d+, freed 2 keys: `)
	contains(t, w.stdout.awaitLine(t, "connection 1 (ann@host7, "+from+") kicked by 127.0.0.1:"), "freed 2 keys: ", "nightly", "deploy")
	contains(t, w.stdout.awaitLine(t, "nightly lost by 1 (ann@host7, "+from+")"), "kicked, by 127.0.0.1:")
}

// A watch goes on when the daemon is back, and says what it knows of the time between.
func TestWatchCoversAbsence(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := "unix://" + filepath.Join(dir, "a")
	start := func() *daemon {
		d := startDaemon(t, "--admin", socket)
		d.log.awaitLine(t, "admin is ready")
		return d
	}
	first := start()
	w := begin(t, []string{"DREADLOCK_ADMIN=" + socket}, "watch", "k", "--json", "--limit", "1")
	first.dial(t).Do("lock k 0", "l locked")
	var e api.Event
	if err := json.Unmarshal([]byte(w.stdout.awaitLine(t, `"kind":"granted"`)), &e); err != nil || e.Key != "k" {
		t.Errorf("%+v, %v", e, err)
	}
	first.kill()
	w.stderr.await(t, ": trying again\n")
	second := start()
	c := second.dial(t)
	c.Do("lock k 0", "l locked")
	c.Do("unlock k", "u unlocked")
	w.stderr.await(t, "watches again\n")
	w.stderr.await(t, "the daemon was started again, or another process has taken over: nobody knows what happened before\n")
	w.stdout.await(t, `"kind":"released"`)
	if got := strings.Count(w.stdout.String(), "granted"); got != 2 {
		t.Errorf("%d grants: %s", got, w.stdout)
	}
	if got := strings.Count(w.stderr.String(), "\n"); got != 3 {
		t.Errorf("%d lines, want 3: %s", got, w.stderr)
	}
}
