package unixsock

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// socketPath returns a path in an empty directory. The directories of testing have names that are too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func mustListen(t *testing.T, path string, mode fs.FileMode, group string) *Listener {
	t.Helper()
	l, err := Listen(path, mode, group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// reaches fails the test unless a client of the path reaches the listener.
func reaches(t *testing.T, path string, l net.Listener) {
	t.Helper()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if _, err := io.WriteString(served, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := client.SetDeadline(time.Now().Add(prototest.Patience)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, []byte("hello")) {
		t.Fatalf("%q, %v", got, err)
	}
}

// isEmpty fails the test unless nothing is in the directory of the path but the given names.
func isEmpty(t *testing.T, path string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if strings.Join(names, " ") != strings.Join(but, " ") {
		t.Errorf("the directory has %q, want %q", names, but)
	}
}

// stale makes a socket that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestModeAndGroup(t *testing.T) {
	gid := strconv.Itoa(os.Getgid())
	group, err := user.LookupGroupId(gid)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		gid = "12345" // root may give files to any group
	}
	for _, c := range []struct {
		mode  fs.FileMode
		group string
		gid   string
	}{
		{0o600, "", strconv.Itoa(os.Getgid())},
		{0o666, group.Name, group.Gid}, // more than the usual umask allows
		{0o660, gid, gid},
		{0o000, gid, gid},
	} {
		path := socketPath(t)
		l := mustListen(t, path, c.mode, c.group)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != fs.ModeSocket|c.mode {
			t.Errorf("mode %v, want %v", got, c.mode)
		}
		if got := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid)); got != c.gid {
			t.Errorf("group %s, want %s", got, c.gid)
		}
		l.Close()
		isEmpty(t, path)
	}
}

// The socket serves, and nothing is left when it is closed.
func TestServe(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path, 0o600, "")
	if got := l.Addr().String(); got != path {
		t.Errorf("address %s, want %s", got, path)
	}
	reaches(t, path, l)
	isEmpty(t, path, "s", "s.lock")
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	isEmpty(t, path)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a closed one: %v", err)
	}
}

// What a killed process has left is replaced: its socket, and its lock.
func TestStale(t *testing.T) {
	path := socketPath(t)
	stale(t, path)
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reaches(t, path, mustListen(t, path, 0o600, ""))
}

// A socket that somebody listens on is refused, and goes on serving.
func TestLive(t *testing.T) {
	path := socketPath(t)
	ours := mustListen(t, path, 0o600, "")
	refused := func(path string) {
		t.Helper()
		l, err := Listen(path, 0o600, "")
		var e *Error
		if !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &e) || e.Path != path || l != nil {
			t.Fatalf("%v, want address in use", err)
		}
		for _, part := range []string{path + ": ", "stop the process", "choose another path"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: want %q", err, part)
			}
		}
	}
	refused(path)
	reaches(t, path, ours)
	isEmpty(t, path, "s", "s.lock")

	// One that takes no lock.
	path = socketPath(t)
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	refused(path)
	isEmpty(t, path, "s")
	conn, err := other.Accept() // the question whether it lives
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	reaches(t, path, other)

	// One of another type.
	path = socketPath(t)
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	refused(path)
	isEmpty(t, path, "s")
}

// A server that is too busy to accept lives too.
func TestBusy(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for full := false; !full; {
		conn, err := net.Dial("unix", path)
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
		if full = err != nil; !full {
			defer conn.Close()
		}
	}
	if _, err := Listen(path, 0o600, ""); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, want address in use", err)
	}
	isEmpty(t, path, "s")
}

// What is no socket is never removed.
func TestNoSocket(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("elsewhere", path) },
		"link to a socket": func(path string) error {
			stale(t, path+".target")
			return os.Symlink(path+".target", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Listen(path, 0o600, ""); err == nil || errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path+": there is something that is no socket: remove it") {
				t.Errorf("%v", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("it is gone: %v", err)
			}
			if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the lock stays: %v", err)
			}
		})
	}
}

func TestCannotListen(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	long := dir + "/" + strings.Repeat("x", MaxPath-len(dir)-1)
	mustListen(t, long, 0o600, "").Close()
	for _, c := range []struct{ path, group, says string }{
		{long + "x", "", "has 108 bytes, at most 107 are possible: choose a shorter one"},
		{"", "", "want an absolute path"},
		{"relative/path", "", "want an absolute path"},
		{"@abstract", "", "want an absolute path"},
		{dir + "/missing/s", "", "there is no directory " + dir + "/missing: create it"},
		{dir + "/s", "nobodysgroup", "group nobodysgroup: "},
		{"/proc/s", "", "/proc"},
	} {
		l, err := Listen(c.path, 0o600, c.group)
		var e *Error
		if l != nil || !errors.As(err, &e) || e.Path != c.path || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %q", c.path, err, c.says)
		}
	}
	isEmpty(t, dir+"/s")
}

// A directory in which this user may not write, and a group that is not this user's: nothing is left.
func TestNoPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
	}
	l, err := Listen("/s", 0o600, "")
	if l != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "this user may not make files in /,") {
		t.Errorf("%v", err)
	}
	path := socketPath(t)
	l, err = Listen(path, 0o666, "12345")
	if l != nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "group: ") {
		t.Errorf("%v", err)
	}
	isEmpty(t, path)
}

// A socket that has come in the place of ours stays when ours is closed.
func TestReplaced(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path, 0o600, "")
	if err := errors.Join(os.Remove(path), os.Remove(path+".lock")); err != nil {
		t.Fatal(err)
	}
	other := mustListen(t, path, 0o600, "")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	reaches(t, path, other)
	isEmpty(t, path, "s", "s.lock")
}

// Many want the path at a time, and those that got it give it up again and again. Whoever gets it is the one that clients
// reach, for as long as he has it.
func TestRace(t *testing.T) {
	path := socketPath(t)
	stale(t, path)
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for won := 0; won < rounds && !t.Failed(); {
				l, err := Listen(path, 0o600, "")
				if errors.Is(err, syscall.EADDRINUSE) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				won++
				if err := ours(path, l); err != nil {
					t.Error(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	isEmpty(t, path)
}

// ours connects to the path and accepts until that connection has come.
func ours(path string, l *Listener) error {
	client, err := net.DialUnix("unix", &net.UnixAddr{Name: "", Net: "unix"}, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := io.WriteString(client, "x"); err != nil {
		return err
	}
	if err := l.SetDeadline(time.Now().Add(prototest.Patience)); err != nil {
		return err
	}
	for { // the others may ask whether it lives
		served, err := l.Accept()
		if err != nil {
			return err
		}
		n, _ := served.Read(make([]byte, 1))
		served.Close()
		if n == 1 {
			return nil
		}
	}
}
