package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"dreadlock/bench"
)

// asProgram makes the test program be the program.
const asProgram = "DREADLOCK_BENCH_TEST_MAIN"

// daemonProgram is the daemon, built from the checkout for all tests.
var daemonProgram string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dreadlock-bench-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// A program with the race detector sleeps for a second before it exits, and this one runs itself many times.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	daemonProgram = filepath.Join(dir, "dreadlock")
	if out, err := exec.Command("go", "build", "-o", daemonProgram, "dreadlock/cmd/dreadlock").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the daemon: %v\n%s", err, out))
	}
	return m.Run()
}

// outcome is how a run of the program ended.
type outcome struct {
	status         int
	stdout, stderr string
}

// run runs the program. The echo servers that it starts are the test program, too.
func run(t *testing.T, args ...string) outcome {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// measure runs the program and expects it to succeed.
func measure(t *testing.T, args ...string) outcome {
	t.Helper()
	o := run(t, append(args, "--daemon", daemonProgram, "--window", "100ms", "--warmup", "20ms")...)
	if o.status != 0 {
		t.Fatalf("%q: status %d: %s", args, o.status, o.stderr)
	}
	return o
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, want := range parts {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestHelp(t *testing.T) {
	contains(t, run(t, "--help").stdout, "run <workload>", "compare [<workload>]", "--version", "exit status 1")
	for command, options := range map[string]any{"run": runCommand{}, "compare": compareCommand{}, "profile": profileCommand{}} {
		o := run(t, command, "--help")
		if o.status != 0 {
			t.Errorf("status %d", o.status)
		}
		contains(t, o.stdout, kinds())
		contains(t, o.stdout, flags(t, options)...)
	}
	if help := run(t, "--help").stdout; strings.Contains(help, "peer") {
		t.Errorf("the help lists an internal command:\n%s", help)
	}
}

// flags returns the flags that a command declares.
func flags(t *testing.T, command any) (all []string) {
	t.Helper()
	value := reflect.New(reflect.TypeOf(command))
	parser, err := kong.New(value.Interface(), kong.Vars{"kinds": kinds(), "window": "1s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range parser.Model.Flags {
		all = append(all, "--"+f.Name)
	}
	if len(all) < 10 {
		t.Fatalf("flags %q", all)
	}
	return all
}

func TestVersion(t *testing.T) {
	if o := run(t, "--version"); o.status != 0 || !strings.HasPrefix(o.stdout, "dreadlock-bench ") {
		t.Errorf("%+v", o)
	}
}

// Bad usage is reported in one line, before anything is started.
func TestBadUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "expected one of"},
		{"run", "workload"},
		{"run nothing", "nothing"},
		{"compare nothing", "unknown kind"},
		{"run uncontended --unknown", "--unknown"},
		{"run uncontended --connections x", "--connections"},
		{"run uncontended --connections -1", "connections"},
		{"run uncontended --window 0s", "window"},
		{"run uncontended --window 5", "--window"},
		{"run contended --zipf 0.5", "zipf"},
		{"run pipelined --pairs 1000", "pairs"},
		{"run waiters --connections 10 --queue 100", "queue"},
		{"run waiters --rate 5", "open loop"},
		{"run uncontended --rate=1,-2", "rate"},
		{"run timeouts --share 2", "share"},
		{"run uncontended --on nobody", "nobody"},
		{"run uncontended --on redis:2", "one loop"},
		{"run uncontended --on http://localhost:1", "dreadlock://"},
		{"run uncontended --on redis://localhost", "port"},
		{"run uncontended --on redis://localhost:70000", "the port must be a number from 1 to 65535"},
		{"run uncontended --daemon /missing", "/missing"},
		{"run waiters --on gnet", "queue"},
		{"compare waiters --peers gnet,redis", "none of the servers"},
		{"compare uncontended --peers gnet:0", "loops"},
		{"compare uncontended --rounds 0", "rounds"},
		{"compare --scale 0", "scale"},
		{"compare --variant gnet=--tick=1ms", "NAME=COMMAND"},
		{"compare uncontended --variant old=/missing", "/missing"},
		{"profile nothing", "nothing"},
		{"profile waiters", "no window in which the load is the same all the time"},
		{"profile --on redis", "only a daemon that is started here"},
		{"profile --on dreadlock://localhost:6001", "only a daemon that is started here"},
		{"profile --rate 5,6", "one rate"},
		{"faults nonsense", "no such case: nonsense: want one of vanish-1s"},
		{"faults fleet-calm", "no such case"},
		{"faults --fleet vanish-1s", "want one of fleet-calm, fleet-order, fleet-members-stop"},
		{"faults --fleet --members /missing", "/missing"},
		{"compare --variant a=--tick=1ms --variant a=--tick=2ms", "two variants have the name a"},
	} {
		o := run(t, strings.Fields(test.args)...)
		if o.status != exitUsage || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "dreadlock-bench: ") || o.stdout != "" {
			t.Errorf("%s: status %d, %q, %q", test.args, o.status, o.stdout, o.stderr)
		}
		contains(t, o.stderr, test.want)
	}
}

