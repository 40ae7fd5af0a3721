package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// cannotAccept begins the warning about errors of accept.
const cannotAccept = "connections cannot be accepted: "

// acceptErrors are the errors of accept(2) that say nothing against the listening socket.
var acceptErrors = []string{
	"EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", // shortages
	"EPERM", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "EOPNOTSUPP", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "ENETUNREACH", "ETIMEDOUT",
	"ECONNABORTED", "EINTR", // package net repeats these by itself, and nobody hears of them
}

// unheard says whether an error of accept is one of those.
func unheard(name string) bool { return name == "ECONNABORTED" || name == "EINTR" }

// injectAccept makes accept4 fail with an error, at the calls that when selects.
func (d *daemon) injectAccept(tb testing.TB, name, when string) *injection {
	tb.Helper()
	fault := "accept4:error=" + name + ":when=" + when
	if unheard(name) {
		fault += ":delay_enter=1000" // us: it is repeated without a pause
	}
	return d.inject(tb, fault)
}

// acceptWarnings returns the lines of the log that say that connections cannot be accepted. It leaves out the error of a call
// that strace has let go of half-way.
func (d *daemon) acceptWarnings() (lines []logLine) {
	d.log.until(func() bool { // what was read
		for _, line := range d.log.json {
			if strings.HasPrefix(line.text("message"), cannotAccept) && !strings.Contains(line.text("error"), unix.ENOSYS.Error()) {
				lines = append(lines, line)
			}
		}
		return true
	})
	return lines
}

