package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// otherVersion is the version of the daemon that anotherBuild makes, where git is there.
const otherVersion = "v1.98.7"

// anotherBuild builds the daemon from a copy of its sources that git knows by another version, without the race detector.
func anotherBuild(t *testing.T) string {
	t.Helper()
	sources, program := t.TempDir(), filepath.Join(t.TempDir(), "dreadlock")
	for _, part := range []string{"cmd", "server", "reactor", "lockmgr", "proto"} {
		if err := os.CopyFS(filepath.Join(sources, part), os.DirFS("../../"+part)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile("../../" + file)
		if err == nil {
			err = os.WriteFile(filepath.Join(sources, file), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("git"); err == nil {
		for _, args := range [][]string{
			{"init", "-q"}, {"add", "."}, {"-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "a release"}, {"tag", otherVersion},
		} {
			inDir(t, sources, "git", args...)
		}
	}
	inDir(t, sources, "go", "build", "-buildvcs=auto", "-o", program, "./cmd/dreadlock")
	return program
}

// latestRelease builds the latest release that this repository has and that can be taken over from, and returns "" where there is none.
func latestRelease(t *testing.T) string {
	t.Helper()
	tag, err := exec.Command("git", "describe", "--tags", "--abbrev=0").Output()
	release := strings.TrimSpace(string(tag))
	if err != nil || exec.Command("git", "cat-file", "-e", release+":server/takeover/message.go").Run() != nil {
		return ""
	}
	sources, program := t.TempDir(), filepath.Join(t.TempDir(), "dreadlock")
	archive, err := exec.Command("git", "-C", "../..", "archive", release).Output()
	if err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("tar", "-x", "-C", sources)
	unpack.Stdin = bytes.NewReader(archive)
	if output, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	inDir(t, sources, "go", "build", "-buildvcs=false", "-o", program, "./cmd/dreadlock")
	return program
}

// inDir runs a command in a directory. Git has no settings of this machine.
func inDir(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, output)
	}
}

// link makes a path lead to a program.
func link(t *testing.T, path, program string) {
	t.Helper()
	next := path + ".next"
	if err := os.Symlink(program, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// ask asks the admin interface on a connection of its own, whichever process answers there. A GET is asked again if it comes to a process
// that ends.
func ask(t *testing.T, method, url string, answer any) {
	t.Helper()
	request, err := http.NewRequest(method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: prototest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	var response *http.Response
	eventually(t, method+" "+url+" is not answered", func() bool {
		response, err = client.Do(request)
		if err == nil && response.StatusCode == http.StatusServiceUnavailable {
			response.Body.Close()
			return method != http.MethodGet
		}
		return err == nil || method != http.MethodGet
	})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s, %v: %s", method, url, response.Status, err, text)
	}
}

// takeOver asks for a takeover. The process that serves then is killed at the end of the test.
func takeOver(t *testing.T, url string) (done api.Takeover) {
	t.Helper()
	ask(t, http.MethodPost, url+"/api/v1/takeover", &done)
	pidfd, err := unix.PidfdOpen(done.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_ = unix.Close(pidfd)
	})
	return done
}

// A daemon of one version hands over to one of another version, which hands over to the first again, and so on: what is at the path
// when it is asked for. Keys, queues, tokens, timeouts and half a command live through all of them.
func TestTakeoverBetweenVersions(t *testing.T) {
	others := []string{anotherBuild(t)}
	if release := latestRelease(t); release != "" {
		others = append(others, release)
	}
	path := filepath.Join(t.TempDir(), "dreadlock")
	link(t, path, binary)
	d := startWith(t, launch{program: path}, "--loops", "2", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	url := d.adminAddresses()[0]

	holder, first, second, timed, typing := d.dial(), d.dial(), d.dial(), d.dial(), d.dial()
	keys := []string{"a", "b", "c", "d", "e"} // on both loops
	for _, key := range keys {
		holder.Do("lock "+key+" 0", "l locked")
	}
	holder.Send("fence a", "name holder")
	token := reply(t, holder)
	named := reply(t, holder)
	waiting := func(n int) func() bool {
		return func() bool {
			var status api.Status
			ask(t, http.MethodGet, url+"/api/v1/status", &status)
			return status.Waiters == n
		}
	}
	for i, c := range []*prototest.Client{first, second} {
		c.Send("lock a 3600000", "fence a")
		eventually(t, "a client does not wait", waiting(i+1))
	}
	const timeout = 2 * time.Second
	began := time.Now()
	timed.Send("lock b 2000")
	eventually(t, "a client does not wait", waiting(3))
	typing.Write([]byte("lock typ"))

	programs := []string{binary}
	for _, other := range others {
		programs = append(programs, other, binary)
	}
	process := d.cmd.Process.Pid
	for n, program := range programs[1:] {
		link(t, path, program)
		done := takeOver(t, url)
		if done.FromPID != process || done.PID == process || done.Count != uint64(n+1) || done.HeldKeys != len(keys) || done.Closed != 0 {
			t.Fatalf("takeover %d: %+v", n+1, done)
		}
		process = done.PID
		var status api.Status
		ask(t, http.MethodGet, url+"/api/v1/status", &status)
		if status.PID != process || (status.Version == otherVersion) != (program == others[0]) && hasGit() {
			t.Errorf("process %d of version %s serves, want %d", status.PID, status.Version, process)
		}
		for _, key := range keys {
			holder.Do("lock "+key+" 0", "e already locked")
		}
		holder.Send("fence a", "name holder")
		if got := reply(t, holder); got != token {
			t.Errorf("the token was %q, and is %q", token, got)
		}
		if got := reply(t, holder); got != named {
			t.Errorf("a name was answered %q, and is answered %q", named, got)
		}
		newcomer := d.dial()
		newcomer.Do("lock a 0", "t timeout")
		newcomer.Do("lock free 0", "l locked")
		newcomer.Close()
	}
	timed.Expect("t timeout")
	if took := time.Since(began); took < timeout {
		t.Errorf("a wait of %s timed out after %s", timeout, took)
	}
	typing.Write([]byte("ed 0\r\n"))
	typing.Expect("l locked")
	holder.Do("unlock a", "u unlocked")
	last := token
	for _, c := range []*prototest.Client{first, second} {
		c.Expect("l locked")
		next := reply(t, c)
		if len(next) < len(last) || len(next) == len(last) && next <= last {
			t.Errorf("the token %q comes after %q", next, last)
		}
		last = next
		c.Do("unlock a", "u unlocked")
	}
	if err := syscall.Kill(process, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.log.awaitEnd()
	if strings.Contains(d.log.String(), "DATA RACE") {
		t.Errorf("data race: %s", d.log)
	}
}

func hasGit() bool {
	_, err := exec.LookPath("git")
	return err == nil
}

func reply(t *testing.T, c *prototest.Client) string {
	t.Helper()
	got, err := c.ReadReply()
	if err != nil {
		t.Fatal(err)
	}
	return got
}
