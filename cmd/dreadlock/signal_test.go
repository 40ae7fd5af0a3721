package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// Both signals stop it in an orderly way: exit status 0, and a log line about what was held.
func TestStop(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			d := start(t, "--loops", "4")
			holder := d.dial()
			for i := range 5 {
				holder.Do(fmt.Sprintf("lock k%d 0", i), "l locked")
			}
			waiters := []*prototest.Client{d.dial(), d.dial(), d.dial()}
			q := newQueuer(d, 4, waiters...)
			for i, w := range waiters {
				q.queue(w, fmt.Sprintf("k%d", i/2), 600_000)
			}
			before := time.Now()
			d.signal(s)
			state := d.wait()
			t.Logf("ended after %s", time.Since(before))
			if state.ExitCode() != 0 {
				t.Errorf("ended with %v, want 0; log:\n%s", state, d.log)
			}
			for _, w := range waiters { // no key is granted while all are being released
				w.ExpectEnd()
			}
			line, _ := d.log.await("dreadlock stops: the keys that were held are lost")
			connections := fmt.Sprint(1 + len(waiters) + q.dialed)
			if line.text("connections") != connections || line.text("held_keys") != "5" || line.text("waiters") != "3" {
				t.Errorf("it says %v, want 5 keys, 3 waiters, %s connections", line, connections)
			}
			for i := range 5 {
				d.lost(holder, fmt.Sprintf("k%d", i))
			}
		})
	}
}

// lost fails the test unless the log has said that a client has lost a key.
func (d *daemon) lost(c *prototest.Client, key string) {
	d.tb.Helper()
	_, found := d.log.awaitLine(func(line logLine) bool {
		return line["message"] == "key lost" && line["key"] == key && line["client"] == c.Conn().LocalAddr().String() && line["level"] == "warn"
	})
	if !found {
		d.tb.Errorf("the log does not say that %s is lost:\n%s", key, d.log)
	}
}

// SIGUSR1 logs the resource use and who holds what, whatever the log level, and changes nothing.
func TestStatus(t *testing.T) {
	address := freeAddress(t)
	d := spawn(t, launch{}, "--listen", address, "--log-level", "error", "--log-format", "json")
	awaitPort(t, address)
	d.address = address
	c := d.dial()
	c.Do("lock a 0", "l locked")
	d.signal(syscall.SIGUSR1)
	line, ok := d.log.await("status")
	if objects, isNumber := line["allocated_objects"].(float64); !ok || !isNumber || objects <= 0 {
		t.Errorf("it says %v, want the number of allocated objects", line)
	}
	line, _ = d.log.await("key held")
	if line.text("key") != "a" || line.text("client") != c.Conn().LocalAddr().String() || line.text("waiters") != "0" {
		t.Errorf("it says %v, want who holds the key", line)
	}
	c.Do("unlock a", "u unlocked")
}

// stopArgument makes this test binary wait for signals as the daemon does. Another argument says what a drain comes to.
const stopArgument = "wait-for-a-stop"

// awaitStop takes signals, says what they do, and never ends by itself.
func awaitStop(drains string) {
	var drain func() error
	switch drains {
	case "drains":
		drain = func() error {
			fmt.Println("draining")
			return nil
		}
	case "cannot drain":
		drain = func() error { return errors.New("it does not serve yet") }
	}
	caught := catchStops()
	fmt.Println("ready")
	s := stops{caught: caught, drain: drain, stop: func() { fmt.Println("stopping") }}
	s.handle(context.Background())
	for {
		_ = syscall.Pause()
	}
}

// The signal after the one that stops the daemon ends the process at once, however long the stop takes. The daemon stops too
// fast for a test of this, so it runs only the code for signals.
func TestLastSignal(t *testing.T) {
	both := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}
	for drains, says := range map[string][]string{
		"":             {"stopping"},
		"cannot drain": {"stopping"},
		"drains":       {"draining", "stopping"},
	} {
		for i := range 4 {
			first, last := both[i/2], both[i%2]
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, stopArgument, drains)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			killer := time.AfterFunc(prototest.Patience, func() { _ = cmd.Process.Kill() })
			in := bufio.NewScanner(stdout)
			if !in.Scan() || in.Text() != "ready" {
				t.Errorf("it says %q, want that it is ready", in.Text())
			}
			for _, want := range says {
				_ = cmd.Process.Signal(first)
				if !in.Scan() || in.Text() != want {
					t.Errorf("%s: it says %q, want that it is %s", drains, in.Text(), want)
				}
			}
			_ = cmd.Process.Signal(last)
			_ = cmd.Wait()
			killer.Stop()
			if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != last {
				t.Errorf("%s: after %v and %v it ended with %v", drains, first, last, cmd.ProcessState)
			}
		}
	}
}

// fullLog is a pipe for the log that is full from the start and has no reader.
type fullLog struct {
	read, write *os.File
}

func newFullLog(t *testing.T) *fullLog {
	t.Helper()
	var l fullLog
	var err error
	if l.read, l.write, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.read.Close()
		_ = l.write.Close()
	})
	l.fill(t)
	return &l
}

// fill fills the pipe to the last byte. It opens the pipe once more, since the daemon's own descriptor must stay blocking.
func (l *fullLog) fill(t *testing.T) {
	t.Helper()
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", l.write.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for size := 4096; size > 0; {
		switch _, err := unix.Write(fd, make([]byte, size)); err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			size /= 2
		default:
			t.Fatal(err)
		}
	}
}

// The daemon survives the reader of its log.
func TestLogReaderGone(t *testing.T) {
	d := start(t)
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	d.log.close()
	for range 10 {
		bad := d.dial()
		bad.Write([]byte("nonsense\r\n"))
		bad.ExpectEnd()
		holder.Do("lock a 0", "e already locked")
	}
	d.alive()
	// All lines have been written when it ends, so SIGPIPE would have come by then.
	d.signal(syscall.SIGTERM)
	if state := d.wait(); state.ExitCode() != 0 {
		t.Errorf("ended with %v, want 0", state)
	}
}

// A reader of the log that has stopped reading does not stop the daemon, however much there is to log.
func TestLogReaderStopped(t *testing.T) {
	log := newFullLog(t)
	address := freeAddress(t)
	d := spawn(t, launch{stderr: log.write}, "--listen", address, "--loops", "2", "--log-level", "debug")
	awaitPort(t, address)
	d.address = address
	holder := d.dial()
	holder.Do("lock a 0", "l locked")
	for range 300 {
		bad := d.dial()
		bad.Write([]byte("nonsense\r\n"))
		bad.ExpectEnd()
		bad.Close()
	}
	holder.Do("unlock a", "u unlocked")
	d.alive()
	d.stop()
}