// acceptErrorCount returns what the metric says of an error.
func (v *view) acceptErrorCount(name string) int {
	v.d.tb.Helper()
	_, text := v.request(http.MethodGet, "/metrics")
	found := regexp.MustCompile(`(?m)^dreadlock_accept_errors_total\{reason="` + name + `"\} (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	n, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		v.d.tb.Fatal(err)
	}
	return int(n)
}

// TestAcceptErrors has accept fail with each error, once and for a while. Whoever is connected does not notice, whoever
// comes is served afterwards, and the errors are counted and reported.
func TestAcceptErrors(t *testing.T) {
	names, while := acceptErrors, 3*time.Second
	if testing.Short() {
		names, while = []string{"ENFILE", "EPROTO", "ECONNABORTED"}, time.Second
	}
	const atOnce = 4 // they wait most of the time
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(name, func(t *testing.T) { testAcceptError(t, name, while) })
		})
	}
	wg.Wait()
}

func testAcceptError(t *testing.T, name string, while time.Duration) {
	v := startAdmin(t)
	d := v.d
	holder, waiter, other := d.dial(), d.dial(), d.dial()
	holder.Do("lock a 0", "l locked")
	other.Do("lock b 0", "l locked")
	waiter.Send("lock a 600000")

	began := time.Now()
	once := d.injectAccept(t, name, "1")
	d.dial().Do("lock c 0", "l locked")
	once.end()

	lasting := d.injectAccept(t, name, "1+")
	newcomer := d.dial() // the kernel connects it
	newcomer.Send("lock b 600000")
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for start := time.Now(); time.Since(start) < while; <-pace.C {
		other.Do("lock a 0", "t timeout")
		other.Do("lock b 0", "e already locked")
	}
	holder.Do("unlock a", "u unlocked")
	waiter.Expect("l locked")
	lasting.end()

	eventually(t, "the newcomer does not wait", func() bool {
		var page api.KeyPage
		v.get("/api/v1/keys?prefix=b", &page)
		return len(page.Keys) == 1 && page.Keys[0].Waiters == 1
	})
	other.Do("unlock b", "u unlocked")
	newcomer.Expect("l locked")
	waiter.Do("lock a 0", "e already locked")
	d.alive()
	took := time.Since(began)

	failed := once.count() + lasting.count()
	if once.count() == 0 || lasting.count() < 2 {
		t.Errorf("accept has failed %d times, then %d times", once.count(), lasting.count())
	}
	counted, warnings := v.acceptErrorCount(name), d.acceptWarnings()
	if unheard(name) {
		if counted > 0 || len(warnings) > 0 {
			t.Errorf("%d errors were counted, and the log says %v", counted, warnings)
		}
		return
	}
	if counted < failed-1 || counted > failed { // strace may go between a call and its result
		t.Errorf("%d errors were counted, want %d", counted, failed)
	}
	if most := int(took/time.Second) + 1; len(warnings) < 1 || len(warnings) > most {
		t.Errorf("%d warnings in %s, want 1 to %d", len(warnings), took, most)
	}
	told := 0
	for _, line := range warnings {
		n, _ := line["errors"].(float64)
		told += int(n)
	}
	if first := warnings[0]; first.text("errors") != "1" || first.text("level") != "warn" || told > failed {
		t.Errorf("of %d errors, the log tells of %d: %v", failed, told, warnings)
	}
}

// TestAdminAcceptErrors has accept fail where the admin interface listens. It goes on as well: a daemon that does not answer
// for its health may be restarted, and all locks are lost.
func TestAdminAcceptErrors(t *testing.T) {
	v := startAdmin(t)
	for _, name := range []string{"EMFILE", "ENOMEM", "EPROTO"} {
		in := v.d.injectAccept(t, name, "1")
		if status, body := v.request(http.MethodGet, "/healthz"); status != http.StatusOK {
			t.Errorf("after %s: %d %s", name, status, body)
		}
		in.end()
		if in.count() == 0 {
			t.Errorf("%s: accept has not failed", name)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

// TestDescriptorLimitLowered lowers the limit on open files of a running daemon, so that it gets no more. Whoever is connected
// does not notice. Whoever comes waits until the limit is raised again.
func TestDescriptorLimitLowered(t *testing.T) {
	v := startAdmin(t)
	d := v.d
	counted := v.acceptErrorCount("EMFILE") // by a connection that stays
	const clients = 30
	var connected []*prototest.Client
	for i := range clients {
		c := d.dial()
		c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
		connected = append(connected, c)
	}
	before := d.limitDescriptors(3) // which it has: the standard ones
	newcomer := d.dial()
	newcomer.Send("lock k0 600000")
	eventually(t, "no error is counted", func() bool { return v.acceptErrorCount("EMFILE") >= counted+3 })
	for i, c := range connected {
		c.Do(fmt.Sprintf("lock k%d 0", i), "e already locked")
		c.Do(fmt.Sprintf("lock k%d 0", (i+1)%clients), "t timeout")
		for range 40 { // which would bring it to another loop, if there was a descriptor for that
			c.Do(fmt.Sprintf("lock m%d 0", i), "l locked")
			c.Do(fmt.Sprintf("unlock m%d", i), "u unlocked")
		}
	}
	d.limitDescriptors(before)
	connected[0].Do("unlock k0", "u unlocked")
	newcomer.Expect("l locked")
	d.alive()
	warnings := d.acceptWarnings()
	if len(warnings) == 0 || !strings.Contains(warnings[0].text("message"), "raise the limit on open files of this process") {
		t.Errorf("the log says %v", warnings)
	}
	d.stop()
}

// limitDescriptors sets the limit on open files of the daemon, and returns what it was.
func (d *daemon) limitDescriptors(limit uint64) (before uint64) {
	d.tb.Helper()
	var was unix.Rlimit
	err := unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &was)
	if err == nil {
		err = unix.Prlimit(d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: was.Max}, nil)
	}
	if err != nil {
		d.tb.Fatalf("prlimit: %v", err)
	}
	return was.Cur
}

// TestSpread has clients come one by one: the loops get as many each.
func TestSpread(t *testing.T) {
	v := startAdmin(t)
	clients := scaled(t, api.MaxLimit, 200) // one page of the API
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for range clients {
		v.d.dial()
		<-pace.C
	}
	var page api.ConnectionPage
	eventually(t, "not all are connected", func() bool {
		v.get(fmt.Sprintf("/api/v1/connections?limit=%d", api.MaxLimit), &page)
		return len(page.Connections) == clients
	})
	first := 0
	for _, c := range page.Connections {
		if c.Loop == 0 {
			first++
		}
	}
	t.Logf("%d of %d on loop 0", first, clients)
	if first < clients*45/100 || first > clients*55/100 {
		t.Errorf("loop 0 has %d of %d clients, want 45%% to 55%%", first, clients)
	}
}
