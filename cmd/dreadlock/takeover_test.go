package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// flood is a client that sends commands without reading the answers, more than all buffers take.
type flood struct {
	*prototest.Client
	sent chan struct{} // closed when everything is sent
}

const floodCommands = 60_000

func startFlood(d *daemon, ends bool) *flood {
	f := &flood{Client: d.dial(), sent: make(chan struct{})}
	f.Do("unlock nobodys", "e not locked")
	go func() {
		defer close(f.sent)
		_, _ = f.Stream().Write([]byte(strings.Repeat("unlock nobodys\r\n", floodCommands))) // what is lost is missed later
		if ends {
			_ = f.Conn().CloseWrite()
		}
	}()
	return f
}

// answers fails the test unless each command of the flood has one answer.
func (f *flood) answers(t *testing.T) {
	t.Helper()
	for i := range floodCommands {
		if got, err := f.ReadReply(); err != nil || got != "e not locked" {
			t.Fatalf("answer %d of %d: %q, %v", i, floodCommands, got, err)
		}
	}
	<-f.sent
}

// What clients hold, wait for, have sent in part, and have not read lives through several takeovers, with other loops.
func TestTakeover(t *testing.T) {
	d, path := startAt(t, launch{}, "--admin", "off")
	holder := d.dial()
	for _, key := range []string{"a", "b", "c", "d"} {
		holder.Do("lock "+key+" 0", "l locked")
	}
	waiters := []*prototest.Client{d.dial(), d.dial(), d.dial()}
	timed, typing, piped := d.dial(), d.dial(), d.dial()
	q := newQueuer(d, 2, append(waiters, timed, typing, piped)...)
	for _, w := range waiters {
		q.queue(w, "a", 600_000)
	}
	q.queue(piped, "b", 600_000)
	piped.Write([]byte("unlock b\r\nlock p 0\r\nunlock nobodys\r\nlo"))
	typing.Write([]byte("lock typ"))
	floods := []*flood{startFlood(d, false), startFlood(d, true)}
	const timeout = 3 * time.Second
	began := time.Now()
	q.queue(timed, "c", int(timeout.Milliseconds()))

	s := d.takeOver()
	holder.Do("lock a 0", "e already locked")
	replace(t, path, `exec {} "$@" --loops 3`)
	s = s.takeOver()
	if _, ok := s.log.awaitLine(func(line logLine) bool { return line["message"] == "dreadlock is ready" && line.text("loops") == "3" }); !ok {
		t.Errorf("no daemon has 3 loops:\n%s", s.log)
	}
	replace(t, path, `exec {} "$@" --loops 1`)
	s = s.takeOver()

	timed.Expect("t timeout")
	if took := time.Since(began); took < timeout {
		t.Errorf("a wait of %s timed out after %s", timeout, took)
	}
	typing.Write([]byte("ed 0\r\n"))
	typing.Expect("l locked")
	holder.Do("unlock b", "u unlocked")
	piped.Expect("l locked", "u unlocked", "l locked", "e not locked")
	piped.Write([]byte("ck b 0\r\n"))
	piped.Expect("l locked")
	holder.Do("unlock a", "u unlocked")
	for _, w := range waiters {
		w.Expect("l locked")
		w.Do("unlock a", "u unlocked")
	}
	for _, f := range floods {
		f.answers(t)
	}
	floods[0].Do("lock e 0", "l locked")
	floods[1].ExpectEnd()
	d.dial().Do("lock d 0", "t timeout")
	holder.Close()
	d.dial().Do("lock d 60000", "l locked")
	s.stop()
}

