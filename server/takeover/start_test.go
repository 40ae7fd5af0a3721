package takeover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// successorArgument makes this test binary the successor of the test.
const successorArgument = "take-over"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == successorArgument {
		beSuccessor()
		return
	}
	os.Exit(m.Run())
}

// beSuccessor says by the version what it was started with, and takes over.
func beSuccessor() {
	ctx := context.Background()
	p, err := Inherit(ctx)
	if err != nil || p == nil {
		fmt.Println(p, err)
		os.Exit(1)
	}
	if p.Version == "refuse" {
		p.Refuse(errors.New("as I was told"))
		os.Exit(4)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.Contains(v, "WATCHDOG") && !strings.Contains(v, "LISTEN") })
	err = p.Prepared(ctx, Prepared{Version: fmt.Sprint(os.Args, env)})
	if err == nil {
		_, _, _, err = p.Receive(ctx)
	}
	if err == nil {
		err = p.TakeOver(ctx, []byte(fmt.Sprint(os.Getppid() == p.PID)))
	}
	if err == nil {
		p.AwaitEnd(ctx, func() {})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// A real process takes over, or refuses. It has the arguments and the environment of this one, without what is for one process alone.
func TestStart(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := Command{
		Path: self, Args: []string{"name", successorArgument, "--option"},
		Env: append(os.Environ(), "WATCHDOG_PID=1", "WATCHDOG_USEC=2", "LISTEN_FDS=1", "LISTEN_PID=7", Variable+"=77"),
	}
	ctx := within(t)
	s, err := command.Start()
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := s.Greet(ctx, Hello{}, nil)
	if err != nil || prepared.Version != "[name take-over --option] [WATCHDOG_USEC=2]" {
		t.Fatalf("it was started with %+v, %v", prepared, err)
	}
	digest, err := s.HandOver(ctx, Estate{}, memory(t, ""), nil)
	if err != nil || string(digest) != "true" {
		t.Fatalf("%s, %v", digest, err)
	}
	if err := s.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	s.Leave()
	s.End()
	if state := s.child.state(); state != "exit status 0" {
		t.Errorf("the successor has ended: %s", state)
	}

	if s, err = command.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Greet(ctx, Hello{Version: "refuse"}, nil)
	says(t, err, "as I was told")
	s.End()
	if state := s.child.state(); state != "exit status 4" {
		t.Errorf("who has refused has ended: %s", state)
	}
}

// What is no successor is noticed, whether it ends, cannot be started, or hangs.
func TestStartOther(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ path, says string }{
		{filepath.Join(dir, "missing"), "missing: no such file or directory: put the new version there"},
		{dir, "permission denied: the user of the daemon must be allowed to execute it"},
		{script("nonsense", "nonsense\n"), "exec format error: it is no program for this machine, or not whole"},
		{script("ends", "#!/bin/sh\nexit 7\n"), "the new process has ended: exit status 7"},
		{script("crashes", "#!/bin/sh\nkill -9 $$\n"), "the new process has ended: signal: killed"},
		{script("leaves", "#!/bin/sh\nsleep 5 >/dev/null 2>&1 &\nexit 6\n"), "the new process has ended: exit status 6"},
	} {
		command := Command{Path: c.path, Args: []string{c.path}}
		s, err := command.Start()
		if err == nil {
			_, err = s.Greet(within(t), Hello{}, nil)
			s.End()
		}
		says(t, err, c.says)
	}
	command := Command{Path: script("hangs", "#!/bin/sh\nexec sleep 1000\n"), Args: []string{"hangs"}}
	s, err := command.Start()
	if err != nil {
		t.Fatal(err)
	}
	s.patience = lastWords
	_, err = s.Greet(shortly(t), Hello{}, nil)
	says(t, err, "does not answer in time")
	s.End()
	if state := s.child.state(); state != "signal: killed" {
		t.Errorf("it has ended: %s", state)
	}
}

// The path is that by which the program was called, with its links, so that another program is run when a link is changed. If that
// path leads elsewhere, it is that of the program itself.
func TestProgramPath(t *testing.T) {
	dir := t.TempDir()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	program, other, link := filepath.Join(dir, "program"), filepath.Join(dir, "other"), filepath.Join(dir, "link")
	for _, path := range []string{program, other} {
		if err := os.WriteFile(path, []byte(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("program", link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Chdir(dir)
	running := func() (string, error) { return program, nil }
	for name, want := range map[string]string{
		"program": program, "./program": program, program: program, "link": link, "./link": link, link: link,
		"other": program, "missing": program, "": program, "-sh": program,
	} {
		if path, err := programPath(name, running); err != nil || path != want {
			t.Errorf("%q: %q, %v, want %q", name, path, err, want)
		}
	}
	unknown := func() (string, error) { return "", exec.ErrNotFound }
	if path, err := programPath("./link", unknown); err != nil || path != link {
		t.Errorf("without /proc: %q, %v", path, err)
	}
	if _, err := programPath("missing", unknown); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("nowhere: %v", err)
	}
	if command, err := ThisCommand(); err != nil || !filepath.IsAbs(command.Path) || !slices.Equal(command.Args, os.Args) {
		t.Errorf("this program: %+v, %v", command, err)
	}
}
