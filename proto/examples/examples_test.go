package examples

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dreadlock/bench"
	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// snippet is one of the files.
type snippet struct {
	file    string
	command string // that README names: it runs the file, or makes the program lock of it

	// For those that are made into a program by the tests: how, and what runs it. DIR is where it is.
	build, run string

	once  sync.Once // guards what follows
	ready []string  // the command that runs it
	err   error     // what it needs is not installed
}

var snippets = []*snippet{
	{file: "lock.py", command: "python3 lock.py"},
	{file: "lock.mjs", command: "node lock.mjs"},
	{file: "lock.php", command: "php lock.php"},
	{file: "lock.rb", command: "ruby lock.rb"},
	{file: "lock.bash", command: "bash lock.bash"},
	{file: "Lock.java", command: "java Lock.java", build: "javac -d DIR Lock.java", run: "java -XX:TieredStopAtLevel=1 -cp DIR Lock"},
	{file: "lock.c", command: "cc -pthread -o lock lock.c", build: "cc -Wall -Wextra -Werror -pthread -o DIR/lock lock.c", run: "DIR/lock"},
}

// directory is where programs are made, and the daemon; peers starts that.
var (
	directory string
	peers     bench.Peers
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if directory, err = os.MkdirTemp("", "examples"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(directory)
		defer peers.Close()
		if _, err := peers.Program(context.Background()); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// maxLines is what a snippet has at most, so that it can be read at a glance.
const maxLines = 40

// Every file is short, says how it is run, and is in the table of README with its command.
func TestFiles(t *testing.T) {
	readme := read(t, "README.md")
	var files []string
	for _, s := range snippets {
		files = append(files, s.file)
		text := read(t, s.file)
		if n := strings.Count(text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines, want at most %d", s.file, n, maxLines)
		}
		if !strings.Contains(text, s.command) || !strings.Contains(text, " HOST PORT KEY WAIT WORK: ") {
			t.Errorf("%s does not say how %q is used", s.file, s.command)
		}
		if row := "| [`" + s.file + "`](" + s.file + ") | `" + s.command + "` |"; !strings.Contains(readme, row) {
			t.Errorf("README.md has no row that begins with %s", row)
		}
	}
	all, err := filepath.Glob("[Ll]ock.*")
	slices.Sort(files)
	slices.Sort(all)
	if err != nil || !slices.Equal(files, all) {
		t.Errorf("tested are %q, there are %q (%v)", files, all, err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// key returns a key for the tests of a snippet.
func (s *snippet) key() string { return strings.TrimPrefix(filepath.Ext(s.file), ".") }

// prepare returns the command that runs the snippet, without its arguments. The test is skipped if what it needs is not installed.
func (s *snippet) prepare(t *testing.T) []string {
	t.Helper()
	s.once.Do(func() {
		at := func(command string) []string { return strings.Fields(strings.ReplaceAll(command, "DIR", directory)) }
		if s.build == "" {
			s.ready = at(s.command)
			_, s.err = exec.LookPath(s.ready[0])
			return
		}
		build := at(s.build)
		s.ready = at(s.run)
		if _, s.err = exec.LookPath(build[0]); s.err != nil {
			return
		}
		if output, err := exec.Command(build[0], build[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", build, err, output)
		}
	})
	if s.err != nil {
		t.Skip(s.err)
	}
	return s.ready
}

// forEach runs a test for each snippet at the same time.
func forEach(t *testing.T, test func(t *testing.T, s *snippet, command []string)) {
	t.Helper()
	for _, s := range snippets {
		t.Run(s.file, func(t *testing.T) {
			t.Parallel()
			test(t, s, s.prepare(t))
		})
	}
}

// A snippet locks a free key, gives up a held one, waits for it, works for longer than some heartbeats take and gives it back. The
// tokens that it works with rise.
func TestLocks(t *testing.T) {
	d := start(t, "--keepalive", "6s") // a heartbeat every three seconds
	forEach(t, func(t *testing.T, s *snippet, command []string) {
		key, other := s.key(), prototest.Dial(t, d.address)
		run := func(wait, work int) *process { return begin(t, command, d.host, d.port, key, wait, work) }
		p := run(0, 0)
		first := p.locked(key)
		p.unlocked(key)

		other.Do("lock "+key+" 0", "l locked")
		run(50, forever).ends(notLocked, key+" is not locked: t timeout")

		p = run(600_000, 7)
		d.awaitWaiter(t, key)
		other.Do("unlock "+key, "u unlocked")
		second := p.locked(key)
		other.Send("lock " + key + " 600000")
		p.unlocked(key)
		other.Expect("l locked")

		kinds, tokens := d.history(t, key)
		want := []string{
			api.EventGranted, api.EventReleased, api.EventGranted, api.EventTimeout, api.EventReleased,
			api.EventGranted, api.EventReleased, api.EventGranted,
		}
		if !slices.Equal(kinds, want) {
			t.Errorf("the history of the key is %q, want %q", kinds, want)
		} else if tokens[0] != first || tokens[5] != second || first >= second {
			t.Errorf("it had the tokens %d and %d, want %d and %d", first, second, tokens[0], tokens[5])
		}
	})
}

// A snippet that loses its key while it works ends its work, and says so with its status.
func TestLost(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options []string
		strike  func(t *testing.T, d *daemon, cut func(), key string)
	}{
		{"daemon dies", nil, func(_ *testing.T, d *daemon, _ func(), _ string) { d.signal(syscall.SIGKILL) }},
		{"connection is cut", nil, func(_ *testing.T, _ *daemon, cut func(), _ string) { cut() }},
		{"daemon is silent", []string{"--keepalive", "1s"}, func(_ *testing.T, d *daemon, _ func(), _ string) {
			d.signal(syscall.SIGSTOP)
		}},
		{"key is taken", []string{"--keepalive", "2s"}, func(t *testing.T, d *daemon, _ func(), key string) {
			d.ask(t, http.MethodPost, "keys/"+key+"/release", &api.Release{})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			forEach(t, func(t *testing.T, s *snippet, command []string) {
				d := start(t, tc.options...)
				host, port, cut := relay(t, d.address)
				p := begin(t, command, host, port, s.key(), 0, forever)
				p.locked(s.key())
				tc.strike(t, d, cut, s.key())
				p.ends(lost, "lost "+s.key())
			})
		})
	}
}

// A snippet that waits notices that the daemon dies, and does not work.
func TestLostInQueue(t *testing.T) {
	forEach(t, func(t *testing.T, s *snippet, command []string) {
		d := start(t)
		prototest.Dial(t, d.address).Do("lock "+s.key()+" 0", "l locked")
		p := begin(t, command, d.host, d.port, s.key(), 600_000, forever)
		d.awaitWaiter(t, s.key())
		d.signal(syscall.SIGKILL)
		p.ends(notLocked, s.key()+" is not locked:")
	})
}

// A snippet that makes a syntax error, or finds no daemon, does not work.
func TestRefused(t *testing.T) {
	d := start(t)
	forEach(t, func(t *testing.T, s *snippet, command []string) {
		if s.file == "Lock.java" {
			command = strings.Fields(s.command) // as README says, and slower
		}
		begin(t, command, d.host, d.port, "not-a-key", 600_000, forever).ends(notLocked, "not-a-key is not locked:")
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(ln.Addr().String())
		ln.Close()
		p := begin(t, command, host, port, s.key(), 600_000, forever)
		if stderr := p.end(); p.cmd.ProcessState.ExitCode() <= 0 || stderr == "" {
			t.Errorf("%v ends with %v and %q where nobody listens", p.cmd, p.cmd.ProcessState, stderr)
		}
	})
}

// relay passes bytes between clients and a daemon. cut ends all connections with a reset.
func relay(t *testing.T, target string) (host, port string, cut func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []*net.TCPConn
	cut = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range open {
			conn.SetLinger(0)
			conn.Close()
		}
	}
	t.Cleanup(func() {
		ln.Close()
		cut()
	})
	pass := func(to, from *net.TCPConn) {
		io.Copy(to, from)
		to.CloseWrite()
	}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			client, daemon := near.(*net.TCPConn), far.(*net.TCPConn)
			mu.Lock()
			open = append(open, client, daemon)
			mu.Unlock()
			go pass(daemon, client)
			go pass(client, daemon)
		}
	}()
	host, port, _ = net.SplitHostPort(ln.Addr().String())
	return host, port, cut
}
