package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"dreadlock/server/api"
)

// refusedTakeover asks for a takeover that is refused, and returns why.
func refusedTakeover(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Post(url+"/api/v1/takeover", "", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusConflict {
		t.Fatalf("a takeover: %s, %v: %s", response.Status, err, text)
	}
	return string(text)
}

// A daemon of a fleet is taken over: it keeps its lease, and its clients their keys and places in line, before and after those of another
// daemon. What would be another fleet is refused. A daemon that is out of touch with its fleet can be taken over as well.
func TestFleetTakeover(t *testing.T) {
	cluster, urls := startEtcd(t)
	fleet := []string{"DREADLOCK_FLEET=" + urls, "DREADLOCK_FLEET_TTL=5s"}
	options := writeOptions(t, fleet...)
	one := start(t, "--options-file", options, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	two := start(t, "--fleet", urls, "--fleet-ttl", "5s", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	for _, d := range []*daemon{one, two} {
		if _, ok := d.log.await("in touch with the fleet"); !ok {
			t.Fatalf("it is not in touch; log:\n%s", d.log)
		}
	}
	url, other := one.adminAddresses()[0], two.adminAddresses()[0]
	status := func(url string) (st api.Status) {
		ask(t, http.MethodGet, url+"/api/v1/status", &st)
		return st
	}
	holder, waiter, rival, rivalWaits := one.dial(), one.dial(), two.dial(), two.dial()
	holder.Do("lock k 0", "l locked")
	rival.Do("lock j 0", "l locked")
	waiter.Send("lock j 3600000")
	rivalWaits.Send("lock k 3600000")
	for _, url := range []string{url, other} {
		eventually(t, "a client does not wait", func() bool { st := status(url); return st.Waiters == 1 && st.Fleet.AllPlaces == 4 })
	}
	lease, before := status(url).Fleet.Lease, token(t, holder, "k")

	for want, lines := range map[string][]string{
		"--lock-delay: 3s: the lease in the fleet goes by that of the daemon that runs": append([]string{"DREADLOCK_LOCK_DELAY=3s"}, fleet...),
		"--fleet-prefix: /other is not the fleet of the daemon that runs":               append([]string{"DREADLOCK_FLEET_PREFIX=/other"}, fleet...),
		"--fleet: the daemon that runs is one of a fleet":                               nil,
		"cannot reach etcd at http://127.0.0.1:1":                                       {"DREADLOCK_FLEET=http://127.0.0.1:1"},
	} {
		rewriteOptions(t, options, lines...)
		if why := refusedTakeover(t, url); !strings.Contains(why, want) {
			t.Errorf("%q: it is refused: %s; want %q", lines, why, want)
		}
	}
	for _, loops := range []string{"3", "1"} {
		rewriteOptions(t, options, append([]string{"DREADLOCK_LOOPS=" + loops}, fleet...)...)
		if done := takeOver(t, url); done.HeldKeys != 1 || done.Waiters != 1 || done.Closed != 0 {
			t.Errorf("the takeover is %+v", done)
		}
		if f := status(url).Fleet; !f.InTouch || f.Lease != lease || f.AllPlaces != 4 || f.Places != 2 {
			t.Errorf("after a takeover the status of the fleet is %+v", f)
		}
		if got := token(t, holder, "k"); got != before {
			t.Errorf("the token was %q, and is %q", before, got)
		}
		holder.Do("lock j 0", "t timeout")
	}
	holder.Do("unlock k", "u unlocked")
	rivalWaits.Expect("l locked")
	if after := token(t, rivalWaits, "k"); len(after) < len(before) || len(after) == len(before) && after <= before {
		t.Errorf("the token %q comes after %q", after, before)
	}
	rival.Do("unlock j", "u unlocked")
	waiter.Expect("l locked")

	cluster.Stop()
	if _, ok := one.log.await("lost touch with the fleet: the clients that held a key or waited for one were dropped"); !ok {
		t.Fatalf("it does not lose touch; log:\n%s", one.log)
	}
	waiter.ExpectEnd()
	late := one.dial()
	late.Send("lock k 3600000")
	if done := takeOver(t, url); done.HeldKeys != 0 || done.Connections != 2 {
		t.Errorf("the takeover without etcd is %+v", done)
	}
	for _, m := range cluster.Members {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	late.Expect("l locked")
	if f := status(url).Fleet; f.Lost[api.LostTime] != 1 || f.Lease == lease {
		t.Errorf("the status of the fleet is %+v", f)
	}
}

// rewriteOptions changes a file with options.
func rewriteOptions(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
