package admin

import (
	"strings"
	"testing"
	"time"

	"dreadlock/server/api"
)

// wellFleet is a fleet that has nothing to complain about.
func wellFleet() *api.Fleet {
	return &api.Fleet{
		Store: "etcd", Prefix: "/dreadlock", Space: "00000000000000aa", InTouch: true, Since: time.Now().Add(-time.Hour), Lease: "1f",
		TTLSeconds: 10, LeaseLeftSeconds: 7.5, WatchLagSeconds: 0.25, Places: 4, AllPlaces: 9,
		Members: []api.StoreMember{
			{Endpoint: "http://a:2379", Reachable: true, Version: "3.6.16", Leader: true, SizeBytes: 10 << 20, QuotaBytes: 2 << 30},
			{Endpoint: "http://b:2379", Reachable: true, Version: "3.6.16", SizeBytes: 11 << 20, QuotaBytes: 2 << 30},
		},
		Daemons: []api.FleetDaemon{
			{Lease: "1f", Address: "one:6001", Version: "v1.2.3", Space: "00000000000000aa", Self: true, SeenSeconds: 1, Places: 4},
			{Lease: "2f", Address: "two:6001", Version: "v1.2.3", Space: "00000000000000aa", SeenSeconds: 1.5, Places: 5},
		},
		Transactions: 100, Operations: 250, Repeats: 3, WatchRestarts: 2, Lists: 1, Lost: map[string]uint64{api.LostTime: 6},
	}
}

// fleetSeries returns what a daemon exports about a fleet that is well.
func fleetSeries(t *testing.T) (all []scrapedSeries) {
	t.Helper()
	f := newFake()
	f.status.Fleet = wellFleet()
	for _, s := range seriesOf(scrape(t, f)) {
		if strings.HasPrefix(s.labels.Get("__name__"), "dreadlock_fleet_") {
			all = append(all, s)
		}
	}
	return all
}

func TestFleetMetrics(t *testing.T) {
	f := newFake()
	for name := range scrape(t, f) {
		if strings.HasPrefix(name, "dreadlock_fleet_") {
			t.Errorf("a daemon without a fleet exports %s", name)
		}
	}
	f.status.Fleet = wellFleet()
	f.status.Fleet.Members[1].Reachable = false
	f.status.Fleet.Warnings = []string{"x"}
	families := scrape(t, f)
	for _, c := range []struct {
		name   string
		value  float64
		labels []string
	}{
		{"in_touch", 1, nil},
		{"lease_left_seconds", 7.5, nil},
		{"watch_lag_seconds", 0.25, nil},
		{"places", 4, nil},
		{"all_places", 9, nil},
		{"daemons", 2, nil},
		{"store_members", 2, nil},
		{"store_members_reachable", 1, nil},
		{"warnings", 1, nil},
		{"transactions_total", 100, nil},
		{"operations_total", 250, nil},
		{"repeats_total", 3, nil},
		{"watch_restarts_total", 2, nil},
		{"lists_total", 1, nil},
		{"lost_total", 6, []string{"reason", api.LostTime}},
		{"lost_total", 0, []string{"reason", api.LostLease}},
		{"lost_total", 0, []string{"reason", api.LostPlace}},
		{"store_size_bytes", 10 << 20, []string{"endpoint", "http://a:2379"}},
		{"store_quota_bytes", 2 << 30, []string{"endpoint", "http://a:2379"}},
	} {
		if got, ok := sample(families, "dreadlock_fleet_"+c.name, c.labels...); !ok || got != c.value {
			t.Errorf("%s %q: %v, %v; want %v", c.name, c.labels, got, ok, c.value)
		}
	}
	f.status.Fleet.InTouch = false
	if got, ok := sample(scrape(t, f), "dreadlock_fleet_in_touch"); !ok || got != 0 {
		t.Errorf("out of touch: %v, %v", got, ok)
	}
}

// The page has a card for a fleet, and says when the daemon is out of touch with it.
func TestPageFleet(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#health") + " === 'serving' && " + text("#fleet") + " === '' && " + text("#touch") + " === ''")
	f.change(func(f *fake) { f.status.Fleet = wellFleet() })
	b.until(text("#fleet-text") + ".startsWith('In touch for 1 h 0 min. What it writes is seen after 250 ms. 4 places of 9 in lines')")
	b.until(text("#daemons tbody tr:nth-child(1)") + ".includes('one:6001 (this one)') && " + text("#daemons tbody tr:nth-child(2)") + ".includes('two:6001')")
	b.until(text("#members tbody tr:nth-child(1)") + ".includes('leader') && " + text("#members tbody tr:nth-child(1)") + ".includes('10 of 2,048 MiB')")
	b.until(text("#fleet-warnings") + " === ''")
	f.change(func(f *fake) { // what was served is not touched
		f.status.Fleet = wellFleet()
		f.status.Fleet.Members[0] = api.StoreMember{Endpoint: "http://a:2379", Error: "no answer within 1s"}
		f.status.Fleet.Members[1].Alarms = []string{"NOSPACE"}
		f.status.Fleet.Warnings = []string{"one thing", "another thing"}
	})
	b.until(text("#members") + ".includes('no answer within 1s') && " + text("#members") + ".includes('follower, alarm NOSPACE')")
	b.until("document.querySelectorAll('#fleet-warnings li').length === 2")
	f.change(func(f *fake) {
		f.status.Fleet = wellFleet()
		f.status.Fleet.InTouch, f.status.Fleet.Reason = false, "cannot reach etcd"
	})
	b.until(text("#health") + " === 'out of touch' && " + text("#touch-text") + ".includes('nothing is granted here') && " +
		text("#touch-text") + ".includes(': cannot reach etcd.') && document.title.startsWith('(out of touch')")
	b.quiet()
}

// A key that is at another daemon of the fleet is shown with that daemon, without buttons that do not work here, and so is a daemon that
// waits for a key.
func TestPageOtherDaemons(t *testing.T) {
	skipIfShort(t)
	f := newFake()
	f.change(func(f *fake) {
		for i := range f.keys {
			switch k := &f.keys[i]; k.Key {
			case "k000":
				k.Holder, k.Token = api.Peer{Daemon: "2f", Address: "two:6001"}, 0
			case "k001":
				k.Queue[0].Peer, k.Queue[0].TimeoutSeconds = api.Peer{Daemon: "2f", Address: "two:6001"}, 0
				k.Queue[2].Peer, k.Queue[2].TimeoutSeconds = api.Peer{Daemon: "3f"}, 0
			}
		}
	})
	b := openTab(t)
	b.open(serve(t, Config{Source: f}) + "/")
	b.until(text("#found-text") + ".endsWith('held, or at another daemon.')")
	b.until(text("#hot tbody tr:first-child") + ".includes('daemon two:6001')")
	b.until(text("#found tbody tr:nth-child(4)") + ".includes('daemon two:6001')")
	b.click("#hot tbody tr:first-child a.key")
	b.until(text("#facts") + ".includes('daemon two:6001: ask there who holds it')")
	b.until("document.querySelectorAll('#acts button').length === 0")
	b.click("#close")
	b.click("#hot tbody tr:nth-child(2) a.key")
	b.until("document.querySelectorAll('#queue tbody tr').length === 11 && document.querySelectorAll('#acts button').length === 2")
	b.until(text("#queue tbody tr:nth-child(1)") + ".includes('daemon two:6001') && " + text("#queue tbody tr:nth-child(3)") + ".includes('daemon 3f')")
	b.until(text("#queue tbody tr:nth-child(1) td:nth-child(4)") + " === '–'")
	b.quiet()
}
