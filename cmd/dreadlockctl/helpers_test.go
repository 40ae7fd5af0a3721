package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// text is the output of a process, read as it comes.
type text struct {
	pipe *os.File
	mu   sync.Mutex
	more *sync.Cond
	all  []byte
	end  bool
}

// newText returns a text and the pipe for the process to write to, which the caller closes.
func newText(tb testing.TB) (*text, *os.File) {
	tb.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	return readText(tb, read), write
}

func readText(tb testing.TB, pipe *os.File) *text {
	t := &text{pipe: pipe}
	t.more = sync.NewCond(&t.mu)
	tb.Cleanup(func() { pipe.Close() })
	go func() {
		in := bufio.NewReader(pipe)
		for buffer := make([]byte, 4096); ; {
			n, err := in.Read(buffer)
			t.mu.Lock()
			t.all = append(t.all, buffer[:n]...)
			t.end = err != nil
			t.more.Broadcast()
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.all)
}

// until waits for a condition on what was read, with patience.
func (t *text) until(condition func() bool) bool {
	late := false
	timer := time.AfterFunc(prototest.Patience, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		late = true
		t.more.Broadcast()
	})
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !condition() {
		if late {
			return false
		}
		t.more.Wait()
	}
	return true
}

// await fails the test unless a part comes.
func (t *text) await(tb testing.TB, part string) {
	tb.Helper()
	t.awaitAfter(tb, 0, part)
}

// awaitAfter fails the test unless a part comes after the first bytes.
func (t *text) awaitAfter(tb testing.TB, bytes int, part string) {
	tb.Helper()
	found := false
	t.until(func() bool {
		found = strings.Contains(string(t.all[bytes:]), part)
		return found || t.end
	})
	if !found {
		tb.Fatalf("no %q after %d bytes of %q", part, bytes, t)
	}
}

// awaitLine returns the whole line that contains a part.
func (t *text) awaitLine(tb testing.TB, part string) (line string) {
	tb.Helper()
	t.until(func() bool {
		for l := range strings.Lines(string(t.all)) {
			if strings.HasSuffix(l, "\n") && strings.Contains(l, part) {
				line = l
				return true
			}
		}
		return t.end
	})
	if line == "" {
		tb.Fatalf("no line with %q in %q", part, t)
	}
	return line
}

func (t *text) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// awaitEnd fails the test unless all processes that could write have ended.
func (t *text) awaitEnd(tb testing.TB) {
	tb.Helper()
	if !t.until(func() bool { return t.end }) {
		tb.Fatalf("a process still has the pipe: %q", t)
	}
}

// daemon is a daemon of its own for a test.
type daemon struct {
	cmd     *exec.Cmd
	address string
	log     *text
}

// startDaemon starts a daemon. It is killed at the end of the test.
func startDaemon(tb testing.TB, args ...string) *daemon {
	tb.Helper()
	return startDaemonIn(tb, runtimeDir, args...)
}

// startDaemonIn starts a daemon that opens its admin socket in a directory.
func startDaemonIn(tb testing.TB, dir string, args ...string) *daemon {
	tb.Helper()
	return startDaemonAt(tb, dir, "127.0.0.1:0", args...)
}

// startDaemonAt is startDaemonIn for a daemon that listens at an address.
func startDaemonAt(tb testing.TB, dir, listen string, args ...string) *daemon {
	tb.Helper()
	d := &daemon{cmd: exec.Command(daemonProgram, append([]string{"--listen", listen, "--log-format", "console"}, args...)...)}
	var write *os.File
	d.log, write = newText(tb)
	defer write.Close()
	d.cmd.Stderr = write
	d.cmd.Env = environment("RUNTIME_DIRECTORY=" + dir)
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.kill)
	d.address = address(tb, d.log.awaitLine(tb, "dreadlock is ready"))
	return d
}

// adminSocket returns the address of the daemon's admin socket, which it opens in a directory. It is a file, and so the same on
// all network namespaces.
func (d *daemon) adminSocket(dir string) string {
	_, port, _ := net.SplitHostPort(d.address)
	return "unix://" + filepath.Join(dir, "admin-"+port+".sock")
}

