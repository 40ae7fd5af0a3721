package main

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/client"
	"dreadlock/proto/prototest"
	"dreadlock/server/admin/adminsock"
)

// session is a directory as $XDG_RUNTIME_DIR of a user.
type session struct{ dir string }

func newSession(t *testing.T) session {
	t.Helper()
	dir, err := os.MkdirTemp("", "session") // those of testing have names that are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(dir+"/dreadlock", 0o755)); err != nil {
		t.Fatal(err)
	}
	return session{dir}
}

// daemon starts a daemon with its socket in the session.
func (s session) daemon(t *testing.T) (d *daemon, path string) {
	t.Helper()
	d = startDaemonIn(t, s.dir+"/dreadlock")
	return d, strings.TrimPrefix(adminURL(t, d), "unix://")
}

// env is the environment of a user of the session. Beside it there may be daemons in /run/dreadlock, which have nothing to do
// with the test, so the daemon is named.
func (s session) env(d *daemon) []string {
	return []string{"XDG_RUNTIME_DIR=" + s.dir, "DREADLOCK_SERVER=" + d.address}
}

// Without options the socket is found, by all commands that ask the daemon and by the completion.
func TestFind(t *testing.T) {
	s := newSession(t)
	d, path := s.daemon(t)
	c := d.dial(t)
	c.Do("lock backup 0", "l locked")
	if got := runWith(t, s.env(d), "status"); got.status != 0 || !strings.Contains(got.stdout, " at "+d.address) {
		t.Errorf("%+v", got)
	}
	if len(adminsock.Find()) == 0 { // then it is the only one
		if got := runWith(t, []string{"XDG_RUNTIME_DIR=" + s.dir}, "status"); got.status != 0 || !strings.Contains(got.stdout, " at "+d.address) {
			t.Errorf("%+v", got)
		}
	}
	for _, args := range []string{"locks", "waiters backup", "connections", "deadlocks", "top --json --count 1"} {
		if got := runWith(t, s.env(d), strings.Fields(args)...); got.status != 0 || got.stdout == "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
	eventually(t, func() (bool, any) {
		got := runWith(t, s.env(d), "__complete", "--", "waiters", "ba")
		return strings.HasPrefix(got.stdout, "backup\t"), got
	})
	for _, args := range [][]string{{"--admin", "unix://" + path}, {"--admin=unix:" + "//" + path, "--server", "192.0.2.1:6001"}} {
		if got := runs(t, append(args, "status")...); got.status != 0 || !strings.Contains(got.stdout, " at "+d.address) {
			t.Errorf("%q: %+v", args, got)
		}
	}
	if got := runWith(t, s.env(d), "kick", "1", "-y"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	c.ExpectEnd()
}

// Of two daemons it is that of --server, and without that the choices are named.
func TestFindOneOfTwo(t *testing.T) {
	s := newSession(t)
	a, pathA := s.daemon(t)
	b, pathB := s.daemon(t)
	for _, d := range []*daemon{a, b} {
		if got := runWith(t, s.env(d), "status"); got.status != 0 || !strings.Contains(got.stdout, " at "+d.address) {
			t.Errorf("%+v, want %s", got, d.address)
		}
	}
	got := runWith(t, s.env(a), "status", "--server", "localhost:1")
	if got.status != exitUsage || !oneLine(got.stderr, "--server localhost:PORT", "--admin unix://"+pathA, "--admin unix://"+pathB) {
		t.Errorf("%+v", got)
	}
	a.kill() // and leaves its socket
	if _, err := os.Lstat(pathA); err != nil {
		t.Fatal(err)
	}
	if len(adminsock.Find()) == 0 {
		if got := runWith(t, s.env(a), "status"); got.status != 0 || !strings.Contains(got.stdout, " at "+b.address) {
			t.Errorf("%+v, want %s", got, b.address)
		}
	}
}

// Where no daemon is to be found, the message says where it has looked and what to do.
func TestFindNone(t *testing.T) {
	if found := adminsock.Find(); len(found) > 0 {
		t.Skipf("there is %v", found)
	}
	s := newSession(t)
	got := runWith(t, []string{"XDG_RUNTIME_DIR=" + s.dir}, "locks")
	if got.status != exitUnreachable || got.stdout != "" ||
		!oneLine(got.stderr, "in /run/dreadlock or "+s.dir+"/dreadlock or /", "start one without --admin off", "--admin URL or DREADLOCK_ADMIN") {
		t.Errorf("%+v", got)
	}
}

// A daemon on another machine is not mistaken for the one on this machine.
func TestFindElsewhere(t *testing.T) {
	s := newSession(t)
	s.daemon(t)
	for _, server := range []string{"192.0.2.1:6001", "tls://192.0.2.1:6001", noHost + ":6001"} {
		got := runWith(t, []string{"XDG_RUNTIME_DIR=" + s.dir}, "status", "--server", server)
		if got.status != exitUnreachable || !oneLine(got.stderr, server+" is on another machine", "--admin URL or DREADLOCK_ADMIN") {
			t.Errorf("%+v", got)
		}
	}
}

// The socket of another user is named, with the way to use it.
func TestFindDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run it as nobody")
	}
	s := newSession(t)
	d, path := s.daemon(t)
	for _, args := range [][]string{{"status"}, {"status", "--admin", "unix://" + path}} {
		cmd := exec.Command(program, args...)
		cmd.Env = environment(s.env(d)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		output, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Skipf("cannot run it as nobody: %v", err)
		}
		if cmd.ProcessState.ExitCode() != exitUnreachable || !oneLine(string(output), path, "as root or as the user of the daemon") {
			t.Errorf("%q: %v, %s", args, err, output)
		}
	}
}

