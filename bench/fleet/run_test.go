package main

import (
	"bufio"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// programs builds this program and what it runs into one directory that everybody may read.
func programs(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "dreadlock/bench/fleet", "dreadlock/cmd/dreadlock", "dreadlock/cmd/dreadlockctl")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, output)
	}
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// running is the run command as a process.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // what it says; closed when it has ended
	said  []string
	ctl   string              // path of dreadlockctl
	rows  map[string][]string // of its table, by the name of the process
}

// nobody is a user without any rights.
const nobody = 65534

// startRun starts a fleet, whose directories are made in tmp, and returns when it says what to try.
func startRun(t *testing.T, programs, tmp string, uid int) *running {
	t.Helper()
	r := &running{t: t, lines: make(chan string), ctl: filepath.Join(programs, "dreadlockctl"), rows: make(map[string][]string)}
	r.cmd = exec.Command(filepath.Join(programs, "fleet"), "run", "--port", "0", "--admin-port", "0", "--fleet-ttl", "5s", "--restart", "1s")
	r.cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "DREADLOCK_LISTEN=nonsense") // which is not for these daemons
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != os.Geteuid() {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	go func() {
		defer close(r.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			r.lines <- in.Text()
		}
	}()
	r.await("Ctrl-C stops everything")
	for _, line := range r.said {
		if f := strings.Fields(line); len(f) >= 4 && (f[0] == "etcd" || f[0] == "daemon") {
			r.rows[f[1]] = f[2:]
		}
	}
	if len(r.rows) != 6 {
		t.Fatalf("its table has the rows %v: %s", r.rows, strings.Join(r.said, "\n"))
	}
	return r
}

// await waits for a line with the text.
func (r *running) await(text string) (line string) {
	r.t.Helper()
	late := time.After(2 * prototest.Patience)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("it ends without %q: %s", text, strings.Join(r.said, "\n"))
			}
			r.said = append(r.said, line)
			if strings.Contains(line, text) {
				return line
			}
		case <-late:
			r.t.Fatalf("it does not say %q: %s", text, strings.Join(r.said, "\n"))
		}
	}
}

// ended waits for its end.
func (r *running) ended() error {
	r.t.Helper()
	late := time.After(2 * prototest.Patience)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				return r.cmd.Wait()
			}
			r.said = append(r.said, line)
		case <-late:
			r.t.Fatalf("it does not end: %s", strings.Join(r.said, "\n"))
		}
	}
}

// pid returns the number of one of its processes.
func (r *running) pid(name string) int {
	n, err := strconv.Atoi(r.rows[name][0])
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// lock runs dreadlockctl lock and returns its exit status.
func (r *running) lock(args ...string) int {
	r.t.Helper()
	cmd := exec.Command(r.ctl, append([]string{"lock", "k", "--wait", prototest.Patience.String()}, args...)...)
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	r.t.Logf("%v: %v %s", cmd, err, output)
	return cmd.ProcessState.ExitCode()
}

// awaitNothingLeft waits until none of the processes is there.
func (r *running) awaitNothingLeft() {
	r.t.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // they are nobody's children
		left := ""
		for name := range r.rows {
			if syscall.Kill(r.pid(name), 0) == nil {
				left = name
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s is there", left)
		}
	}
}

func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory for temporary files: %v, %v", left, err)
	}
}

// TestRun has a fleet run, as this user and as one without rights: a key has one holder on all daemons, one that is killed comes back, and
// nothing is left afterwards.
func TestRun(t *testing.T) {
	dir := programs(t)
	users := []int{os.Geteuid()}
	if os.Geteuid() == 0 {
		users = append(users, nobody)
	}
	for _, uid := range users {
		t.Run(strconv.Itoa(uid), func(t *testing.T) {
			tmp := filepath.Join(dir, "tmp"+strconv.Itoa(uid))
			if err := errors.Join(os.Mkdir(tmp, 0o700), os.Chown(tmp, uid, uid)); err != nil {
				t.Fatal(err)
			}
			r := startRun(t, dir, tmp, uid)
			one, two, three := r.rows["d0"][1], r.rows["d1"][1], r.rows["d2"][1]
			all := strings.Join([]string{one, two, three}, ",")
			const taken = 75
			if got := r.lock("--server", all, "--", r.ctl, "lock", "k", "--try", "--server", two, "--", "true"); got != 2 {
				t.Errorf("a key that is had inside itself: status %d", got)
			}
			if got := r.lock("--server", one, "--", "env", "-u", "DREADLOCK_HELD", r.ctl, "lock", "k", "--try", "--server", two, "--", "true"); got != taken {
				t.Errorf("a key that another daemon's client holds: status %d", got)
			}
			if err := syscall.Kill(r.pid("d0"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.await("daemon d0 has ended: signal: killed")
			if got := r.lock("--server", all, "--", "true"); got != 0 {
				t.Errorf("with a daemon that is dead: status %d", got)
			}
			fields := strings.Fields(r.await("daemon d0 is started again"))
			r.rows["d0"][0] = fields[len(fields)-1]
			r.await("daemon d0 is in touch with the fleet")
			if err := syscall.Kill(r.pid("m1"), syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			r.await("etcd m1 is stopped")
			if got := r.lock("--server", one, "--", "true"); got != 0 {
				t.Errorf("with a member that is stopped: status %d", got)
			}
			// As make does it: the signal comes twice.
			if err := errors.Join(r.cmd.Process.Signal(os.Interrupt), r.cmd.Process.Signal(os.Interrupt)); err != nil {
				t.Fatal(err)
			}
			if err := r.ended(); err != nil {
				t.Errorf("it ends with %v: %s", err, strings.Join(r.said, "\n"))
			}
			r.awaitNothingLeft()
			checkEmpty(t, tmp)
		})
	}
}

// TestRunKilled kills the program: its processes die with it, and the next one removes what is left.
func TestRunKilled(t *testing.T) {
	dir, tmp := programs(t), t.TempDir()
	r := startRun(t, dir, tmp, os.Geteuid())
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.ended() // with an error: it was killed
	r.awaitNothingLeft()
	next := startRun(t, dir, tmp, os.Geteuid())
	other := startRun(t, dir, tmp, os.Geteuid()) // which leaves alone what is in use
	left, err := filepath.Glob(filepath.Join(tmp, workDirs))
	if err != nil || len(left) != 2 {
		t.Errorf("two fleets run, and there are the directories %v, %v", left, err)
	}
	for _, r := range []*running{next, other} {
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := r.ended(); err != nil {
			t.Errorf("it ends with %v: %s", err, strings.Join(r.said, "\n"))
		}
	}
	checkEmpty(t, tmp)
}

// TestPortTaken: a port that somebody has is named, with the option, and nothing is started.
func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if _, err := addresses(port, "--port"); err == nil || !strings.Contains(err.Error(), ln.Addr().String()+": give another --port") {
		t.Errorf("a port that is taken: %v", err)
	}
	all, err := addresses(0, "--port")
	if err != nil || len(all) != daemons || all[0] == all[1] || all[1] == all[2] {
		t.Errorf("ports that are free: %v, %v", all, err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	c := &runCommand{Daemon: "/bin/false", Port: port}
	if err := c.Run(t.Context()); err == nil {
		t.Error("a fleet runs on a port that is taken")
	}
	checkEmpty(t, os.TempDir())
	if _, err := (&runCommand{}).program(); !errors.Is(err, errNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
	if _, err := lockDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
}
