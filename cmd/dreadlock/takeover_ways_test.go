package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// socketDir returns a directory whose name is short enough for sockets.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "takeover")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Ways in stay, change their parameters, come and go. Who has come by one that is gone is served on.
func TestTakeoverWays(t *testing.T) {
	dir := socketDir(t)
	options, stays, goes, comes := filepath.Join(dir, "options"), dir+"/stays", dir+"/goes", dir+"/comes"
	first, second, third := freeAddress(t), freeAddress(t), freeAddress(t)
	admin, adminToo := dir+"/admin", dir+"/admin2"
	rewriteOptions(t, options,
		"DREADLOCK_LISTEN="+first+" "+second+" unix://"+stays+"?mode=0600 unix://"+goes,
		"DREADLOCK_ADMIN_LISTEN=unix://"+admin+" unix://"+adminToo)
	d := startWith(t, launch{}, "--loops", "2", "--options-file", options)
	byStays, byGoes, bySecond := prototest.DialUnix(t, stays), prototest.DialUnix(t, goes), prototest.Dial(t, second)
	for i, c := range []*prototest.Client{byStays, byGoes, bySecond} {
		c.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
	}
	before := inodeOf(t, stays)

	rewriteOptions(t, options,
		"DREADLOCK_LISTEN="+third+" unix://"+comes+" unix://"+stays+"?mode=0666 tcp://"+first+"?allow=127.0.0.1",
		"DREADLOCK_ADMIN_LISTEN=unix://"+admin)
	s := d.takeOver()
	if _, ok := s.log.await("a socket that was taken over is closed: no --listen names it"); !ok {
		t.Errorf("the log does not say what is closed:\n%s", s.log)
	}
	for i, c := range []*prototest.Client{byStays, byGoes, bySecond} {
		c.Do(fmt.Sprintf("lock k%d 0", i), "e already locked")
	}
	for _, c := range []*prototest.Client{
		prototest.Dial(t, first), prototest.Dial(t, third), prototest.DialUnix(t, stays), prototest.DialUnix(t, comes),
	} {
		c.Do("lock k0 0", "t timeout")
	}
	if inodeOf(t, stays) != before {
		t.Error("the Unix socket was made again")
	}
	eventually(t, "the mode of the Unix socket stays", func() bool {
		info, err := os.Stat(stays)
		return err == nil && info.Mode().Perm() == 0o666
	})
	eventually(t, "what is gone is still there", func() bool {
		_, socket := os.Stat(goes)
		_, lock := os.Stat(goes + ".lock")
		_, view := os.Stat(adminToo)
		return os.IsNotExist(socket) && os.IsNotExist(lock) && os.IsNotExist(view)
	})
	if got := run(t, launch{}, "--listen", "unix://"+stays); got.status != 1 || !strings.Contains(got.stderr, "address already in use") {
		t.Errorf("another daemon at the socket: %+v", got)
	}
	s.stop()
	for _, path := range []string{stays, stays + ".lock", comes, comes + ".lock", admin, admin + ".lock"} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// A new way that cannot be opened leaves all as it was, at the paths too.
func TestTakeoverRefusesWays(t *testing.T) {
	dir := socketDir(t)
	options, stays, comes := filepath.Join(dir, "options"), dir+"/stays", dir+"/comes"
	rewriteOptions(t, options, "DREADLOCK_LISTEN=127.0.0.1:0 unix://"+stays+"?mode=0600")
	d := startWith(t, launch{}, "--loops", "2", "--options-file", options)
	c := prototest.DialUnix(t, stays)
	c.Do("lock a 0", "l locked")
	rewriteOptions(t, options, "DREADLOCK_LISTEN=127.0.0.1:0 unix://"+stays+"?mode=0666 unix://"+comes+" unix:///nonexistent/s")
	d.signal(syscall.SIGUSR2)
	d.serveOn("unix:///nonexistent/s", "there is no directory")
	c.Do("lock a 0", "e already locked")
	prototest.DialUnix(t, stays).Do("lock a 0", "t timeout")
	if info, err := os.Stat(stays); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has changed: %v, %v", info, err)
	}
	eventually(t, "the new socket is left", func() bool { _, err := os.Lstat(comes); return os.IsNotExist(err) })
	d.stop()
}

// Sockets that systemd has passed go to the next process by their names.
func TestTakeoverActivated(t *testing.T) {
	tcp, path := freeAddress(t), filepath.Join(socketDir(t), "s")
	d := activate(t, tcp+" "+path, "locks:local")
	holder := prototest.Dial(t, tcp)
	holder.Do("lock a 0", "l locked")
	if _, ok := d.log.await("dreadlock is ready"); !ok {
		t.Fatalf("it is not ready; log:\n%s", d.log)
	}
	for range 2 {
		d = d.takeOver()
		holder.Do("lock a 0", "e already locked")
		prototest.Dial(t, tcp).Do("lock a 0", "t timeout")
		prototest.DialUnix(t, path).Do("lock a 0", "t timeout")
	}
	d.wantNothingToInherit()
	d.stop()
	if err := os.Remove(path); err != nil { // the daemon leaves it to who made it
		t.Error(err)
	}
}