func TestChoose(t *testing.T) {
	denied := fs.ErrPermission
	a, b := adminsock.Socket{Path: "/run/a", Port: 6001}, adminsock.Socket{Path: "/run/b", Port: 7001}
	none := adminsock.Socket{Path: "/run/none"}
	theirs := adminsock.Socket{Path: "/run/theirs", Port: 6001, Denied: denied}
	others := adminsock.Socket{Path: "/run/others", Port: 9001, Denied: denied}
	for _, c := range []struct {
		found  []adminsock.Socket
		server string
		want   string // a path, or a part of the error
		status int
	}{
		{nil, "localhost:6001", "no daemon has an admin socket", exitUnreachable},
		{[]adminsock.Socket{b}, "localhost:6001", "/run/b", 0},
		{[]adminsock.Socket{theirs}, "localhost:7001", "you may not use the admin socket /run/theirs", exitUnreachable},
		{[]adminsock.Socket{a, b}, "localhost:6001", "/run/a", 0},
		{[]adminsock.Socket{a, b}, "tls://localhost:7001", "/run/b", 0},
		{[]adminsock.Socket{a, b}, "localhost:8001", "--admin unix:///run/a or --admin unix:///run/b", exitUsage},
		{[]adminsock.Socket{a, b}, "unix:///run/lock.sock", "there are several daemons", exitUsage},
		{[]adminsock.Socket{a, none}, "unix:///run/lock.sock", "/run/none", 0},
		{[]adminsock.Socket{theirs, b}, "localhost:6001", "you may not use the admin socket /run/theirs", exitUnreachable},
		{[]adminsock.Socket{theirs, a}, "localhost:6001", "/run/a", 0},
		{[]adminsock.Socket{theirs, b}, "localhost:8001", "/run/b", 0},
		{[]adminsock.Socket{theirs, others}, "localhost:8001", "you may not use the admin socket /run/theirs or /run/others", exitUnreachable},
		{[]adminsock.Socket{theirs, a, b}, "localhost:8001", "several daemons: choose one by its port, with --server localhost:PORT, or by its socket, with --admin unix:///run/a or --admin unix:///run/b", exitUsage},
		{[]adminsock.Socket{a, a}, "localhost:6001", "there are several daemons", exitUsage},
		{[]adminsock.Socket{a, b}, "localhost:6001,127.0.0.1:6001,localhost:8001", "/run/a", 0},
		{[]adminsock.Socket{a, b}, "localhost:8001,localhost:7001", "/run/b", 0},
		{[]adminsock.Socket{a, b}, "localhost:6001,localhost:7001", "--admin unix:///run/a or --admin unix:///run/b", exitUsage},
	} {
		servers, err := client.ParseAddresses(c.server)
		if err != nil {
			t.Fatal(err)
		}
		path, err := choose(c.found, servers)
		var e *exit
		if c.status == 0 && (path != c.want || err != nil) ||
			c.status != 0 && (!errors.As(err, &e) || e.status != c.status || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v for %s: %q, %v, want %d %q", c.found, c.server, path, err, c.status, c.want)
		}
	}
}

