package adminsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock") // those of testing have long names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestDirectories(t *testing.T) {
	root := directory{"/run/dreadlock", 0o755, false}
	session := directory{"/run/user/7/dreadlock", 0o700, false}
	own := fmt.Sprintf("/dreadlock-%d", os.Geteuid())
	shared := directory{"/tmp" + own, 0o700, true}
	for _, c := range []struct {
		runtime, session, temporary string
		want                        []directory
	}{
		{"", "", "", []directory{root, shared}},
		{"", "/run/user/7", "", []directory{root, session, shared}},
		{"/run/dreadlock", "", "/var/tmp/", []directory{{"/run/dreadlock", 0, false}, {"/var/tmp" + own, 0o700, true}}},
		{"/run/a:/run/b/", "/run/user/7/", "", []directory{{"/run/a", 0, false}, {"/run/b", 0, false}, root, session, shared}},
		{"/run/user/7/dreadlock", "/run/user/7", "", []directory{{"/run/user/7/dreadlock", 0, false}, root, shared}},
		{"relative", "relative", "relative", []directory{root}},
	} {
		got := directories(func(name string) string {
			return map[string]string{"RUNTIME_DIRECTORY": c.runtime, "XDG_RUNTIME_DIR": c.session, "TMPDIR": c.temporary}[name]
		})
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q, %q and %q: %v, want %v", c.runtime, c.session, c.temporary, got, c.want)
		}
	}
	t.Setenv("RUNTIME_DIRECTORY", "/run/a")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", "")
	if got := Directories(); strings.Join(got, " ") != "/run/a /run/dreadlock "+shared.path {
		t.Errorf("%q", got)
	}
}

func TestNames(t *testing.T) {
	for port, want := range map[int]string{0: "admin.sock", 1: "admin-1.sock", 6001: "admin-6001.sock", 65535: "admin-65535.sock"} {
		if got := name(port); got != want {
			t.Errorf("%d: %s, want %s", port, got, want)
		}
		if got, ok := portOf(want); got != port || !ok {
			t.Errorf("%s: %d, %v", want, got, ok)
		}
	}
	for _, other := range []string{"", "admin", "admin-.sock", "admin-0.sock", "admin-x.sock", "admin-6001", "admin-65536.sock", "lock.sock", "admin-6001.sock.lock"} {
		if port, ok := portOf(other); ok {
			t.Errorf("%s is the socket of port %d", other, port)
		}
	}
}

// The first directory that can be written is taken. It is made if it is missing, but not those above it.
func TestListen(t *testing.T) {
	dir := tempDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := directory{filepath.Join(dir, "good"), 0o700, false}
	l, err := listen([]directory{{filepath.Join(dir, "missing"), 0, false}, {filepath.Join(dir, "a/b"), 0o755, false}, {file, 0o755, false}, good, {dir, 0, false}}, 6001)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(good.path, "admin-6001.sock")
	if got := l.Addr().String(); got != path {
		t.Errorf("it is at %s, want %s", got, path)
	}
	for name, want := range map[string]fs.FileMode{good.path: fs.ModeDir | 0o700, path: fs.ModeSocket | 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	// Another port in the same directory, and the same one in none.
	other, err := listen([]directory{good}, 6002)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := listen([]directory{good, {dir, 0, false}}, 6001); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func TestCannotListen(t *testing.T) {
	dir := tempDir(t)
	_, err := listen([]directory{{dir + "/missing", 0, false}, {dir + "/a/b", 0o755, false}}, 0)
	if err == nil || errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{dir + "/missing/admin.sock: there is no directory", "; mkdir " + dir + "/a/b: no such file or directory"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: no %q", err, part)
		}
	}
}

func TestFind(t *testing.T) {
	first, second := tempDir(t), tempDir(t)
	where := []directory{{first, 0, false}, {first + "/missing", 0, false}, {second, 0, false}}
	if found := find(where); found != nil {
		t.Errorf("%v", found)
	}
	for _, name := range []string{"admin-7001.sock", "admin-600.sock", "admin.sock", "admin-x.sock", "lock.sock"} {
		l, err := net.Listen("unix", filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	dead, err := net.Listen("unix", filepath.Join(first, "admin-9001.sock"))
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	if err := os.WriteFile(filepath.Join(first, "admin-9002.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := listen(where[2:], 5)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := []Socket{
		{Path: first + "/admin.sock"}, {Path: first + "/admin-600.sock", Port: 600}, {Path: first + "/admin-7001.sock", Port: 7001},
		{Path: second + "/admin-5.sock", Port: 5},
	}
	if got := find(where); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	t.Setenv("RUNTIME_DIRECTORY", first+":"+second)
	if got := Find(); fmt.Sprint(got[:4]) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// A directory where everybody may make files counts only if it belongs to this user alone: for the daemon, which makes it, and for those
// who look for a daemon.
func TestShared(t *testing.T) {
	dir := tempDir(t)
	shared := directory{filepath.Join(dir, "dreadlock-7"), 0o700, true}
	l, err := listen([]directory{shared}, 6001)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if found := find([]directory{shared}); len(found) != 1 || found[0].Port != 6001 {
		t.Fatalf("%v", found)
	}
	refused := func(d directory) {
		t.Helper()
		if found := find([]directory{d}); found != nil {
			t.Errorf("found %v", found)
		}
		if _, err := listen([]directory{d}, 6002); err == nil || !strings.Contains(err.Error(), d.path+" is not a directory of this user alone") {
			t.Errorf("%v", err)
		}
	}
	link := directory{filepath.Join(dir, "link"), 0o700, true}
	if err := os.Symlink(shared.path, link.path); err != nil {
		t.Fatal(err)
	}
	refused(link)
	if err := os.Chmod(shared.path, 0o750); err != nil {
		t.Fatal(err)
	}
	refused(shared)
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.Chmod(shared.path, 0o700), os.Chown(shared.path, 7, 7)); err != nil {
		t.Fatal(err)
	}
	refused(shared)
}
