package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// The status of a daemon of a fleet names the members of the store, the other daemons, and what is wrong.
func TestStatusOfFleet(t *testing.T) {
	status := statusAt(1)
	status.Fleet = &api.Fleet{
		Store: "etcd", Prefix: "/dreadlock", Space: "00000000000000aa", InTouch: true, Since: time.Now().Add(-75 * time.Second), Lease: "1f",
		LeaseLeftSeconds: 7.5, WatchLagSeconds: 0.003, Places: 4, AllPlaces: 1009,
		Members: []api.StoreMember{
			{Endpoint: "http://a:2379", Reachable: true, Version: "3.6.16", Leader: true, SizeBytes: 10 << 20, QuotaBytes: 2 << 30},
			{Endpoint: "http://b:2379", Reachable: true, Version: "3.5.23", SizeBytes: 11 << 20, Alarms: []string{"NOSPACE"}},
			{Endpoint: "http://c:2379", Error: "no answer within 1s"},
		},
		Daemons: []api.FleetDaemon{
			{Lease: "1f", Address: "one:6001", Version: "v1", Self: true, Places: 4}, {Lease: "2f", Address: "two:6001", Version: "v2", Places: 1},
		},
		Warnings:     []string{"etcd does not compact its history", "more"},
		Transactions: 1000, Operations: 1, Repeats: 3, WatchRestarts: 2, Lists: 1, Lost: map[string]uint64{api.LostTime: 6},
	}
	var out strings.Builder
	if err := writeStatus(&out, &status, ""); err != nil {
		t.Fatal(err)
	}
	const now = `fleet        in touch for 1 min 15 s, lease 1f for 7.5 s more, watch 3 ms behind, lock space 00000000000000aa
daemons      one:6001 (this one), v1, 4 places
             two:6001, v2, 1 place
places       4 of 1,009 in lines
etcd         http://a:2379, 3.6.16, leader, 10 MiB of 2.0 GiB
             http://b:2379, 3.5.23, 11 MiB, ALARM NOSPACE
             http://c:2379: no answer within 1s
warnings     etcd does not compact its history
             more
`
	const counted = `writes      1,000 transactions of 1 operation, 3 repeated
watch       2 begun anew, 1 list
lost touch  6 time
`
	if !strings.Contains(out.String(), now) || !strings.HasSuffix(out.String(), counted) || strings.Contains(headline(&status), "touch") {
		t.Errorf("it shows\n%s\nwant\n%s\nand\n%s", &out, now, counted)
	}
	out.Reset()
	status.Fleet.InTouch, status.Fleet.Reason = false, "cannot reach etcd"
	if err := writeStatus(&out, &status, ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "fleet        OUT OF TOUCH for 1 min 15 s, nothing is granted: cannot reach etcd\n") ||
		!strings.Contains(headline(&status), ", out of touch with its fleet,") {
		t.Errorf("it shows\n%s", &out)
	}
}

// A key that is at another daemon of the fleet is shown with that daemon, and so is a daemon that waits for a key.
func TestOtherDaemons(t *testing.T) {
	there := api.Peer{Daemon: "2f", Address: "two:6001"}
	away := api.Key{Key: "away", Holder: there, Token: 9, HeldSeconds: 4, Waiters: 1, LongestWaitSeconds: 2, Queue: []api.Waiter{{Peer: peer(5), WaitedSeconds: 2, TimeoutSeconds: 7}}}
	here := api.Key{Key: "here", Holder: peer(7), HeldSeconds: 4, Waiters: 2, LongestWaitSeconds: 3, Queue: []api.Waiter{
		{Peer: there, WaitedSeconds: 3}, {Peer: api.Peer{Daemon: "3f"}, WaitedSeconds: 1},
	}}
	var out strings.Builder
	if err := writeKeys(&out, &page[api.Key]{entries: []api.Key{away, here}}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*api.Key{&away, &here} {
		if err := writeWaiters(&out, k); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range hottestKeys([]api.Key{away}).table(120, 10) {
		out.WriteString(l.text + "\n")
	}
	const want = `KEY   HELD   CONN  HOLDER           WAITERS  LONGEST WAIT
away  -      -     daemon two:6001  1        2.0 s
here  4.0 s  7     10.0.0.1:40003   2        3.0 s
away is at another daemon of the fleet, two:6001: ask there who holds it

PLACE  CONN  WAITER          WAITED  GIVES UP AFTER  NAME
1      5     10.0.0.1:40001  2.0 s   7.0 s           nightly@db1
here is held by connection 7 (10.0.0.1:40003) for 4.0 s

PLACE  CONN  WAITER           WAITED  GIVES UP AFTER
1      -     daemon two:6001  3.0 s   -
2      -     daemon 3f        1.0 s   -
`
	if !strings.HasPrefix(out.String(), want) || !strings.Contains(out.String()[len(want):], "daemon two:6001") {
		t.Errorf("it shows\n%s\nwant\n%s", &out, want)
	}
}

// Whom to kick is known at the daemon where the key is.
func TestKickHolderElsewhere(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked += r.Method + " " + r.URL.Path + "\n"
		_ = json.NewEncoder(w).Encode(api.Key{Key: "away", Holder: api.Peer{Daemon: "2f", Address: "two:6001"}})
	}))
	defer server.Close()
	got := runs(t, "kick", "--holder-of", "away", "--yes", "--admin", server.URL)
	if got.status != exitFailed || got.stdout != "" || !oneLine(got.stderr, "away is at another daemon of the fleet, two:6001: kick its holder there") {
		t.Errorf("%+v", got)
	}
	if asked != "GET /api/v1/keys/away\n" {
		t.Errorf("it has asked\n%s", asked)
	}
}