func TestUnreachable(t *testing.T) {
	address := boundAddress(t)
	for _, kind := range []string{"uncontended", "churn"} {
		o := run(t, "run", kind, "--on", "dreadlock://"+address)
		if o.status != exitFailed {
			t.Errorf("status %d", o.status)
		}
		contains(t, o.stderr, address, "connection refused", "is the server running?", "FAILED")
	}
}

// boundAddress returns an address that is taken, so that nobody else gets it, but on which nobody listens.
func boundAddress(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
}

func TestLyingServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Write([]byte("lies\r\n"))
				conn.Read(make([]byte, 100))
			}()
		}
	}()
	dir := filepath.Join(t.TempDir(), "report")
	o := run(t, "compare", "uncontended", "--peers", "dreadlock://"+l.Addr().String(), "--report", dir)
	if o.status != exitFailed || o.stdout != "" {
		t.Errorf("status %d, %q", o.status, o.stdout)
	}
	contains(t, o.stderr, "lies", "FAILED")
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("a report without results: %v, %v", files, err)
	}
}

func TestCompareReport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "all.json")
	o := measure(t, "compare", "uncontended", "--peers", "dreadlock:1,gnet:1", "--rounds", "2", "--rate", "1000,4000",
		"--report", filepath.Join(dir, "a", "b"), "--json", file)
	contains(t, o.stdout, "uncontended/50 at 1000/s", "uncontended/50 at 4000/s", "dreadlock:1", "gnet:1", "2 rounds of 100ms", "--rate 1000,4000")
	contains(t, o.stderr, "8/8")
	page, err := os.ReadFile(filepath.Join(dir, "a", "b", "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(page), "<svg", "open loop", "--rate 1000,4000", "dreadlock: dreadlock")
	if _, err := os.Stat(filepath.Join(dir, "a", "b", "summary.svg")); err != nil {
		t.Error(err)
	}
	var c bench.Comparison
	readJSON(t, file, &c)
	if len(c.Cells) != 4 || len(c.Cells[0].Results) != 2 || c.Versions["gnet"] == "" {
		t.Errorf("%d cells, versions %q", len(c.Cells), c.Versions)
	}
}

func TestRunReport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "all.json")
	o := measure(t, "run", "waiters", "--on", "dreadlock:1", "--connections", "200", "--queue", "50,200", "--report", dir, "--json", file, "--quiet")
	contains(t, o.stdout, "waiters/200 queue of 50", "waiters/200 queue of 200", "enqueue us")
	if o.stderr != "" {
		t.Errorf("not quiet: %s", o.stderr)
	}
	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(page), "processor time per enqueue", "waiters/200 queue of 50")
	var r runReport
	readJSON(t, file, &r)
	if len(r.Results) != 2 || r.Results[0].Workload.Queue != 50 {
		t.Errorf("%d results", len(r.Results))
	}
}

// A queue that is longer than the default number of connections raises that number.
func TestQueueRaisesConnections(t *testing.T) {
	o := loadOptions{Queue: []int{10, 5000}, Window: 1}
	all, err := o.workloads("waiters")
	if err != nil || len(all) != 2 || all[0].Connections != 5000 || all[1].Connections != 5000 {
		t.Errorf("%+v, %v", all, err)
	}
}

// A report that cannot be written is refused before anything is measured for minutes.
func TestReportCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--report", file}, {"--json", filepath.Join(file, "x.json")}} {
		o := run(t, append([]string{"compare"}, args...)...)
		if o.status != exitFailed || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %s", args, o.status, o.stderr)
		}
	}
}

func readJSON(t *testing.T, name string, value any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		t.Fatal(err)
	}
}
