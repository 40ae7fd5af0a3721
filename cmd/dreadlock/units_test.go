package main

import (
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
