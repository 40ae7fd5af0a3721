package main

import (
	"bufio"
	"fmt"
	"io"
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

// The real programs, built with the race detector.
var program, daemonProgram string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "dreadlockctl")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program, daemonProgram = filepath.Join(dir, "dreadlockctl"), filepath.Join(dir, "dreadlock")
		// A cached result is used again until a file changes that the test itself has looked at; those that go into the
		// binaries count only if it looks at them here.
		for _, sources := range []string{
			".", "completion", "../..", "../dreadlock", "../../server", "../../reactor", "../../lockmgr", "../../proto", "../../proto/client",
		} {
			if _, err := os.ReadDir(sources); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		build := exec.Command("go", "build", "-race", "-o", dir, ".", "../dreadlock")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, output)
			return 1
		}
		return m.Run()
	}())
}

// text is what a process writes, read as it comes.
type text struct {
	pipe *os.File
	mu   sync.Mutex
	more *sync.Cond
	all  []byte
	end  bool
}

// newText returns the text and the end of the pipe for the process, which the caller closes.
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
	found := false
	t.until(func() bool {
		found = strings.Contains(string(t.all), part)
		return found || t.end
	})
	if !found {
		tb.Fatalf("no %q in %q", part, t)
	}
}

// awaitEnd fails the test unless everybody who could write has ended.
func (t *text) awaitEnd(tb testing.TB) {
	tb.Helper()
	if !t.until(func() bool { return t.end }) {
		tb.Fatalf("somebody still writes: %q", t)
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
	d := &daemon{cmd: exec.Command(daemonProgram, append([]string{"--listen", "127.0.0.1:0", "--log-format", "console"}, args...)...)}
	var write *os.File
	d.log, write = newText(tb)
	defer write.Close()
	d.cmd.Stderr = write
	d.cmd.Env = environment()
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.kill)
	d.log.await(tb, "address=")
	d.log.await(tb, "\n")
	_, address, _ := strings.Cut(d.log.String(), "address=")
	d.address = strings.Fields(address)[0]
	return d
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait() // the second time it fails
}

func (d *daemon) dial(tb testing.TB) *prototest.Client { return prototest.Dial(tb, d.address) }

// environment is that of the test, without options.
func environment(more ...string) []string {
	all := []string{"GORACE=atexit_sleep_ms=0"} // it would end a second later
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "DREADLOCK_") {
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
	stdout, stderr *text // of the command as well: they end when all of its processes have
	ended          chan struct{}
	status         syscall.WaitStatus // constant once ended is closed
}

// begin starts dreadlockctl in a session of its own, so without a terminal. It is killed at the end of the test.
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
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the session, but for those that have left it
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

// outcome is what a command line came to.
type outcome struct {
	status         int
	stdout, stderr string
}

// wait returns how it ended, by itself, with all that has its streams.
func (j *job) wait() outcome {
	j.tb.Helper()
	status := j.waitStatus()
	j.stdout.awaitEnd(j.tb)
	j.stderr.awaitEnd(j.tb)
	return outcome{status, j.stdout.String(), j.stderr.String()}
}

// waitStatus returns how it ended, whatever became of others.
func (j *job) waitStatus() int {
	j.tb.Helper()
	select {
	case <-j.ended:
		if !j.status.Exited() {
			j.tb.Fatalf("it was ended by %v; it said %q", j.status.Signal(), j.stderr)
		}
		return j.status.ExitStatus()
	case <-time.After(prototest.Patience):
		j.tb.Fatalf("it does not end; it said %q", j.stderr)
		return -1
	}
}

// runWith runs dreadlockctl to its end.
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

// oneLine reports whether the text is one line of ours that contains all parts.
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

// Bad usage is told in one line, before anybody is asked.
func TestBadUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		says string
	}{
		{"", "expected one of"},
		{"nonsense", "nonsense"},
		{"status --nonsense", "--nonsense"},
		{"lock", "<key>"},
		{"lock night-ly", "letters and digits only"},
		{"lock nachtübung -- true", "letters and digits only"},
		{"lock " + strings.Repeat("x", 9_980), "may have 9,979"},
		{"lock a --", "no command behind --"},
		{"lock a --wait 30 -- true", "--wait"},
		{"lock a --wait=-1s -- true", "--wait -1s"},
		{"lock a --wait 1s --try -- true", "--try"},
		{"lock a --tyr -- true", "did you mean \"--try\""},
		{"lock a -E 256 -- true", "--conflict-exit-code 256"},
		{"lock a --grace=-1s -- true", "--grace -1s"},
		{"lock a --on-lost=nothing -- true", "--on-lost"},
		{"lock a -q -v -- true", "--quiet"},
		{"lock a --server localhost -- true", "--server localhost: want HOST:PORT"},
		{"locks --sort size", "--sort"},
		{"locks --limit 0", "--limit 0"},
		{"locks --limit 5 --all", "--all"},
		{"locks --admin ftp://localhost", "--admin ftp://localhost: want a URL"},
		{"locks --admin http://", "--admin http://: want a URL"},
		{"locks --admin-token-file /missing", "/missing"},
		{"locks --admin-token-file " + empty, "one line, the token"},
		{"waiters", "<key>"},
		{"waiters a-b", "letters and digits only"},
		{"waiters a --limit 1001", "--limit 1001"},
		{"kick", "<connection>"},
		{"kick five", "five"},
		{"kick 5", "say --yes"},
		{"top", "--json"},
		{"top --json --interval 1ms", "--interval 1ms"},
		{"top --json --count=-1", "--count -1"},
		{"completion tcsh", "tcsh"},
	} {
		got := runs(t, strings.Fields(c.args)...)
		if got.status != exitUsage || got.stdout != "" || !oneLine(got.stderr, c.says) {
			t.Errorf("%.80s: %+v, want 2 and one line with %q", c.args, got, c.says)
		}
	}
}

// Each command's help has examples of it.
func TestHelp(t *testing.T) {
	got := runs(t, "--help")
	contains(t, got.stdout, "--server=ADDR", "$DREADLOCK_SERVER", "--admin=URL", "$DREADLOCK_ADMIN", "$DREADLOCK_ADMIN_TOKEN_FILE")
	if strings.Contains(got.stdout, "__complete") {
		t.Error("it shows what is for scripts")
	}
	for _, command := range []string{"lock", "status", "locks", "waiters", "connections", "deadlocks", "kick", "top", "completion"} {
		contains(t, got.stdout, "\n  "+command+" ")
		help := runs(t, command, "--help")
		if help.status != 0 || help.stderr != "" {
			t.Errorf("%s: %+v", command, help)
		}
		contains(t, help.stdout, "dreadlockctl "+command)
		if command != "completion" {
			contains(t, help.stdout, "Examples:\n\n    dreadlockctl "+command)
		}
	}
	contains(t, runs(t, "lock", "--help").stdout, "for ever", "75", "69", "76", "126", "127", "128+N", "DREADLOCK_KEY")
}

func TestVersion(t *testing.T) {
	if got := runs(t, "--version"); got.status != 0 || !strings.HasPrefix(got.stdout, "dreadlockctl ") {
		t.Errorf("%+v", got)
	}
}
