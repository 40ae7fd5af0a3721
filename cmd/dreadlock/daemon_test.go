package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreadlock/proto/prototest"
)

// binary is the real daemon, built with the race detector. Daemons open their admin sockets in runtimeDir.
var binary, runtimeDir string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == stopArgument {
		awaitStop(os.Args[2])
	}
	os.Exit(func() int {
		restoreSignals()
		dir, err := os.MkdirTemp("", "dreadlock")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary, runtimeDir = filepath.Join(dir, "dreadlock"), filepath.Join(dir, "run")
		if err := os.Mkdir(runtimeDir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// Every user may run it: one test runs it as nobody.
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// A cached test result is used until a file changes that the test itself has read. What goes into the binary counts
		// only if it is read here.
		for _, sources := range []string{"../..", "../../server", "../../reactor", "../../lockmgr", "../../proto", "../../bench/fleet"} {
			if _, err := os.ReadDir(sources); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		build := exec.Command("go", "build", "-race", "-o", binary, ".")
		if output, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, output)
			return 1
		}
		code := m.Run()
		// The worker pool of gnet, which the server links, lives as long as the program.
		pool := []goleak.Option{
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
			goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		}
		if err := goleak.Find(pool...); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// restoreSignals lets child processes start with the default action for interrupts and hang-ups, also where these are ignored,
// as in a script's "make test &": children inherit ignored signals, but not caught ones. What is caught here is dropped, so
// this process still ignores them.
func restoreSignals() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// daemon is a process of the binary.
type daemon struct {
	tb      testing.TB
	cmd     *exec.Cmd
	address string
	ready   logLine
	log     *logReader
	ended   chan struct{} // closed when the process has ended
	state   *os.ProcessState
}

// launch is how to start the daemon, besides the command line.
type launch struct {
	program string // by its path; empty for binary
	env     []string
	limit   int      // on open files; 0 for that of the test
	nobody  bool     // as nobody if the test runs as root
	via     []string // the command that starts it, if another one does
	passed  *os.File // a socket that is passed as systemd does it, or nil
	stderr  *os.File // where the log goes; nil to read it. Otherwise the address must be known
}

// start runs the daemon with two loops, on a free port unless the arguments say where, and waits until it is ready. It is
// killed at the end of the test.
func start(tb testing.TB, args ...string) *daemon {
	tb.Helper()
	args = append([]string{"--loops", "2"}, args...)
	if !slices.Contains(args, "--listen") {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	return startWith(tb, launch{}, args...)
}

func startWith(tb testing.TB, l launch, args ...string) *daemon {
	tb.Helper()
	d := spawn(tb, l, args...)
	line, ok := d.log.await("dreadlock is ready")
	if !ok {
		tb.Fatalf("dreadlock %q is not ready; log:\n%s", args, d.log)
	}
	d.ready, d.address = line, line.text("address")
	return d
}

// spawn starts the daemon and does not wait until it is ready.
func spawn(tb testing.TB, l launch, args ...string) *daemon {
	tb.Helper()
	cmd := command(l, args...)
	d := &daemon{tb: tb, cmd: cmd, ended: make(chan struct{})}
	if l.stderr != nil {
		cmd.Stderr = l.stderr
	} else {
		pipe, write, err := os.Pipe()
		if err != nil {
			tb.Fatal(err)
		}
		defer write.Close()
		cmd.Stderr = write
		d.log = readLog(pipe)
		tb.Cleanup(d.log.close)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start: %v", err)
	}
	go func() {
		_ = cmd.Wait()
		d.state = cmd.ProcessState
		close(d.ended)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-d.ended
		if d.log != nil && strings.Contains(d.log.String(), "DATA RACE") {
			tb.Errorf("the daemon has a data race:\n%s", d.log)
		}
	})
	return d
}

// command returns the command, in an environment without options, and without what systemd may have told the test.
func command(l launch, args ...string) *exec.Cmd {
	program := cmp.Or(l.program, binary)
	cmd := exec.Command(program, args...)
	if l.limit > 0 {
		cmd = exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, l.limit), program}, args...)...)
	}
	if len(l.via) > 0 {
		cmd = exec.Command(l.via[0], slices.Concat(l.via[1:], []string{program}, args)...)
	}
	if l.passed != nil {
		cmd = exec.Command("sh", append([]string{"-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, program}, args...)...)
		cmd.ExtraFiles = []*os.File{l.passed}
	}
	if l.nobody && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	for _, variable := range os.Environ() {
		foreign := func(prefix string) bool { return strings.HasPrefix(variable, prefix) }
		if !slices.ContainsFunc([]string{"DREADLOCK_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"}, foreign) {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // it would end a second later
	cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+runtimeDir)
	cmd.Env = append(cmd.Env, l.env...)
	return cmd
}

func (d *daemon) dial() *prototest.Client {
	d.tb.Helper()
	return prototest.Dial(d.tb, d.address)
}

func (d *daemon) signal(s syscall.Signal) {
	d.tb.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.tb.Fatalf("signal %v: %v", s, err)
	}
}

// wait returns how the process ended.
func (d *daemon) wait() *os.ProcessState {
	d.tb.Helper()
	select {
	case <-d.ended:
	case <-time.After(prototest.Patience):
		d.tb.Fatalf("the daemon does not end; log:\n%s", d.log)
	}
	if d.log != nil {
		d.log.awaitEnd()
	}
	return d.state
}

// stop ends the daemon as an operator does.
func (d *daemon) stop() {
	d.tb.Helper()
	d.signal(syscall.SIGTERM)
	if state := d.wait(); !state.Exited() || state.ExitCode() != 0 {
		d.tb.Fatalf("stopped with %v; log:\n%s", state, d.log)
	}
}

// alive fails the test unless the daemon serves.
func (d *daemon) alive() {
	d.tb.Helper()
	c := d.dial()
	c.Do("lock alive 0", "l locked")
	c.Close()
}

// outcome is the result of a command line.
type outcome struct {
	status         int
	stdout, stderr string
}

// run runs the binary until it ends by itself.
func run(tb testing.TB, l launch, args ...string) outcome {
	tb.Helper()
	cmd := command(l, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = prototest.Patience
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	killer := time.AfterFunc(prototest.Patience, func() { _ = cmd.Process.Kill() })
	defer killer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("%v: %v", cmd, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
