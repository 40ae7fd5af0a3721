package faults

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// injection makes system calls of a process fail, with strace(1).
type injection struct {
	calls string // the file that lists them
	end   func() // lets go of the process, and returns when that is done
}

// straceArgs returns the command line that makes a call fail with an error, at the calls that when selects. Each thread of the
// process counts its own.
func straceArgs(file, call, errno, when string) []string {
	return []string{"strace", "-f", "-o", file, "-e", "trace=" + call, "-e", "inject=" + call + ":error=" + errno + ":when=" + when}
}

// inject makes a call of the daemon fail, from now on.
func (l *lab) inject(call, errno, when string) *injection {
	t := l.t
	in := &injection{calls: t.path("calls")}
	args := append(straceArgs(in.calls, call, errno, when), "-p", strconv.Itoa(l.daemon.pid()))
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // it is told to end
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	text, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.skip("strace: %w", err)
	}
	attached := make(chan string, 1)
	go func() {
		lines := bufio.NewReader(text)
		first, _ := lines.ReadString('\n')
		attached <- first
		_, _ = io.Copy(io.Discard, lines)
	}()
	in.end = sync.OnceFunc(func() {
		const enough = 3 * time.Second // it may wait for a thread that never stops
		_ = cmd.Process.Signal(syscall.SIGINT)
		kill := time.AfterFunc(enough, func() { _ = cmd.Process.Kill() }) // which lets go as well
		defer kill.Stop()
		_ = cmd.Wait()
	})
	t.cleanup(in.end)
	if line := <-attached; !strings.Contains(line, " attached") {
		t.skip("strace: %s", strings.TrimSpace(line))
	}
	return in
}

// count returns how many calls have failed. It is called after end.
func (in *injection) count() int { return countInjected(in.calls) }

func countInjected(file string) int {
	calls, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	return strings.Count(string(calls), "(INJECTED)")
}

// canTrace skips the case where system calls cannot be made to fail.
func (t *trial) canTrace() {
	if _, err := exec.LookPath("strace"); err != nil {
		t.skip("%w: install strace", err)
	}
}

// knowsCall reports whether this machine has the call.
func knowsCall(call string) bool {
	output, err := exec.Command("strace", "-e", "trace="+call, "true").CombinedOutput() //nolint:noctx // it ends by itself
	return err == nil || !strings.Contains(fmt.Sprint(string(output)), "invalid system call")
}
