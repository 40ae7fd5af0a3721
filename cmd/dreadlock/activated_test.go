package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// activate has systemd-socket-activate listen at the addresses, on sockets of those names, and start the daemon when the
// first client connects.
func activate(t *testing.T, addresses, names string, args ...string) *daemon {
	t.Helper()
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("socket activation is NOT tested: no systemd-socket-activate in PATH (apt-get install systemd)")
	}
	via := []string{tool, "--fdname=" + names}
	for _, a := range strings.Fields(addresses) {
		via = append(via, "--listen="+a)
	}
	for _, variable := range []string{"GORACE", "RUNTIME_DIRECTORY"} { // it passes on no others
		via = append(via, "--setenv="+variable)
	}
	d := spawn(t, launch{via: via}, append([]string{"--loops", "2"}, args...)...)
	for i := range strings.Fields(addresses) {
		d.log.awaitText(t, fmt.Sprintf(" as %d.", 3+i)) // it listens
	}
	return d
}

// A client that connects before the daemon runs is served by it, on each socket that was passed, and all lock the same keys.
func TestSocketActivation(t *testing.T) {
	tcp, path := freeAddress(t), filepath.Join(t.TempDir(), "s")
	for _, args := range [][]string{nil, {"--listen", "fd://"}, {"--listen", "fd://locks", "--listen", "fd://local"}} {
		d := activate(t, tcp+" "+path, "locks:local", args...)
		first := prototest.Dial(t, tcp)
		first.Do("lock a 0", "l locked")
		if line, _ := d.log.await("dreadlock is ready"); line == nil {
			t.Fatalf("%q: it is not ready; log:\n%s", args, d.log)
		}
		local, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, len("t timeout\r\n"))
		fmt.Fprint(local, "lock a 0\r\n")
		if _, err := local.Read(answer); err != nil || string(answer) != "t timeout\r\n" {
			t.Errorf("%q: on the Unix socket: %q, %v", args, answer, err)
		}
		_ = local.Close()
		d.wantNothingToInherit()
		d.stop()
		if strings.Contains(d.log.String(), "not served") {
			t.Errorf("%q: it warns of a socket that it serves:\n%s", args, d.log)
		}
		if err := os.Remove(path); err != nil { // the daemon leaves it to who made it
			t.Error(err)
		}
	}
}

// wantNothingToInherit fails the test if a descriptor of the daemon, beside the first three, would be that of its children too.
func (d *daemon) wantNothingToInherit() {
	d.tb.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo", d.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		d.tb.Fatal(err)
	}
	for _, e := range entries {
		if n, _ := strconv.Atoi(e.Name()); n < 3 {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		_, rest, _ := strings.Cut(string(text), "flags:\t")
		flags, err := strconv.ParseUint(strings.TrimSpace(rest[:strings.Index(rest+"\n", "\n")]), 8, 64)
		if err != nil || flags&unix.O_CLOEXEC == 0 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", d.cmd.Process.Pid, e.Name()))
			d.tb.Errorf("a child would inherit %s: %v", target, err)
		}
	}
}

// A socket that was passed and that no --listen names is warned of.
func TestSocketNotServed(t *testing.T) {
	a, b := freeAddress(t), freeAddress(t)
	d := activate(t, a+" "+b, "locks:spare", "--listen", "fd://locks")
	prototest.Dial(t, a).Do("lock a 0", "l locked")
	line, _ := d.log.await("a socket that systemd has passed is not served: name it by --listen fd://NAME, or remove it from the .socket unit")
	if line.text("socket") != "spare" {
		t.Errorf("the log says %v, want a warning about the socket spare:\n%s", line, d.log)
	}
	d.stop()
}

// Without the socket that it is to serve the daemon does not start. It says why in one line, with advice.
func TestNoSocketPassed(t *testing.T) {
	got := run(t, launch{}, "--listen", "fd://")
	if got.status != 1 || !oneLine(got.stderr, "--listen fd://") || !oneLine(got.stderr, "socket unit") {
		t.Errorf("none: %+v, want 1 and one line with advice", got)
	}
	address := freeAddress(t)
	d := activate(t, address, "locks", "--listen", "fd://other")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := d.wait(); state.ExitCode() != 1 {
		t.Errorf("another one: %v, want 1", state)
	}
	if text := d.log.String(); !strings.Contains(text, "dreadlock: --listen fd://other: ") || !strings.Contains(text, "only locks: FileDescriptorName=") {
		t.Errorf("another one:\n%s\nwant a line with advice", text)
	}
}