// Whatever lies at the path, the daemon serves on if that does not take over, and says why. What the new process says reaches
// the log.
func TestNoTakeover(t *testing.T) {
	d, path := startAt(t, launch{}, "--admin", "off")
	holder, waiter := d.dial(), d.dial()
	holder.Do("lock a 0", "l locked")
	waiter.Send("lock a 600000")
	for _, c := range []struct{ script, reason, line string }{
		{"exit 3", "the new process has ended: exit status 3", ""},
		{"kill -9 $$", "the new process has ended: signal: killed", ""},
		{`sleep 60 >/dev/null 2>&1 & exit 4`, "the new process has ended: exit status 4", ""},
		{`exec {} "$@" --nonsense`, "the new process refuses: unknown flag --nonsense", "dreadlock: unknown flag --nonsense"},
		{`exec {} "$@" --loops 0`, "the new process refuses: --loops 0: want 1", "dreadlock: --loops 0: want 1"},
		{`exec {} "$@" --listen 192.0.2.1:7`, "the new process refuses: listen 192.0.2.1:7", "dreadlock: listen 192.0.2.1:7"},
		{`ulimit -n 178; exec {} "$@"`, "the new process refuses: the limit on open files is 178, which leaves room for 1 connections, and there are 2", "dreadlock: the limit on open files is 178"},
		{`exec {} "$@" --fleet http://127.0.0.1:1`, "the new process refuses: --fleet: the daemon that runs is alone", "dreadlock: --fleet"},
		{`exec 3>&-; exec {} "$@"`, "the new process has ended: exit status 1", "unset it"},
	} {
		replace(t, path, c.script)
		d.signal(syscall.SIGUSR2)
		d.serveOn(c.reason)
		if c.line != "" {
			d.log.awaitText(t, c.line)
		}
		d.alive()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGUSR2)
	d.serveOn("no such file or directory", path)
	holder.Do("lock a 0", "e already locked")
	replace(t, path, `exec {} "$@"`)
	s := d.takeOver()
	holder.Do("unlock a", "u unlocked")
	waiter.Expect("l locked")
	s.stop()
}

// A daemon that is started by a process in between does not take over: signals for it, and the one that ends a predecessor that hangs,
// would reach that process.
func TestTakeoverByAnother(t *testing.T) {
	d, path := startAt(t, launch{}, "--admin", "off")
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	replace(t, path, "{} \"$@\"\nexit $?")
	d.signal(syscall.SIGUSR2)
	d.serveOn("the new process refuses: process", "has started this one", "a script must start the daemon by exec")
	holder.Do("lock a 0", "e already locked")
	d.stop()
}

// A new process that hangs is given up, and killed.
func TestTakeoverHangs(t *testing.T) {
	t.Parallel() // it mostly waits
	d, path := startAt(t, launch{}, "--admin", "off")
	pids := filepath.Join(t.TempDir(), "pid")
	replace(t, path, "echo $$ >"+pids+"; exec sleep 1000")
	d.signal(syscall.SIGUSR2)
	d.alive()
	d.serveOn("does not answer in time")
	d.alive()
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not killed", func() bool { return syscall.Kill(pid, 0) != nil })
	d.stop()
}

// Signals that come one after the other are so many takeovers at most, and none ends a daemon that serves.
func TestTakeoverStorm(t *testing.T) {
	d, _ := startAt(t, launch{}, "--admin", "off")
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	for range 3 {
		for range 50 {
			_ = d.cmd.Process.Signal(syscall.SIGUSR2) // it may have ended
		}
		d = d.takeOverAlready()
		holder.Do("lock a 0", "e already locked")
		d.dial().Do("lock a 0", "t timeout")
	}
	d.stop()
}

// takeOverAlready returns the daemon that takes over.
func (d *daemon) takeOverAlready() *daemon {
	d.tb.Helper()
	if err := adoptOrphans(); err != nil {
		d.tb.Fatal(err)
	}
	return d.successor()
}

// A daemon that drains does not hand over, and one that is told to stop while it waits for a new process stops, and no
// process is left.
func TestTakeoverOrStop(t *testing.T) {
	d := start(t, "--admin", "off", "--drain", "1m")
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.signal(syscall.SIGTERM)
	d.log.await("dreadlock drains: it takes no new connections and ends when nobody holds a key")
	d.signal(syscall.SIGUSR2)
	d.serveOn("the daemon drains")
	holder.Do("unlock a", "u unlocked")
	if state := d.wait(); state.ExitCode() != 0 {
		t.Errorf("it has ended with %v", state)
	}

	d, path := startAt(t, launch{}, "--admin", "off")
	replace(t, path, `sleep 2; exec {} "$@"`)
	d.signal(syscall.SIGUSR2)
	d.log.await("dreadlock starts a process that is to take over")
	d.signal(syscall.SIGTERM)
	if state := d.wait(); state.ExitCode() != 0 { // and the log ends: nobody has it open any more
		t.Errorf("it has ended with %v", state)
	}
	d.serveOn("the daemon stops")
	if strings.Contains(d.log.String(), "has taken over") {
		t.Errorf("somebody has taken over:\n%s", d.log)
	}
}

