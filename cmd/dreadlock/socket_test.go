package main

import (
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// sessionDir returns a directory as $XDG_RUNTIME_DIR, with a path that is short enough for a socket.
func sessionDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "session")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// askSocket asks the admin interface at unix://PATH for the address of its daemon.
func askSocket(t *testing.T, where string) (body string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", strings.TrimPrefix(where, "unix://"))
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: prototest.Patience}
	resp, err := client.Get("http://localhost/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", resp.Status, text, err)
	}
	return string(text)
}

// port returns the port of the daemon.
func (d *daemon) port() string {
	d.tb.Helper()
	_, port, err := net.SplitHostPort(d.address)
	if err != nil {
		d.tb.Fatal(err)
	}
	return port
}

// inSession starts a daemon as an ordinary user whose session has a directory. /run/dreadlock is not for that user.
func inSession(t *testing.T, dir string) *daemon {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return startWith(t, launch{nobody: true, env: []string{"RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR=" + dir}},
		"--listen", "127.0.0.1:0", "--loops", "1")
}

// Without any option there is a socket, for this user alone, in the directory of the session.
func TestSocketByDefault(t *testing.T) {
	dir := sessionDir(t)
	d := inSession(t, dir)
	path := filepath.Join(dir, "dreadlock", "admin-"+d.port()+".sock")
	if urls := d.adminAddresses(); !reflect.DeepEqual(urls, []string{"unix://" + path}) {
		t.Fatalf("it listens at %q, want %s", urls, path)
	}
	for name, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if text := askSocket(t, "unix://"+path); !strings.Contains(text, d.address) {
		t.Errorf("%s: no %s", text, d.address)
	}
	d.stop()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("after the stop there is %v, %v", left, err)
	}
}

// A user without a session, as under su or in a container, has the socket in a directory of his own beside the temporary files.
func TestSocketWithoutSession(t *testing.T) {
	dir := sessionDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d := startWith(t, launch{nobody: true, env: []string{"RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR=", "TMPDIR=" + dir}}, "--listen", "127.0.0.1:0", "--loops", "1")
	urls := d.adminAddresses()
	if len(urls) != 1 || !strings.HasPrefix(urls[0], "unix://"+dir+"/dreadlock-") {
		t.Fatalf("it listens at %q", urls)
	}
	if text := askSocket(t, urls[0]); !strings.Contains(text, d.address) {
		t.Errorf("%s: no %s", text, d.address)
	}
	d.stop()
}

// What systemd has made comes first.
func TestSocketOfService(t *testing.T) {
	d := start(t)
	if urls := d.adminAddresses(); !reflect.DeepEqual(urls, []string{"unix://" + runtimeDir + "/admin-" + d.port() + ".sock"}) {
		t.Errorf("it listens at %q", urls)
	}
}

// It is named after the first port, wherever that stands; a daemon that has none takes a name without.
func TestSocketName(t *testing.T) {
	dir := sessionDir(t)
	env := launch{env: []string{"RUNTIME_DIRECTORY=" + dir}}
	d := startWith(t, env, "--listen", "unix://"+dir+"/a.sock")
	if urls := d.adminAddresses(); !reflect.DeepEqual(urls, []string{"unix://" + dir + "/admin.sock"}) {
		t.Errorf("without a port it listens at %q", urls)
	}
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	d = startWith(t, env, "--listen", "unix://"+dir+"/b.sock", "--listen", address, "--listen", "127.0.0.1:0")
	if urls := d.adminAddresses(); !reflect.DeepEqual(urls, []string{"unix://" + dir + "/admin-" + port + ".sock"}) {
		t.Errorf("with port %s it listens at %q", port, urls)
	}
}

// Two daemons on two ports have a socket each.
func TestTwoSockets(t *testing.T) {
	a, b := start(t), start(t)
	for _, d := range []*daemon{a, b} {
		if text := askSocket(t, d.adminAddresses()[0]); !strings.Contains(text, d.address) {
			t.Errorf("%s: no %s", text, d.address)
		}
	}
}

// The socket of a killed daemon is replaced by the next one on the port. That of a living one is not, and the next one
// serves without.
func TestSocketLeft(t *testing.T) {
	killed := start(t)
	where := killed.adminAddresses()[0]
	killed.signal(syscall.SIGKILL)
	killed.wait()
	if _, err := os.Lstat(strings.TrimPrefix(where, "unix://")); err != nil {
		t.Fatal(err)
	}
	d := startWith(t, launch{}, "--listen", killed.address)
	if urls := d.adminAddresses(); !reflect.DeepEqual(urls, []string{where}) {
		t.Fatalf("it listens at %q, want %s", urls, where)
	}
	askSocket(t, where)

	second := startWith(t, launch{}, "--listen", "127.0.0.2:"+d.port())
	line, ok := second.log.await("no admin socket: dreadlockctl needs an address, see --admin")
	if !ok || !strings.Contains(line.text("reason"), where[len("unix://"):]+": address already in use") || line.text("level") != "info" {
		t.Errorf("%v", line)
	}
	second.alive()
	if text := askSocket(t, where); !strings.Contains(text, d.address) {
		t.Errorf("%s: no %s", text, d.address)
	}
}

