package main

import (
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
