package faults

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
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
	file := l.t.path("calls")
	return l.trace(file, straceArgs(file, call, errno, when))
}

// injectSignal has the daemon, and each process that it starts from now on, get a signal when a thread of it makes one of the calls for the
// nth time.
func (l *lab) injectSignal(calls, signal string, when int) *injection {
	file := l.t.path("calls")
	inject := fmt.Sprintf("inject=%s:signal=%s:when=%d", calls, signal, when)
	return l.trace(file, []string{"strace", "-f", "-o", file, "-e", "trace=" + calls, "-e", inject})
}

// trace attaches an strace to the daemon.
func (l *lab) trace(file string, args []string) *injection {
	t := l.t
	in := &injection{calls: file}
	args = append(args, "-p", strconv.Itoa(l.daemon.pid()))
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

// signals returns how many signals of a kind were sent. It is called after end.
func (in *injection) signals(signal string) int {
	calls, err := os.ReadFile(in.calls)
	if err != nil {
		return 0
	}
	return strings.Count(string(calls), "--- "+signal+" ") + strings.Count(string(calls), "+++ killed by "+signal+" ")
}

// killed returns the threads that were killed; of a process the first has its number. It is called after end.
func (in *injection) killed() map[int]bool {
	all := map[int]bool{}
	calls, err := os.ReadFile(in.calls)
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(calls)) {
		if thread, rest, ok := strings.Cut(line, " "); ok && strings.Contains(rest, "+++ killed by SIGKILL") {
			n, _ := strconv.Atoi(thread) // strace writes numbers
			all[n] = true
		}
	}
	return all
}

// knownCalls returns those of some calls that this machine has.
func knownCalls(calls string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(calls, ","), func(call string) bool { return !knowsCall(call) }), ",")
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
