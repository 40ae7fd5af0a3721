package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// units copies the units to a directory, with this test's daemon in the service, and returns their paths.
func units(t *testing.T) (service, socket string) {
	t.Helper()
	const installed = "/usr/local/bin/dreadlock"
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"dreadlock.service", "dreadlock.socket"} {
		text, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), installed, binary)), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths[0], paths[1]
}

// systemd takes the units without a word. It only warns of what it does not know, so its exit status says little.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("the units are NOT tested: no systemd-analyze in PATH (apt-get install systemd)")
	}
	service, socket := units(t)
	output, err := exec.Command(analyze, "verify", service, socket).CombinedOutput()
	ours := slices.DeleteFunc(strings.Split(string(output), "\n"), func(line string) bool { return !strings.Contains(line, "dreadlock") })
	if err != nil || len(ours) > 0 {
		t.Errorf("verify: %v\n%s", err, output)
	}
	// 0 is a service that can do nothing, 100 one that can do everything.
	if output, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", service).CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, output)
	}
}

// The sandbox leaves a daemon the system calls of a takeover, beside those of every Go program.
func TestUnitsTakeover(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("the units are NOT tested: no systemd-analyze in PATH (apt-get install systemd)")
	}
	text, err := os.ReadFile("systemd/dreadlock.service")
	if err != nil {
		t.Fatal(err)
	}
	if got := settings(string(text), "SystemCallFilter"); !slices.Equal(got, []string{"@system-service"}) {
		t.Fatalf("the filter is %q: look at what this test looks at", got)
	}
	allowed := callsOf(t, analyze, "@system-service")
	for _, call := range []string{
		"memfd_create", "socketpair", "sendmsg", "recvmsg", "dup3", "pidfd_open", "pidfd_send_signal", "execve", "clone", "clone3", "vfork",
		"wait4", "waitid", "getppid", "kill", "shutdown", "epoll_ctl", "flock", "fchmodat", "lchown", "clock_gettime",
	} {
		if !allowed[call] {
			t.Errorf("the sandbox forbids %s", call)
		}
	}
	for setting, why := range map[string]string{
		"NoExecPaths": "the successor is the program at the path of the daemon", "RootDirectory": "the same", "PrivateUsers": "it hides who connects",
	} {
		if got := settings(string(text), setting); len(got) > 0 {
			t.Errorf("%s=%q: %s", setting, got, why)
		}
	}
	if got := settings(string(text), "ExecReload"); !slices.Equal(got, []string{"/bin/kill -USR2 $MAINPID"}) {
		t.Errorf("a reload is %q", got)
	}
}

// settings returns the values of a setting of a unit.
func settings(unit, name string) (values []string) {
	for line := range strings.Lines(unit) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			values = append(values, value)
		}
	}
	return values
}

// callsOf returns the system calls of a group of systemd's, with those of the groups in it.
func callsOf(t *testing.T, analyze, group string) map[string]bool {
	t.Helper()
	output, err := exec.Command(analyze, "syscall-filter", group).Output()
	if err != nil {
		t.Fatal(err)
	}
	calls := make(map[string]bool)
	for _, name := range strings.Fields(string(output)) {
		calls[name] = true
		if strings.HasPrefix(name, "@") && name != group {
			maps.Copy(calls, callsOf(t, analyze, name))
		}
	}
	return calls
}