func TestIsHere(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]bool{
		"localhost:6001": true, ":6001": true, "127.0.0.1:6001": true, "127.8.8.8:1": true, "[::1]:6001": true, "0.0.0.0:6001": true,
		"unix:///run/lock.sock": true, "tls://localhost:6002": true,
		"192.0.2.1:6001": false, "tls://[2001:db8::1]:6002": false, noHost + ":6001": false,
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
			here[net.JoinHostPort(network.IP.String(), "6001")] = true
		}
	}
	for text, want := range here {
		a, err := client.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := isHere(t.Context(), a); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

// The admin interface by TLS: both sides check the other's certificate.
func TestAdminTLS(t *testing.T) {
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	fake := serveAdmin(t)
	serve := func(cfg *tls.Config) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, fake.url+r.URL.String(), http.StatusTemporaryRedirect)
		}))
		s.TLS = cfg
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	plain := serve(&tls.Config{Certificates: []tls.Certificate{ca.Server("127.0.0.1")}})
	elsewhere := serve(&tls.Config{Certificates: []tls.Certificate{ca.Server("elsewhere")}})
	mutual := serve(&tls.Config{
		Certificates: []tls.Certificate{ca.Server("127.0.0.1")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	certFile, keyFile := ca.Files(ca.Client("ann"))
	wrongFile, wrongKey := other.Files(other.Client("eve"))
	for _, c := range []struct {
		admin string
		args  []string
		says  string
	}{
		{plain, []string{"--tls-ca", ca.File()}, ""},
		{plain, nil, "give the authority's certificate with --tls-ca FILE"},
		{plain, []string{"--tls-ca", other.File()}, "is --tls-ca right?"},
		{elsewhere, []string{"--tls-ca", ca.File()}, "is for another name: give a name that it is for with --admin"},
		{mutual, []string{"--tls-ca", ca.File(), "--tls-cert", certFile, "--tls-key", keyFile}, ""},
		{mutual, []string{"--tls-ca", ca.File()}, "if it requires a client certificate, give one with --tls-cert"},
		{mutual, []string{"--tls-ca", ca.File(), "--tls-cert", wrongFile, "--tls-key", wrongKey}, "is the certificate in " + wrongFile + " valid"},
		{strings.Replace(fake.url, "http", "https", 1), nil, "does not speak TLS: is --admin right?"},
		{"https://" + deaf(t), nil, "nothing listens at https://"},
	} {
		got := runs(t, append([]string{"deadlocks", "--admin", c.admin}, c.args...)...)
		if c.says == "" && got.status != exitDeadlocks || c.says != "" && (got.status != exitUnreachable || !oneLine(got.stderr, c.says, c.admin)) {
			t.Errorf("%s %q: %+v, want %q", c.admin, c.args, got, c.says)
		}
	}
}

// Errors of a socket that was named.
func TestAdminSocketErrors(t *testing.T) {
	dir := newSession(t).dir
	left := filepath.Join(dir, "left.sock")
	l, err := net.Listen("unix", left)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, path := range []string{left, filepath.Join(dir, "missing.sock")} {
		got := runs(t, "status", "--admin", "unix://"+path)
		if got.status != exitUnreachable || !oneLine(got.stderr, "nothing listens at unix://"+path+": start the daemon with that address as --admin") {
			t.Errorf("%+v", got)
		}
	}
}
