package main

import (
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// warned returns the variables that the daemon has warned of, with the name that may be meant. It stops the daemon.
func (d *daemon) warned() map[string]string {
	d.tb.Helper()
	d.stop()
	found := make(map[string]string)
	d.log.awaitLine(func(l logLine) bool {
		if l.text("message") == "a variable that the daemon does not know has no effect" && l.text("level") == "warn" {
			found[l.text("where")+" "+l.text("variable")], _ = l["nearest"].(string)
		}
		return false
	})
	return found
}

// A variable in the environment that looks like one of the daemon and is none is warned of. Those of others are not.
func TestUnknownInEnvironment(t *testing.T) {
	d := startWith(t, launch{env: []string{
		"DREADLOCK_MAXKEYS=7", "DREADLOCK_LOG_LEVEI=debug", "DREADLOCK_PORT=7001", "DREADLOCK_EMPTY= ", "DREADLOCK_MAX_KEYS=9", "GOGC=200", "TZ=UTC",
		"DREADLOCK_SERVICE_HOST=10.0.0.1", "DREADLOCK_SERVICE_PORT=6001", "DREADLOCK_SERVICE_PORT_LOCK=6001", "DREADLOCK_PORT_6001_TCP=tcp://10.0.0.1:6001",
		"DREADLOCK_PORT_6001_TCP_ADDR=10.0.0.1", "DREADLOCK_ADMIN_PORT=tcp://10.0.0.1:6002", "DREADLOCK_ADMIN_SERVICE_HOST=10.0.0.1",
	}}, "--listen", "127.0.0.1:0")
	want := map[string]string{
		"environment DREADLOCK_MAXKEYS":   "DREADLOCK_MAX_KEYS",
		"environment DREADLOCK_LOG_LEVEI": "DREADLOCK_LOG_LEVEL",
		"environment DREADLOCK_PORT":      "",
	}
	if got := d.warned(); !maps.Equal(got, want) {
		t.Errorf("warned of %q, want %q", got, want)
	}
}

// The Go runtime and the C library read the environment alone: their variables in the file have no effect, nor have those of dreadlockctl.
func TestUnknownInFile(t *testing.T) {
	path := writeOptions(t, "GOMEMLIMIT=1GiB", "TZ=UTC", "MAX_KEYS=7", "DREADLOCK_SERVER=a:1", "DREADLOCK_LOOPS=1")
	want := map[string]string{path + " GOMEMLIMIT": "", path + " TZ": "", path + " MAX_KEYS": "DREADLOCK_MAX_KEYS", path + " DREADLOCK_SERVER": ""}
	if got := startWith(t, launch{}, "--listen", "127.0.0.1:0", "--options-file", path).warned(); !maps.Equal(got, want) {
		t.Errorf("warned of %q, want %q", got, want)
	}
}

// A takeover with a typo in the file is refused, and the daemon serves on.
func TestTakeoverRefusesUnknown(t *testing.T) {
	path := writeOptions(t, "DREADLOCK_MAX_KEYS=7")
	d := startWith(t, launch{}, "--listen", "127.0.0.1:0", "--options-file", path)
	c := d.dial()
	c.Do("lock a 0", "l locked")
	rewriteOptions(t, path, "DREADLOCK_MAXKEYS=8")
	d.signal(syscall.SIGUSR2)
	d.serveOn("unknown option DREADLOCK_MAXKEYS, did you mean DREADLOCK_MAX_KEYS?")
	c.Do("lock a 0", "e already locked")
}

// What dreadlockctl reads, and what it sets for the command that it runs under a key, is no unknown variable of the daemon.
func TestOthersVariables(t *testing.T) {
	ctl := filepath.Join(t.TempDir(), "dreadlockctl")
	if output, err := exec.Command("go", "build", "-o", ctl, "dreadlock/cmd/dreadlockctl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	child := run(t, launch{program: ctl, env: []string{"DREADLOCK_NAME=ann"}}, "lock", "k", "--server", start(t).address, "--", "env").stdout
	environ := strings.Split(child, "\n")
	for _, name := range regexp.MustCompile(`DREADLOCK_[A-Z_]+[A-Z]`).FindAllString(run(t, launch{program: ctl}, "--man").stdout, -1) {
		environ = append(environ, name+"=1")
	}
	if !strings.Contains(child, "\nDREADLOCK_HELD=") || !slices.Contains(environ, "DREADLOCK_SERVER=1") {
		t.Fatalf("%q", environ)
	}
	var opts options
	parser, err := newParser(&opts, new(fileOptions), io.Discard, io.Discard, "2")
	if err != nil {
		t.Fatal(err)
	}
	if unknown := unknownInEnvironment(environ, variablesOf(parser.Model)); len(unknown) > 0 {
		t.Errorf("the daemon would warn of %q", unknown)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"MAXKEYS", "MAX_KEYS", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}, {"same", "same", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
