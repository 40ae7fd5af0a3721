package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/server/api"
)

// What people see, character by character.
func TestTables(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		asks   string
		shows  string
	}{
		{"status", 0, "GET /api/v1/status", `dreadlock 1.2.3 at [::]:6001, up 3 h 12 min, 4 loops

process      4711
connections  1,200 of 10,000
held keys    3, the longest for 5 min 0 s
memory       3.0 MiB of 1.0 GiB
waiters      2, the longest for 4 min 12 s
deadlocks    1 (see dreadlockctl deadlocks --admin URL)

accepted   4,321 connections
refused    none
ended      5 closed, 1 kicked, 2 of a newer daemon
lock       7,000 locked, 2 already locked
unlock     5,000 unlocked
waits      40 granted, 3 timed out, 3 lost
waited     2.5 s on average, 50 % at most 1 ms, 99 % at most 1 min 0 s
held       3.0 s on average, 50 % at most 1.0 s, 99 % at most 1 min 0 s
limits     1 max connections
deadlocks  2 found, 1 broken
loops      1,000,000 messages, 1 wake-up, 6 connections moved
`},
		{"locks", 0, "GET /api/v1/keys?limit=100&order=key", `KEY      HELD        CONN  HOLDER          WAITERS  LONGEST WAIT  NAME
a1       250 ms      5     10.0.0.1:40001  0        -             nightly@db1
b        2 h 0 min   7     10.0.0.1:40003  1        3.0 s         -
nightly  1 min 15 s  5     10.0.0.1:40001  1,234    4 min 12 s    nightly@db1
`},
		{"locks --limit 1", 0, "GET /api/v1/keys?limit=1&order=key", `KEY  HELD    CONN  HOLDER          WAITERS  LONGEST WAIT  NAME
a1   250 ms  5     10.0.0.1:40001  0        -             nightly@db1
1 of 3 keys; --all shows all
`},
		{"locks ni --sort wait --all", 0, "GET /api/v1/keys?limit=1000&order=wait&prefix=ni", `KEY      HELD        CONN  HOLDER          WAITERS  LONGEST WAIT  NAME
nightly  1 min 15 s  5     10.0.0.1:40001  1,234    4 min 12 s    nightly@db1
`},
		{"locks b", 0, "GET /api/v1/keys?limit=100&order=key&prefix=b", `KEY  HELD       CONN  HOLDER          WAITERS  LONGEST WAIT
b    2 h 0 min  7     10.0.0.1:40003  1        3.0 s
`},
		{"locks zz", 0, "GET /api/v1/keys?limit=100&order=key&prefix=zz", "no held key begins with zz\n"},
		{"locks --contains z --client ann@", 0, "GET /api/v1/keys?client=ann%40&contains=z&limit=100&order=key", "no held keys match\n"},
		{"connections --client x --sort wait", 0, "GET /api/v1/connections?client=x&limit=100&order=wait", "no connections match\n"},
		{"waiters nightly --limit 2", 0, "GET /api/v1/keys/nightly?queue=2", `nightly is held by connection 5 (nightly@db1, 10.0.0.1:40001) for 1 min 15 s
fencing token 1795521600000000007

PLACE  CONN  WAITER          WAITED      GIVES UP AFTER
1      100   10.0.0.1:40096  4 min 12 s  30 s
2      101   10.0.0.1:40097  4 min 12 s  never
2 of 1,234 waiters; --limit 1000 shows more
`},
		{"waiters rests", 0, "GET /api/v1/keys/rests?queue=100", `rests was held by connection 5 (nightly@db1, 10.0.0.1:40001) for 1 min 15 s, which has ended: it is free in 8.0 s
fencing token 7

PLACE  CONN  WAITER          WAITED      GIVES UP AFTER
1      100   10.0.0.1:40096  4 min 12 s  30 s
`},
		{"waiters early", 0, "GET /api/v1/keys/early?queue=100", `early may have been held before the daemon started: it is free in 250 ms

PLACE  CONN  WAITER          WAITED      GIVES UP AFTER
1      100   10.0.0.1:40096  4 min 12 s  30 s
`},
		{"waiters a1", 0, "GET /api/v1/keys/a1?queue=100", `a1 is held by connection 5 (nightly@db1, 10.0.0.1:40001) for 250 ms
nobody waits for it
`},
		{"connections --holding --waiting --address 10.", 0, "GET /api/v1/connections?address=10.&holding=true&limit=100&waiting=true", `CONN  CLIENT          AGE      LOOP  STATE    HOLDS       WAITS FOR  NAME
5     10.0.0.1:40001  1 d 1 h  0     waiting  a1,nightly  b (3.0 s)  nightly@db1
7     10.0.0.1:40003  59 s     1     idle     b           -          -
9     10.0.0.1:40005  3.0 s    0     lagging  -           -          -
`},
		{"deadlocks", exitDeadlocks, "GET /api/v1/deadlocks", `#2: 7 (10.0.0.1:40003) waits 4 min 12 s for nightly, held by 5 (nightly@db1, 10.0.0.1:40001), which waits 3.0 s for b, held by 7
2 found and 1 broken since the start; the daemon does not break them
`},
		{"kick 5 7 --yes", 0, "POST /api/v1/connections/5/kick\nPOST /api/v1/connections/7/kick", "kicked 5\nkicked 7\n"},
		{"kick --holder-of b -y", 0, "GET /api/v1/keys/b?queue=0\nPOST /api/v1/connections/7/kick", "kicked 7\n"},
		{"kick 9 --name nightly@db1 --yes", 0, "GET /api/v1/connections?limit=1000\nGET /api/v1/connections?cursor=2&limit=1000\n" +
			"POST /api/v1/connections/9/kick\nPOST /api/v1/connections/5/kick", "kicked 9\nkicked 5\n"},
		{"release a1 -y", 0, "POST /api/v1/keys/a1/release",
			"released a1, which connection 5 (nightly@db1, 10.0.0.1:40001) had for 250 ms: nobody waited for it\n"},
		{"release b -y --connection 7", 0, "POST /api/v1/keys/b/release?connection=7",
			"released b, which connection 7 (10.0.0.1:40003) had for 2 h 0 min: connection 100 (10.0.0.1:40096) has it now, and nobody waits\n"},
		{"release nightly -y", 0, "POST /api/v1/keys/nightly/release", "released nightly, which connection 5 (nightly@db1, 10.0.0.1:40001) " +
			"had for 1 min 15 s: connection 100 (10.0.0.1:40096) has it now, and 1,233 clients wait\n"},
	} {
		a := serveAdmin(t)
		got := runWith(t, []string{"DREADLOCK_ADMIN=" + a.url}, strings.Fields(c.args)...)
		got.stdout = strings.ReplaceAll(got.stdout, a.url, "URL")
		if got.status != c.status || got.stdout != c.shows || got.stderr != "" {
			t.Errorf("%s: status %d, %s\n%s\nwant %d\n%s", c.args, got.status, got.stderr, got.stdout, c.status, c.shows)
		}
		if seen := a.seen(); !strings.HasPrefix(seen, c.asks) {
			t.Errorf("%s asks\n%s\nwant\n%s", c.args, seen, c.asks)
		}
	}
}

