package main

import (
	"bufio"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/client"
	"dreadlock/proto/prototest"
)

// startHasty starts a daemon that takes silent hosts for lost after two seconds.
func startHasty(tb testing.TB) *daemon { return startDaemon(tb, "--keepalive", "1s") }

// silence makes the daemon silent, or lets it speak again.
func (d *daemon) silence(tb testing.TB, silent bool) {
	tb.Helper()
	s := syscall.SIGCONT
	if silent {
		s = syscall.SIGSTOP
	}
	if err := d.cmd.Process.Signal(s); err != nil {
		tb.Fatal(err)
	}
}

// When the daemon falls silent the command is ended: with SIGTERM after half of the daemon's time, with SIGKILL before all of it
// is over, whatever --grace says, which is said at once.
func TestDaemonFallsSilent(t *testing.T) {
	d := startHasty(t)
	j := d.lock(t, append([]string{"k", "--grace", "1m"}, childCommand("ignore", "TERM")...)...)
	j.stdout.await(t, "ready\n")
	j.stderr.await(t, "--grace 1m0s is 333ms if the daemon does not answer")
	d.silence(t, true)
	began := time.Now()
	got := j.wait()
	took := time.Since(began)
	t.Logf("all ended %s after the daemon fell silent", took.Round(time.Millisecond))
	if got.status != exitLost || took < 500*time.Millisecond { // the last heartbeat that was answered came at most that much earlier
		t.Errorf("after %s: %+v", took, got)
	}
	contains(t, got.stderr, d.address+" has not answered for 1s, so the key k is lost: ending the command\n", "the command has not ended after")
	d.silence(t, false)
	d.free(t, "k")
}

// A grace period that fits is not spoken of, and --keepalive can make the command end sooner, which leaves more of it.
func TestGraceFits(t *testing.T) {
	d := startDaemon(t) // a minute
	for _, options := range [][]string{
		{"--grace", "28"},
		{"--grace", "48", "--keepalive", "5"},
		{"--grace", "1m", "--on-lost", "warn"},
		{},
	} {
		got := d.lock(t, append(append([]string{"k"}, options...), "--", "true")...).wait()
		if got.status != 0 || got.stderr != "" {
			t.Errorf("%q: %+v", options, got)
		}
	}
}

// What else can be done when the key is lost to silence.
func TestSilenceOtherwise(t *testing.T) {
	t.Run("warn", func(t *testing.T) {
		d := startHasty(t)
		j := d.lock(t, append([]string{"k", "--on-lost=warn"}, childCommand("wait")...)...)
		j.stdout.await(t, "ready\n")
		d.silence(t, true)
		j.stderr.await(t, "has not answered for 1s, so the key k is lost: somebody else may hold it now; the command keeps running\n")
	})
	t.Run("hold", func(t *testing.T) {
		d := startHasty(t)
		j := d.lock(t, "k")
		j.stderr.await(t, "holding k")
		d.silence(t, true)
		j.stderr.await(t, "has not answered for 1s, so the key k is lost: somebody else may hold it now\n")
		if got := j.wait(); got.status != exitLost {
			t.Errorf("%+v", got)
		}
	})
	t.Run("restart", func(t *testing.T) {
		d := startHasty(t)
		j := d.lock(t, append([]string{"k", "--restart"}, childCommand("wait")...)...)
		j.stdout.await(t, "ready\n")
		d.silence(t, true)
		j.stderr.await(t, "waiting for k again\n")
		d.silence(t, false)
		j.stdout.awaitAfter(t, len("ready\n"), "ready\n")
	})
}

// A proxy closes connections that are idle. Heartbeats are bytes to it, at the pace of --heartbeat or DREADLOCK_HEARTBEAT.
func TestBehindIdleProxy(t *testing.T) {
	const idle = 2 * time.Second
	d := startDaemon(t)
	proxy := prototest.StartIdleProxy(t, d.address, idle)
	lock := func(key string, env []string, args ...string) *job {
		j := begin(t, append(env, "DREADLOCK_SERVER="+proxy), append(append([]string{"lock", key}, args...), childCommand("wait")...)...)
		j.stdout.await(t, "ready\n")
		return j
	}
	flag, variable := lock("flag", nil, "-v", "--heartbeat", "0.1"), lock("variable", []string{"DREADLOCK_HEARTBEAT=0.1"})
	flag.stderr.await(t, "a heartbeat every 100ms; lost after 30s without an answer\n")
	if got := lock("none", nil).wait(); got.status != exitLost {
		t.Errorf("without heartbeats: %+v", got)
	}
	for _, j := range []*job{flag, variable} {
		j.signal(syscall.SIGTERM)
		if got := j.wait(); got.status != 128+15 || strings.Contains(got.stderr, "lost the connection") {
			t.Errorf("with heartbeats: %+v", got)
		}
	}
}

// A daemon that is too old gets no heartbeats, and who asks for them is told.
func TestHeartbeatOfOlderDaemon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveOlder(conn)
		}
	}()
	address := "DREADLOCK_SERVER=" + l.Addr().String()
	got := runWith(t, []string{address}, "lock", "k", "--heartbeat", "1s", "--", "true")
	if got.status != 0 || !oneLine(got.stderr, "the daemon is too old for --heartbeat") {
		t.Errorf("%+v", got)
	}
	if got := runWith(t, []string{address}, "lock", "k", "--", "true"); got.status != 0 || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

// serveOlder serves a connection as the original does, without other clients.
func serveOlder(conn net.Conn) {
	defer conn.Close()
	held := false
	for in := bufio.NewScanner(conn); in.Scan(); {
		var answer string
		switch word, _, _ := strings.Cut(in.Text(), " "); {
		case word == "lock":
			answer, held = "l locked\r\n", true
		case word == "unlock" && held:
			answer, held = "u unlocked\r\n", false
		case word == "unlock":
			answer = "e not locked\r\n"
		default: // a syntax error
			return
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// The command is killed a while before the daemon gives the key to another.
func TestKillMargin(t *testing.T) {
	for _, tc := range []struct{ server, lost, margin, grace time.Duration }{
		{time.Minute, 30 * time.Second, 2 * time.Second, 28 * time.Second},
		{6 * time.Second, 3 * time.Second, 2 * time.Second, time.Second},
		{3 * time.Second, 1500 * time.Millisecond, time.Second, 500 * time.Millisecond},
		{3 * time.Second, 200 * time.Millisecond, time.Second, 1800 * time.Millisecond},
	} {
		s := client.Silence{Server: tc.server, Lost: tc.lost}
		if margin, grace := killMargin(s.Server), silentGrace(s); margin != tc.margin || grace != tc.grace {
			t.Errorf("%+v: killed %s before, after %s", s, margin, grace)
		}
	}
}
