package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// filer is a socket that can be passed on.
type filer interface{ File() (*os.File, error) }

// passed returns a socket as systemd passes it, by a descriptor of its own.
func passed(t *testing.T, name string, socket filer) *passedSocket {
	t.Helper()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return passedFile(t, name, file)
}

func passedFile(t *testing.T, name string, file *os.File) *passedSocket {
	t.Helper()
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &passedSocket{file: os.NewFile(uintptr(fd), name), name: name}
	t.Cleanup(func() { _ = s.file.Close() })
	return s
}

func listenLocally(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// addressesOf returns where the listeners of a name listen, and closes them.
func addressesOf(t *testing.T, all *passedSockets, name string) (text string) {
	t.Helper()
	found, err := all.listeners(name)
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	for _, l := range found {
		text += l.Addr().String() + " "
		_ = l.Close()
	}
	return text
}

// Sockets are handed out by name, several of one name too, in their order, each of them once. What is left is warned of.
func TestPassedSockets(t *testing.T) {
	a, b := listenLocally(t, "tcp", "127.0.0.1:0"), listenLocally(t, "tcp", "127.0.0.1:0")
	path := filepath.Join(t.TempDir(), "s")
	c := listenLocally(t, "unix", path)
	all := &passedSockets{all: []*passedSocket{
		passed(t, "locks", a.(filer)), passed(t, "local", c.(filer)), passed(t, "locks", b.(filer)), passed(t, "spare", a.(filer)),
	}}
	if _, err := all.listeners("nonsense"); err == nil || !strings.Contains(err.Error(), "locks, local, locks, spare") {
		t.Errorf("an unknown name: %v, want an error with the names", err)
	}
	if got, want := addressesOf(t, all, "locks"), a.Addr().String()+" "+b.Addr().String()+" "; got != want {
		t.Errorf("locks: %s, want %s", got, want)
	}
	if got, want := addressesOf(t, all, "local"), path+" "; got != want {
		t.Errorf("local: %s, want %s", got, want)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of somebody else is removed: %v", err)
	}
	if found, err := all.listeners("locks"); err == nil {
		t.Errorf("locks once more: %v, want an error", found)
	}
	var log bytes.Buffer
	all.closeRest(zerolog.New(&log))
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), `"socket":"spare"`) {
		t.Errorf("the log says %s, want one warning about spare", &log)
	}
	if got := addressesOf(t, &passedSockets{all: []*passedSocket{passed(t, "x", a.(filer)), passed(t, "y", c.(filer))}}, ""); got != a.Addr().String()+" "+path+" " {
		t.Errorf("all: %s", got)
	}
}

// What is no listening socket of streams cannot be served.
func TestPassedNonsense(t *testing.T) {
	if found, err := new(passedSockets).listeners(""); err != nil || len(found) > 0 {
		t.Errorf("nothing was passed: %v, %v", found, err)
	}
	listener := listenLocally(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	sequence := listenLocally(t, "unixpacket", filepath.Join(t.TempDir(), "s"))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	for what, s := range map[string]*passedSocket{
		"a connection": passed(t, "odd", conn.(filer)), "datagrams": passed(t, "odd", datagrams.(filer)),
		"packets": passed(t, "odd", sequence.(filer)), "a pipe": passedFile(t, "odd", read),
	} {
		all := &passedSockets{all: []*passedSocket{passed(t, "good", listener.(filer)), s}}
		if found, err := all.listeners(""); err == nil || found != nil || !strings.Contains(err.Error(), "ListenStream=") {
			t.Errorf("%s: %v, %v, want an error with advice", what, found, err)
		}
	}
}

// The variables that tell of the sockets are for this process alone.
func TestPassedOnce(t *testing.T) {
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "0")
	t.Setenv("LISTEN_FDNAMES", "x")
	if passed := inheritSockets(nil); passed.passed() {
		t.Errorf("%s, want none", passed.names())
	}
	for _, variable := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, set := os.LookupEnv(variable); set {
			t.Errorf("%s is still set", variable)
		}
	}
}
