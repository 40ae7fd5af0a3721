package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
)

// adoptOrphans makes this process the parent of daemons whose own parent, which they have taken over from, has ended.
var adoptOrphans = sync.OnceValue(func() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })

// takeOver has a successor take over by a signal, and returns it.
func (d *daemon) takeOver() *daemon {
	d.tb.Helper()
	if err := adoptOrphans(); err != nil {
		d.tb.Fatal(err)
	}
	d.signal(syscall.SIGUSR2)
	return d.successor()
}

// successor returns the daemon that takes over, and waits for the end of the predecessor. It is killed at the end of the test.
func (d *daemon) successor() *daemon {
	d.tb.Helper()
	pid := fmt.Sprint(d.cmd.Process.Pid)
	line, ok := d.log.awaitLine(func(line logLine) bool {
		return line["message"] == "dreadlock has taken over" && line.text("from_pid") == pid
	})
	if !ok {
		d.tb.Fatalf("nobody takes over; log:\n%s", d.log)
	}
	select {
	case <-d.ended:
	case <-time.After(prototest.Patience):
		d.tb.Fatalf("the predecessor does not end; log:\n%s", d.log)
	}
	if d.state.ExitCode() != 0 {
		d.tb.Errorf("the predecessor has ended with %v; log:\n%s", d.state, d.log)
	}
	process, err := os.FindProcess(int(line["pid"].(float64)))
	if err != nil {
		d.tb.Fatal(err)
	}
	s := &daemon{tb: d.tb, cmd: &exec.Cmd{Process: process}, address: d.address, log: d.log, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.state, _ = process.Wait()
	}()
	d.tb.Cleanup(func() {
		_ = process.Kill()
		<-s.ended
	})
	return s
}

// serveOn fails the test unless the daemon refuses a takeover for a reason with all of the texts.
func (d *daemon) serveOn(says ...string) {
	d.tb.Helper()
	if _, ok := d.log.awaitLine(func(line logLine) bool {
		if line["message"] != "no takeover: this process serves on" {
			return false
		}
		for _, part := range says {
			if !strings.Contains(line.text("reason"), part) {
				return false
			}
		}
		return true
	}); !ok {
		d.tb.Fatalf("no line with %q; log:\n%s", says, d.log)
	}
}

// startAt runs the daemon from a path of its own, at which something else can be put: see replace.
func startAt(tb testing.TB, l launch, args ...string) (d *daemon, path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "dreadlock")
	if err := os.Symlink(binary, path); err != nil {
		tb.Fatal(err)
	}
	l.program = path
	return startWith(tb, l, append([]string{"--loops", "2", "--listen", "127.0.0.1:0"}, args...)...), path
}

// replace puts a script at a path; {} stands for the daemon.
func replace(tb testing.TB, path, script string) {
	tb.Helper()
	next := path + ".next"
	text := "#!/bin/sh\n" + strings.ReplaceAll(script, "{}", binary) + "\n"
	if err := os.WriteFile(next, []byte(text), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		tb.Fatal(err)
	}
}
