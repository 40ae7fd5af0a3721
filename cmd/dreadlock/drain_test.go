package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// endsWell waits until the daemon has ended by itself, with status 0.
func (d *daemon) endsWell() {
	d.tb.Helper()
	if state := d.wait(); !state.Exited() || state.ExitCode() != 0 {
		d.tb.Errorf("ended with %v, want 0; log:\n%s", state, d.log)
	}
}

// logs fails the test unless the log has a line with that message, which may still have to come.
func (d *daemon) logs(message, level string) logLine {
	d.tb.Helper()
	line, ok := d.log.await(message)
	if !ok || line["level"] != level {
		d.tb.Errorf("the log has %v, want %q with level %s:\n%s", line, message, level, d.log)
	}
	return line
}

// With --drain a signal lets those who hold a key, or wait for one, finish, while nobody else is served. Health checks and
// metrics say so. The daemon ends when nobody holds a key.
func TestDrain(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			v := startAdmin(t, "--drain", "1h")
			d := v.d
			holder, waiter, idle := d.dial(), d.dial(), d.dial()
			holder.Do("lock a 0", "l locked")
			idle.Do("unlock a", "e not owner")
			newQueuer(d, 2, waiter).queue(waiter, "a", 600_000)
			if _, metrics := v.request(http.MethodGet, "/metrics"); !strings.Contains(metrics, "\ndreadlock_draining 0\n") {
				t.Error("the metrics do not say that it does not drain")
			}
			d.signal(s)
			idle.ExpectEnd()
			if status, _ := v.requestOnce(http.MethodGet, "/readyz"); status != http.StatusServiceUnavailable {
				t.Errorf("/readyz answers %d", status)
			}
			if status, _ := v.request(http.MethodGet, "/healthz"); status != http.StatusOK {
				t.Errorf("/healthz answers %d", status)
			}
			if _, metrics := v.request(http.MethodGet, "/metrics"); !strings.Contains(metrics, "\ndreadlock_draining 1\n") {
				t.Error("the metrics do not say that it drains")
			}
			var status api.Status
			v.get("/api/v1/status", &status)
			if status.Drain == nil || status.Drain.Until.Sub(status.Drain.Since) != time.Hour || status.HeldKeys != 1 || status.Waiters != 1 {
				t.Errorf("the status is %+v, drain: %+v", status, status.Drain)
			}
			if conn, err := net.Dial("tcp", d.address); err == nil {
				_ = conn.SetDeadline(time.Now().Add(prototest.Patience))
				if text, err := io.ReadAll(conn); len(text) > 0 {
					t.Errorf("a new client is told %q, %v", text, err)
				}
				conn.Close()
			}
			holder.Do("lock b 0", "l locked")
			holder.Do("unlock a", "u unlocked")
			waiter.Expect("l locked")
			holder.Do("unlock b", "u unlocked")
			holder.ExpectEnd()
			waiter.Do("unlock a", "u unlocked")
			waiter.ExpectEnd()
			d.endsWell()
			d.logs("dreadlock drains: it takes no new connections and ends when nobody holds a key", "info")
			d.logs("the drain ends: nobody holds a key", "info")
			d.logs("dreadlock stops: no key was held", "info")
		})
	}
}

// systemd is told at once, and how long it takes.
func TestDrainNotifies(t *testing.T) {
	m := newManager(t)
	d := startWith(t, launch{env: []string{"NOTIFY_SOCKET=" + m.path}}, "--listen", "127.0.0.1:0", "--drain", "1h")
	m.want("READY=1\nSTATUS=serving")
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.signal(syscall.SIGTERM)
	for message := m.next(); !strings.HasPrefix(message, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=36"); message = m.next() {
		if !strings.HasPrefix(message, "STATUS=serving") {
			t.Fatalf("systemd is told %q", message)
		}
	}
	holder.Do("unlock a", "u unlocked")
	d.endsWell()
}

// When the time is up, the rest is dropped and named. The exit status is 0 all the same: it has been told to stop.
func TestDrainTimeIsUp(t *testing.T) {
	d := startWith(t, launch{env: []string{"DREADLOCK_DRAIN=200ms"}}, "--listen", "127.0.0.1:0", "--loops", "2")
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.signal(syscall.SIGTERM)
	holder.ExpectEnd()
	d.endsWell()
	d.logs("the drain ends: its time is up", "warn")
	d.lost(holder, "a")
	if line := d.logs("dreadlock stops: the keys that were held are lost", "warn"); line.text("held_keys") != "1" {
		t.Errorf("it says %v, want 1 key", line)
	}
}

// A second signal ends the drain. What is held is lost, and named.
func TestSecondSignal(t *testing.T) {
	for _, second := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		d := start(t, "--drain", "1h")
		holder, idle := d.dial(), d.dial()
		holder.Do("lock a 0", "l locked")
		idle.Do("unlock a", "e not owner")
		d.signal(syscall.SIGTERM)
		idle.ExpectEnd()
		holder.Do("lock b 0", "l locked")
		d.signal(second)
		d.endsWell()
		holder.ExpectEnd()
		for _, key := range []string{"a", "b"} {
			d.lost(holder, key)
		}
	}
}

// A drain of the admin interface is shortened by a signal: to --drain, or to nothing without it.
func TestSignalInDrain(t *testing.T) {
	for _, drain := range []string{"0s", "200ms"} {
		v := startAdmin(t, "--drain", drain)
		holder := v.d.dial()
		holder.Do("lock a 0", "l locked")
		if status, body := v.request(http.MethodPost, "/api/v1/drain?timeout=3600"); status != http.StatusOK {
			t.Fatalf("drain: %d %s", status, body)
		}
		holder.Do("lock b 0", "l locked")
		v.d.signal(syscall.SIGTERM)
		holder.ExpectEnd()
		v.d.endsWell()
		v.d.lost(holder, "a")
	}
}

// The log shows what a drain waits for.
func TestDrainProgress(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until the log says something")
	}
	t.Parallel() // it mostly waits
	d := start(t, "--drain", "1h")
	holder := d.dial()
	for i := range 3 {
		holder.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
	}
	d.signal(syscall.SIGTERM)
	line := d.logs("dreadlock drains", "info")
	if line.text("held_keys") != "3" || line.text("waiters") != "0" || line.text("connections") != "1" || !strings.HasPrefix(line.text("left"), "59 min") {
		t.Errorf("it says %v, want 3 keys of 1 connection", line)
	}
}