// JSON has the types of the admin interface, from all pages.
func TestJSON(t *testing.T) {
	a := serveAdmin(t)
	queued := fakeKeys[1]
	queued.Queue = []api.Waiter{{Peer: peer(100), Since: began, WaitedSeconds: 252.5, TimeoutSeconds: 30}}
	for _, c := range []struct {
		args   string
		status int
		want   any
	}{
		{"status", 0, statusAt(1)},
		{"locks", 0, api.KeyPage{Keys: fakeKeys, Matching: 3}},
		{"locks --limit 1", 0, api.KeyPage{Keys: fakeKeys[:1], Matching: 3, Next: "1"}},
		{"locks zz", 0, api.KeyPage{Keys: []api.Key{}}},
		{"waiters b", 0, queued},
		{"connections --all", 0, api.ConnectionPage{Connections: fakeConnections, Matching: 3}},
		{"deadlocks", exitDeadlocks, fakeDeadlocks},
		{"release a1 -y", 0, api.Release{Key: "a1", Holder: fakeKeys[0].Holder, Token: fakeKeys[0].Token, HeldSeconds: 0.25}},
		{"kick 8 5 -y", exitFailed, []kicked{{8, false, "there is no connection 8"}, {5, true, ""}}},
	} {
		got := runs(t, append(strings.Fields(c.args), "--json", "--admin", strings.TrimPrefix(a.url, "http://"))...)
		want, err := json.MarshalIndent(c.want, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if got.status != c.status || got.stdout != string(want)+"\n" {
			t.Errorf("%s: %+v\nwant %s", c.args, got, want)
		}
	}
}

// Who a client is has a column if any client has an identity, and is in sentences too.
func TestIdentities(t *testing.T) {
	connections := []api.Connection{
		{Peer: api.Peer{Connection: 1, Address: "10.0.0.1:1", Identity: "build7.example"}, State: api.Idle},
		{Peer: api.Peer{Connection: 2, Address: "unix:/s", Identity: "uid 1000 pid 4711", Name: "ann"}, State: api.Idle},
		{Peer: api.Peer{Connection: 3, Address: "10.0.0.1:2"}, State: api.Idle},
	}
	var out strings.Builder
	if err := writeConnections(&out, &page[api.Connection]{entries: connections}); err != nil {
		t.Fatal(err)
	}
	const want = `CONN  CLIENT      AGE   LOOP  STATE  HOLDS  WAITS FOR  NAME  IDENTITY
1     10.0.0.1:1  0 ms  0     idle   -      -          -     build7.example
2     unix:/s     0 ms  0     idle   -      -          ann   uid 1000 pid 4711
3     10.0.0.1:2  0 ms  0     idle   -      -          -     -
`
	if out.String() != want {
		t.Errorf("got:\n%swant:\n%s", &out, want)
	}
	if got := who(&connections[1].Peer); got != "2 (ann, uid 1000 pid 4711, unix:/s)" {
		t.Errorf("in a sentence: %s", got)
	}
}

// The status has a line for what only some daemons have.
func TestStatusOfWays(t *testing.T) {
	status := statusAt(1)
	status.Listen = []string{"tcp://:6001", "unix:///s"}
	status.CertificateExpires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local)
	status.Counters.Refused = map[string]uint64{api.RefusedTLSHandshake: 2}
	status.Counters.AcceptErrors = map[string]uint64{"EMFILE": 7}
	var out strings.Builder
	if err := writeStatus(&out, &status, ""); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"listens at   tcp://:6001 unix:///s", "certificate  expires " + api.Instant(status.CertificateExpires), "refused        2 tls handshake",
		"accept errors  7 EMFILE",
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("there is no line %q in\n%s", line, &out)
		}
	}
}

