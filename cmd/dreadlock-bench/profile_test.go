package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The profile of a real daemon is mostly of system calls, and its picture has the way to them.
func TestProfile(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "flame.svg")
	o := measure(t, "profile", "--svg", picture)
	contains(t, o.stdout, "uncontended/50 on dreadlock:1: ", " us a command, ", " commands/s\n", "%", "  kernel\n", "of which write\n", "  gnet\n", "  parser\n")
	checkPicture(t, picture, "(*Poller).Polling", "sessions ", "write")
}

// With perf, if it is there and may be used, the picture has functions of the kernel.
func TestProfileWithPerf(t *testing.T) {
	if out, err := exec.Command("perf", "record", "-q", "-e", "cpu-clock", "-g", "-o", filepath.Join(t.TempDir(), "data"), "true").CombinedOutput(); err != nil {
		t.Skipf("perf cannot be used: %v: %s", err, out)
	}
	picture := filepath.Join(t.TempDir(), "flame.svg")
	o := measure(t, "profile", "churn", "--perf", "--on", "dreadlock:2", "--svg", picture)
	contains(t, o.stdout, "churn/50 on dreadlock:2: ", " us a connection, ", "of which write\n", "of which accept4\n")
	checkPicture(t, picture, "(*Poller).Polling", "sessions ", "write")
}

func checkPicture(t *testing.T, file string, parts ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "<svg ") || !strings.HasSuffix(string(text), "</svg>\n") {
		t.Errorf("no picture:\n%s", text)
	}
	contains(t, string(text), parts...)
}
