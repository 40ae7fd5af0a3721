package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// injection is an strace that makes the system calls of a daemon fail.
type injection struct {
	tb    testing.TB
	calls string // the file that lists them
	end   func() // ends it, and waits for that
}

// inject makes system calls fail, as a fault says: "write:error=ENOMEM:when=1", see strace(1). Each thread counts its own calls.
// Options of strace say more precisely which.
func (d *daemon) inject(tb testing.TB, fault string, options ...string) *injection {
	tb.Helper()
	in := &injection{tb: tb, calls: filepath.Join(tb.TempDir(), "calls")}
	call, _, _ := strings.Cut(fault, ":")
	args := append([]string{"-f", "-o", in.calls, "-e", "trace=" + call, "-e", "inject=" + fault}, options...)
	cmd := exec.Command("strace", append(args, "-p", strconv.Itoa(d.cmd.Process.Pid))...)
	text, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		unavailable(tb, err)
	}
	attached := make(chan string, 1)
	go func() {
		lines := bufio.NewReader(text)
		first := ""
		for err := error(nil); err == nil && !strings.Contains(first, " attached"); { // a warning may come before
			first, err = lines.ReadString('\n')
		}
		attached <- first
		_, _ = io.Copy(io.Discard, lines)
	}()
	in.end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it lets go of the daemon
		_ = cmd.Wait()
	})
	tb.Cleanup(in.end)
	if line := <-attached; !strings.Contains(line, " attached") {
		unavailable(tb, fmt.Errorf("strace: %s", line))
	}
	return in
}

// unavailable skips a test that needs strace, except where all tests must run.
func unavailable(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatalf("system calls cannot be made to fail: %v", err)
	}
	tb.Skipf("system calls cannot be made to fail: install strace, and allow it to attach to processes: %v", err)
}

// count returns how many calls have failed.
func (in *injection) count() int {
	in.tb.Helper()
	calls, err := os.ReadFile(in.calls)
	if err != nil {
		in.tb.Fatal(err)
	}
	return strings.Count(string(calls), "(INJECTED)")
}