// An empty list is not an error, but an unknown name is.
func TestNothing(t *testing.T) {
	a := serveAdmin(t)
	for _, c := range []struct{ args, says string }{
		{"waiters c", "nobody holds the key c"},
		{"kick 8 --yes", "there is no connection 8"},
		{"kick --holder-of x --yes", "nobody holds the key x"},
		{"kick --holder-of rests --yes", "nobody holds the key rests any more: it is free in 8.0 s"},
		{"release x -y", "nobody holds the key x"},
		{"release b -y --connection 5", "b was not released: another client holds it"},
		{"release b -y --token 999", "b was not released: another client holds it"},
		{"kick 5 --name nobody --yes", "no client has the name nobody"},
	} {
		got := runs(t, append(strings.Fields(c.args), "--admin", a.url)...)
		if got.status != exitFailed || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
	var text strings.Builder
	if err := writeDeadlocks(&text, &api.Deadlocks{Breaking: true}); err != nil ||
		text.String() != "no deadlocks\n0 found and 0 broken since the start; the daemon breaks them\n" {
		t.Errorf("%v %q", err, &text)
	}
}

// noHost is an invalid name of a host, for which no resolver is asked: a label has at most 63 characters.
var noHost = strings.Repeat("x", 64)

// deaf returns an address at which nobody listens, nor can until the end of the test.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

// Errors of the admin interface are printed with advice.
func TestAdminErrors(t *testing.T) {
	down, guarded := serveAdmin(t), serveAdmin(t)
	down.down.Store(true)
	guarded.token = "secret"
	token, other := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "other")
	for name, text := range map[string]string{token: "secret\n", other: "wrong"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "<h1>%s</h1>", r.URL) }))
	defer page.Close()
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()
	for _, c := range []struct {
		admin, token string
		status       int
		says         string
	}{
		{"http://" + deaf(t), "", exitUnreachable, "start the daemon with that address as --admin"},
		{"http://" + noHost + ":6002", "", exitUnreachable, "there is no host " + noHost},
		{down.url, "", exitUnreachable, "too busy or stopping: try again"},
		{page.URL, "", exitFailed, "is --admin right?"},
		{missing.URL, "", exitFailed, "is --admin right?"},
		{"http://localhost:70000", "", exitUsage, "the port must be a number from 1 to 65535"},
		{"localhost:0", "", exitUsage, "the port must be a number from 1 to 65535"},
		{guarded.url, "", exitFailed, "with --admin-token-file"},
		{guarded.url, other, exitFailed, "rejects the token"},
		{guarded.url, token, 0, ""},
	} {
		var env []string
		if c.token != "" {
			env = append(env, "DREADLOCK_ADMIN_TOKEN_FILE="+c.token)
		}
		got := runWith(t, env, "status", "--admin", c.admin)
		if got.status != c.status || c.says != "" && (got.stdout != "" || !oneLine(got.stderr, c.says)) {
			t.Errorf("%s: %+v, want %d and one line with %q", c.admin, got, c.status, c.says)
		}
		if strings.Contains(got.stderr, "secret") || strings.Contains(got.stderr, "wrong") {
			t.Errorf("it prints the token: %s", got.stderr)
		}
	}
}