// Where no directory can be written, a line says so, and that is all.
func TestNoSocket(t *testing.T) {
	if os.Geteuid() != 0 && unix.Access("/run/dreadlock", unix.W_OK) == nil {
		t.Skip("there is a place for it")
	}
	d := startWith(t, launch{nobody: true, env: []string{"RUNTIME_DIRECTORY=/nonexistent", "XDG_RUNTIME_DIR=/nonexistent", "TMPDIR=/nonexistent"}}, "--listen", "127.0.0.1:0")
	line, ok := d.log.await("no admin socket: dreadlockctl needs an address, see --admin")
	for _, part := range []string{"there is no directory /nonexistent: create it", "/run/dreadlock", "mkdir /nonexistent/dreadlock: ", "mkdir /nonexistent/dreadlock-"} {
		if reason := line.text("reason"); !ok || !strings.Contains(reason, part) {
			t.Errorf("no %q in %s", part, reason)
		}
	}
	d.alive()
	d.stop()
}

// off turns the socket off, by the option and by the variable, and so does an empty option; others stay. An empty variable is
// none.
func TestNoAdmin(t *testing.T) {
	for _, c := range []struct {
		env, args []string
		tcp       int // addresses
	}{
		{nil, []string{"--admin", ""}, 0},
		{nil, []string{"--admin="}, 0},
		{nil, []string{"--admin", "off"}, 0},
		{[]string{"DREADLOCK_ADMIN_LISTEN=off"}, nil, 0},
		{[]string{"DREADLOCK_ADMIN_LISTEN= off\r"}, nil, 0},
		{[]string{"DREADLOCK_ADMIN_LISTEN=off 127.0.0.1:0"}, nil, 1},
		{[]string{"DREADLOCK_ADMIN_LISTEN=127.0.0.1:0"}, []string{"--admin="}, 0},
		{nil, []string{"--admin", "127.0.0.1:0", "--admin="}, 1},
		{[]string{"DREADLOCK_ADMIN_LISTEN=127.0.0.1:0"}, []string{"--admin=", "--admin", "127.0.0.1:0", "--admin", "127.0.0.1:0"}, 2},
	} {
		d := startWith(t, launch{env: c.env}, append([]string{"--listen", "127.0.0.1:0", "--loops", "1"}, c.args...)...)
		if c.tcp > 0 {
			urls := d.adminAddresses()
			if len(urls) != c.tcp || !strings.HasPrefix(urls[0], "http://127.0.0.1:") {
				t.Errorf("%q %q: it listens at %q", c.env, c.args, urls)
			}
		}
		d.stop()
		if log := d.log.String(); strings.Contains(log, "admin-") || c.tcp == 0 && strings.Contains(log, "admin") {
			t.Errorf("%q %q: %s", c.env, c.args, log)
		}
	}
}

// The variable has several addresses; the option takes precedence. The variable of dreadlockctl is none of them.
func TestAdminVariable(t *testing.T) {
	path := filepath.Join(sessionDir(t), "s")
	list := "DREADLOCK_ADMIN_LISTEN=127.0.0.1:0  unix://" + path + "?mode=0666"
	urls := startWith(t, launch{env: []string{list, "DREADLOCK_ADMIN=http://127.0.0.1:1"}}, "--listen", "127.0.0.1:0").adminAddresses()
	if len(urls) != 3 || !strings.HasPrefix(urls[0], "http://127.0.0.1:") || urls[1] != "unix://"+path || !strings.HasPrefix(urls[2], "unix://"+runtimeDir) {
		t.Errorf("%q", urls)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info, err)
	}
	d := startWith(t, launch{env: []string{"DREADLOCK_ADMIN=http://127.0.0.1:1"}}, "--listen", "127.0.0.1:0")
	if urls := d.adminAddresses(); len(urls) != 1 || !strings.HasPrefix(urls[0], "unix://"+runtimeDir) {
		t.Errorf("%q", urls)
	}
	if line, ok := d.log.await("DREADLOCK_ADMIN says where dreadlockctl asks; the daemon listens at --admin or DREADLOCK_ADMIN_LISTEN"); !ok || line.text("level") != "info" {
		t.Errorf("%v", line)
	}
}

// If the daemon cannot listen, it opens no socket.
func TestNoSocketWithoutDaemon(t *testing.T) {
	d := start(t)
	dir := sessionDir(t)
	got := run(t, launch{env: []string{"RUNTIME_DIRECTORY=" + dir}}, "--listen", d.address)
	if got.status != 1 || !oneLine(got.stderr, "address already in use") {
		t.Errorf("%+v", got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