// kill ends the daemon as a crash would.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait() // fails the second time
}

func (d *daemon) dial(tb testing.TB) *prototest.Client { return prototest.Dial(tb, d.address) }

// environment returns that of the test, without options and without directories for admin sockets.
func environment(more ...string) []string {
	all := []string{"GORACE=atexit_sleep_ms=0"} // it would end a second later
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "DREADLOCK_") && name != "RUNTIME_DIRECTORY" && name != "XDG_RUNTIME_DIR" {
			all = append(all, variable)
		}
	}
	return append(all, more...)
}

// job is a run of dreadlockctl.
type job struct {
	tb             testing.TB
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *text // shared with the command: they end with its last process
	ended          chan struct{}
	status         syscall.WaitStatus // constant once ended is closed
}

// begin starts dreadlockctl in a session of its own, and so without a terminal. It is killed at the end of the test.
func begin(tb testing.TB, env []string, args ...string) *job {
	tb.Helper()
	return beginCommand(tb, env, exec.Command(program, args...))
}

func beginCommand(tb testing.TB, env []string, cmd *exec.Cmd) *job {
	tb.Helper()
	j := &job{tb: tb, cmd: cmd, ended: make(chan struct{})}
	cmd.Env = environment(env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stdout, stderr *os.File
	j.stdout, stdout = newText(tb)
	j.stderr, stderr = newText(tb)
	defer stdout.Close()
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	var err error
	if j.stdin, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		if state, err := cmd.Process.Wait(); err == nil {
			j.status = state.Sys().(syscall.WaitStatus)
		}
		close(j.ended)
	}()
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its process group
		<-j.ended
		j.stdin.Close()
		if strings.Contains(j.stderr.String(), "DATA RACE") {
			tb.Errorf("a data race:\n%s", j.stderr)
		}
	})
	return j
}

func (j *job) signal(s syscall.Signal) {
	j.tb.Helper()
	if err := j.cmd.Process.Signal(s); err != nil {
		j.tb.Fatalf("signal %v: %v", s, err)
	}
}

// outcome is the result of a command line.
type outcome struct {
	status         int
	stdout, stderr string
}

// wait returns the outcome, when it has ended by itself with all processes that have its streams.
func (j *job) wait() outcome {
	j.tb.Helper()
	status := j.waitStatus()
	j.stdout.awaitEnd(j.tb)
	j.stderr.awaitEnd(j.tb)
	return outcome{status, j.stdout.String(), j.stderr.String()}
}

// waitStatus returns the exit status, without waiting for other processes.
func (j *job) waitStatus() int {
	j.tb.Helper()
	select {
	case <-j.ended:
		if !j.status.Exited() {
			j.tb.Fatalf("it was ended by %v; its stderr: %q", j.status.Signal(), j.stderr)
		}
		return j.status.ExitStatus()
	case <-time.After(prototest.Patience):
		j.tb.Fatalf("it does not end; its stderr: %q", j.stderr)
		return -1
	}
}

// runWith runs dreadlockctl until it ends.
func runWith(tb testing.TB, env []string, args ...string) outcome {
	tb.Helper()
	j := begin(tb, env, args...)
	j.stdin.Close()
	return j.wait()
}

func runs(tb testing.TB, args ...string) outcome {
	tb.Helper()
	return runWith(tb, nil, args...)
}

// oneLine reports whether the text is one line of dreadlockctl that contains all parts.
func oneLine(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return strings.HasPrefix(text, "dreadlockctl: ") && strings.Index(text, "\n") == len(text)-1
}

func contains(tb testing.TB, text string, parts ...string) {
	tb.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			tb.Errorf("no %q in:\n%s", part, text)
		}
	}
}

// eventually tries until the state is reached. If it never is, the last result of try is printed.
func eventually(tb testing.TB, try func() (reached bool, seen any)) {
	tb.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		reached, seen := try()
		if reached {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%+v", seen)
		}
	}
}