// A prefix may have any characters.
func TestQueryIsEscaped(t *testing.T) {
	a := serveAdmin(t)
	runs(t, "locks", "a&order=wait#?", "--admin", a.url)
	u, err := url.Parse(strings.TrimPrefix(a.seen(), "GET "))
	if err != nil || u.Query().Get("prefix") != "a&order=wait#?" || u.Query().Get("order") != "key" {
		t.Errorf("%v, %v", u, err)
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		held  int
		holds []string
		want  string
	}{
		{0, nil, "-"},
		{2, nil, "2 keys"},
		{1, []string{"a"}, "a"},
		{1500, []string{"b", "a"}, "a,b and 1,498 more"},
		{2, []string{strings.Repeat("x", 100), "y"}, strings.Repeat("x", 63) + "… and 1 more"},
	} {
		if got := holds(&api.Connection{Held: c.held, Holds: c.holds}, maxCell); got != c.want {
			t.Errorf("%d %q: %q, want %q", c.held, c.holds, got, c.want)
		}
	}
}

// A wait of one connection holds up the others of its owner.
func TestCycleOfOwner(t *testing.T) {
	got := cycle(&api.Cycle{ID: 1, Waits: []api.Wait{
		{Peer: peer(7), WaitsFor: "a", WaitedSeconds: 3, HeldBy: 8},
		{Peer: peer(9), WaitsFor: "b", WaitedSeconds: 2, HeldBy: 7},
	}})
	const want = "#1: 7 (10.0.0.1:40003) waits 3.0 s for a, held by 8 of the same owner as 9 (10.0.0.1:40005), " +
		"which waits 2.0 s for b, held by 7"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A variable that is empty counts as not set, and the carriage return of a file from elsewhere is no part of a value.
func TestBlankVariables(t *testing.T) {
	a := serveAdmin(t)
	env := []string{"DREADLOCK_SERVER=", "DREADLOCK_ADMIN= " + a.url + "\r", "DREADLOCK_ADMIN_TOKEN_FILE=\r", "DREADLOCK_TLS_CA=",
		"DREADLOCK_TLS_CERT=", "DREADLOCK_TLS_KEY=\t"}
	if got := runWith(t, env, "status"); got.status != 0 {
		t.Errorf("status: %+v", got)
	}
	d := startDaemon(t)
	env = []string{"DREADLOCK_SERVER=" + d.address + "\r", "DREADLOCK_ADMIN=", "DREADLOCK_TLS_CA=\r"}
	if got := runWith(t, env, "lock", "a", "--", "sh", "-c", `echo "$DREADLOCK_SERVER"`); got.status != 0 || got.stdout != d.address+"\n" {
		t.Errorf("lock: %+v", got)
	}
	if got := runWith(t, []string{"DREADLOCK_SERVER=localhost:66001"}, "lock", "a"); got.status != exitUsage ||
		!oneLine(got.stderr, "the port must be a number from 1 to 65535") {
		t.Errorf("a port that cannot be: %+v", got)
	}
}
