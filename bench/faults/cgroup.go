package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// inCgroup makes a group of processes with a limit on memory, and returns the command that starts one in it. It skips the case
// where that cannot be made. The group is removed at the end of the case.
func (t *trial) inCgroup(bytes int) []string {
	root, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes" // version 1
	if controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		if !strings.Contains(string(controllers), "memory") {
			t.skip("cgroups here have no limit on memory")
		}
		root, limit = "/sys/fs/cgroup", "memory.max" // version 2
	}
	dir := filepath.Join(root, fmt.Sprintf("dreadlock-faults-%d-%s", os.Getpid(), filepath.Base(t.dir)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.skip("make a cgroup: %w", err)
	}
	t.cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(bytes)), 0o600); err != nil {
		t.skip("limit a cgroup: %w", err)
	}
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
}
