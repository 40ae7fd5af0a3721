package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Processes are found whatever their name looks like, and those that have ended are not.
func TestDescendants(t *testing.T) {
	argv := childCommand("wait")[1:]
	path := filepath.Join(t.TempDir(), "a) Z 1 (b")
	if err := os.Symlink(argv[0], path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, argv[1:]...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if all := descendants(); !slices.Contains(all, cmd.Process.Pid) {
		t.Errorf("%d is not in %v", cmd.Process.Pid, all)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if all := descendants(); slices.Contains(all, cmd.Process.Pid) {
		t.Errorf("%d has ended, and is in %v", cmd.Process.Pid, all)
	}
}