// systemd is told of a takeover as of a reload that ends with another main process, which tells it the rest.
func TestTakeoverNotify(t *testing.T) {
	m := newManager(t)
	d, path := startAt(t, launch{env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000", "WATCHDOG_PID="}}, "--admin", "off")
	m.want("READY=1\nSTATUS=serving")
	m.want("STATUS=serving 0 connections, 0 keys held, 0 waiting")
	d.dial().Do("lock a 0", "l locked")

	replace(t, path, "exit 1")
	d.signal(syscall.SIGUSR2)
	d.serveOn("exit status 1")
	reloading := `RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=handing over to a new process`
	got := m.next()
	for strings.HasPrefix(got, "STATUS=") {
		got = m.next()
	}
	matches(t, got, reloading)
	m.want(`READY=1\nSTATUS=serving .*`)

	replace(t, path, `exec {} "$@"`)
	s := d.takeOver()
	for got = m.next(); strings.HasPrefix(got, "STATUS="); got = m.next() {
	}
	matches(t, got, reloading)
	m.want(fmt.Sprintf(`MAINPID=%d\nREADY=1`, s.cmd.Process.Pid))
	m.want("STATUS=serving 1 connection, 1 key held, 0 waiting")
	for range 3 {
		if got := m.any(); got != "WATCHDOG=1" {
			t.Fatalf("systemd is told %q, want a sign of life of the new process", got)
		}
	}
	s.signal(syscall.SIGHUP)
	m.want(`RELOADING=1\nMONOTONIC_USEC=\d+\nSTATUS=reloading`)
	m.want("READY=1\nSTATUS=serving 1 connection, 1 key held, 0 waiting")
	s.stop()
	m.want("STOPPING=1\nSTATUS=stopping")
}

// matches fails the test unless a message is as expected.
func matches(t *testing.T, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile("^(?s:" + pattern + ")$").MatchString(got) {
		t.Fatalf("systemd is told %q, want %q", got, pattern)
	}
}

// Clients by TLS are not handed over: their connections end by the book, and what they held is free after that.
func TestTakeoverTLS(t *testing.T) {
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server("localhost"))
	d := startWith(t, launch{}, "--loops", "2", "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0",
		"--tls-cert", cert, "--tls-key", key)
	secured := strings.TrimPrefix(d.listen()[1], "tls://")
	client := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	holder, idle := prototest.DialTLS(t, secured, client), prototest.DialTLS(t, secured, client)
	holder.Do("lock a 0", "l locked")
	idle.Do("unlock nobodys", "e not locked")
	waiter := d.dial()
	waiter.Send("lock a 600000")
	s := d.takeOver()
	for _, c := range []*prototest.Client{holder, idle} {
		c.ExpectEnd() // with a close_notify, or it would be an error
	}
	waiter.Expect("l locked")
	line, _ := s.log.await("dreadlock has handed over: the new process serves")
	if line.text("closed") != "2" || line.text("connections") != "1" || line.text("level") != "warn" {
		t.Errorf("the log says %v, want 2 that are closed", line)
	}
	again := prototest.DialTLS(t, secured, client)
	again.Do("lock a 0", "t timeout")
	s.stop()
}

// The lock delay of a key that rests goes on, and a takeover is no start: nothing else rests.
func TestTakeoverLockDelay(t *testing.T) {
	t.Parallel() // it mostly waits
	v := startDelayed(t)
	holder := v.d.dial()
	holder.Do("lock a 0", "l locked")
	holder.Do("lock b 0", "l locked")
	next := v.queueFor(t, "a")
	lost := time.Now()
	holder.Close()
	eventually(t, "the key never rests", func() bool {
		var k api.Key
		v.get("/api/v1/keys/a", &k)
		return k.FreesInSeconds > 0 || time.Since(lost) > testDelay
	})
	s := v.d.takeOver()
	s.dial().Do("lock fresh 0", "l locked")
	next.Expect("l locked")
	if took := time.Since(lost); took < testDelay {
		t.Errorf("the next one has the key after %s, want %s", took, testDelay)
	}
	s.stop()
}

// Who asks by the API is answered by the process that goes, and the new one tells of it at the same address.
func TestTakeoverByAPI(t *testing.T) {
	if err := adoptOrphans(); err != nil {
		t.Fatal(err)
	}
	d := start(t, "--admin", "127.0.0.1:0")
	d.dial().Do("lock a 0", "l locked")
	url := d.adminAddresses()[0]
	var done api.Takeover
	ask(t, http.MethodPost, url+"/api/v1/takeover", &done)
	s := d.successor()
	if done.PID != s.cmd.Process.Pid || done.FromPID != d.cmd.Process.Pid || done.HeldKeys != 1 || done.Count != 1 || done.PauseSeconds <= 0 {
		t.Errorf("the answer is %+v", done)
	}
	var status api.Status
	ask(t, http.MethodGet, url+"/api/v1/status", &status)
	if status.Takeover == nil || status.Takeover.FromPID != done.FromPID || status.PID != done.PID || status.Takeover.PauseSeconds <= 0 {
		t.Errorf("the status says %+v of %+v", status.Takeover, status)
	}
	s.stop()
}
