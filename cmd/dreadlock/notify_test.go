package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
)

// manager is a socket to which the daemon sends what systemd is to know.
type manager struct {
	tb   testing.TB
	conn *net.UnixConn
	path string
}

func newManager(tb testing.TB) *manager {
	tb.Helper()
	dir, err := os.MkdirTemp("", "notify") // that of the test may be too long for the name of a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &manager{tb: tb, path: filepath.Join(dir, "socket")}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.conn.Close() })
	return m
}

// next returns the next message, other than signs of life.
func (m *manager) next() string {
	m.tb.Helper()
	for {
		if message := m.any(); message != "WATCHDOG=1" {
			return message
		}
	}
}

func (m *manager) any() string {
	m.tb.Helper()
	buffer := make([]byte, 4096)
	_ = m.conn.SetReadDeadline(time.Now().Add(prototest.Patience))
	n, err := m.conn.Read(buffer)
	if err != nil {
		m.tb.Fatalf("no message: %v", err)
	}
	return string(buffer[:n])
}

// want fails the test unless the next message is as expected.
func (m *manager) want(pattern string) {
	m.tb.Helper()
	if got := m.next(); !regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(got) {
		m.tb.Fatalf("systemd is told %q, want %q", got, pattern)
	}
}

// systemd is told of every step of the daemon's life, in order, and gets its signs of life.
func TestNotify(t *testing.T) {
	m := newManager(t)
	d := startWith(t, launch{env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"}}, "--listen", "127.0.0.1:0", "--loops", "2")
	m.want("READY=1\nSTATUS=serving")
	m.want("STATUS=serving 0 connections, 0 keys held, 0 waiting")
	for range 3 {
		if got := m.any(); got != "WATCHDOG=1" {
			t.Fatalf("systemd is told %q, want a sign of life", got)
		}
	}
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	for got := ""; got != "STATUS=serving 1 connection, 1 key held, 0 waiting"; { // one may tell of the connection alone
		if got = m.next(); !strings.HasPrefix(got, "STATUS=serving 1 connection, ") {
			t.Fatalf("systemd is told %q, want the connection and its key", got)
		}
	}
	d.signal(syscall.SIGHUP)
	m.want(`RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=reloading`)
	m.want("READY=1\nSTATUS=serving 1 connection, 1 key held, 0 waiting")
	if _, ok := d.log.await("reloaded"); !ok {
		t.Errorf("the log does not tell of the reload:\n%s", d.log)
	}
	holder.Do("lock a 0", "e already locked")
	d.stop()
	m.want("STOPPING=1\nSTATUS=stopping")
	_ = m.conn.SetReadDeadline(time.Now())
	if n, _ := m.conn.Read(make([]byte, 1)); n > 0 {
		t.Error("systemd is told something after the end")
	}
}

// A daemon whose notify socket is gone serves as ever, and warns once.
func TestNotifyNobody(t *testing.T) {
	m := newManager(t)
	_ = os.Remove(m.path)
	d := startWith(t, launch{env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=20000"}}, "--listen", "127.0.0.1:0")
	d.alive()
	d.log.awaitText(t, "look at NOTIFY_SOCKET")
	d.stop()
	if n := strings.Count(d.log.String(), "NOTIFY_SOCKET"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, d.log)
	}
}

// A manager that does not read is given up after a while.
func TestNotifyFull(t *testing.T) {
	m := newManager(t)
	for range 100_000 { // until the queue is full
		if err := sendTo(m.path, "STATUS=full"); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("the queue takes any number of messages")
}

// The watchdog is that of one process.
func TestWatchdogVariables(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getppid()), 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if n, err := newNotifier(zerolog.Nop(), nil); err != nil || n.watchdog != c.want || n.send == nil {
			t.Errorf("%+v: %+v, %v", c, n, err)
		}
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if n, err := newNotifier(zerolog.Nop(), nil); err != nil || n.watchdog != 0 || n.send != nil {
		t.Errorf("without a socket: %+v, %v, want that nobody is told", n, err)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := newNotifier(zerolog.Nop(), nil); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("nonsense: %v, want an error that names the variable", err)
	}
}