// As process 1 of a container it cannot hand over, nor as the child of one that ends with it, and says what to do instead.
func TestTakeoverEndOfContainer(t *testing.T) {
	via := container(t)
	for _, c := range []struct {
		name   string
		first  []string // process 1
		depth  int      // of the daemon below unshare
		reason string
	}{
		{"alone", nil, 1, "this is process 1 of its container"},
		{"shell", []string{"sh", "-c", `"$0" "$@"; exit $?`}, 2, "started by process 1 of its container, sh, which ends with it"},
		{"tini", []string{"tini", "--"}, 2, "started by process 1 of its container, tini, which ends with it"},
		{"dumb-init", []string{"dumb-init"}, 2, "started by process 1 of its container, dumb-init, which ends with it"},
		{"catatonit", []string{"catatonit", "--"}, 2, "started by process 1 of its container, catatonit, which ends with it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.first != nil {
				if _, err := exec.LookPath(c.first[0]); err != nil {
					t.Skip(err)
				}
			}
			d := startWith(t, launch{via: slices.Concat(via, c.first)}, "--listen", "127.0.0.1:0", "--admin", "off")
			pid := descendant(t, d.cmd.Process.Pid, c.depth)
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			d.serveOn(c.reason, "replace the container after a drain")
			d.alive()
			if strings.Contains(d.log.String(), "starts a process") {
				t.Errorf("a process was started:\n%s", d.log)
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.wait()
		})
	}
}

// A daemon whose parent has ended is no child of process 1 that this one waits for, and hands over as everywhere.
func TestTakeoverOfOrphan(t *testing.T) {
	orphan := []string{"sh", "-c", `setsid sh -c '"$0" "$@" &' "$0" "$@"; exec sleep 600`}
	d := startWith(t, launch{via: slices.Concat(container(t), orphan)}, "--listen", "127.0.0.1:0", "--admin", "off")
	if err := syscall.Kill(descendant(t, d.cmd.Process.Pid, 2), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.log.await("dreadlock has taken over"); !ok {
		t.Errorf("nobody has taken over; log:\n%s", d.log)
	}
}

// container returns the command that runs another one in a PID namespace of its own, as process 1. It ends with the command that it is.
func container(t *testing.T) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a PID namespace")
	}
	via := []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if err := command(launch{via: via}, "--version").Run(); err != nil {
		t.Skipf("there can be no PID namespace here: %v", err)
	}
	return via
}

// descendant returns the child of a process, or the child of that, and so on.
func descendant(t *testing.T, pid, depth int) int {
	t.Helper()
	for range depth {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Fatal(err)
		}
	}
	return pid
}

// A request that comes before the daemon serves is answered in the log.
func TestTakeoverTooEarly(t *testing.T) {
	ca := prototest.NewCA(t)
	cert, key := ca.Files(ca.Server("localhost"))
	pipe := filepath.Join(t.TempDir(), "cert")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	d := spawn(t, launch{}, "--listen", "tls://127.0.0.1:0", "--tls-cert", pipe, "--tls-key", key, "--admin", "off")
	in, err := os.OpenFile(pipe, os.O_WRONLY, 0) // when the daemon reads the certificate
	if err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGUSR2)
	d.signal(syscall.SIGUSR2)
	text, err := os.ReadFile(cert)
	if err == nil {
		_, err = in.Write(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	d.serveOn("does not serve yet")
	if _, ok := d.log.await("dreadlock is ready"); !ok {
		t.Errorf("it is not ready:\n%s", d.log)
	}
}
