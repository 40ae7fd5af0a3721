package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// The real programs, built with the race detector. Daemons open their admin sockets in runtimeDir.
var program, daemonProgram, runtimeDir string

func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(runChild(os.Args[2:]))
	}
	os.Exit(func() int {
		restoreSignals()
		dir, err := os.MkdirTemp("", "dreadlockctl")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program, daemonProgram, runtimeDir = filepath.Join(dir, "dreadlockctl"), filepath.Join(dir, "dreadlock"), filepath.Join(dir, "run")
		// Every user may come there: one test runs it as nobody.
		if err := errors.Join(os.Mkdir(runtimeDir, 0o755), os.Chmod(dir, 0o755)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// A cached test result is used until a file changes that the test itself has read. What goes into the binaries
		// counts only if it is read here.
		for _, sources := range []string{
			".", "completion", "../..", "../dreadlock", "../../server", "../../server/fleet", "../../server/takeover", "../../server/certs", "../../server/unixsock",
			"../../reactor", "../../lockmgr", "../../proto", "../../proto/client",
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

// Invalid options are reported on one line, before any request.
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
		{"lock", "the key is missing"},
		{"lock night-ly", "letters and digits only"},
		{"lock nachtübung -- true", "letters and digits only"},
		{"lock " + strings.Repeat("x", 9_980), "at most 9,979"},
		{"lock a --", "no command after --"},
		{"lock -- true", "the key is missing before --"},
		{"lock --try -- nice -n 5 true", "the key is missing before --"},
		{"lock --wait 5s -- nice true", "the key is missing before --"},
		{"--server localhost:6001 lock -- true", "the key is missing before --"},
		{"history night-ly", "letters and digits only"},
		{"history --limit 0", "--limit 0: want at least 1"},
		{"watch --limit 1001", "--limit 1001: want 0 to 1000"},
		{"watch --connection x", "--connection"},
		{"lock a --wait 30x -- true", "--wait: \"30x\": want a duration such as 30s"},
		{"lock a -w -- true", "--wait"},
		{"lock a --wait NaN -- true", "--wait: \"NaN\""},
		{"lock a -c true -- true", "--shell and a command"},
		{"lock a -n -w 5 -- true", "--try"},
		{"lock a --wait=-1s -- true", "--wait -1s"},
		{"lock a --wait 1s --try -- true", "--try"},
		{"lock a --tyr -- true", "did you mean \"--try\""},
		{"lock a -E 256 -- true", "--conflict-exit-code 256"},
		{"lock a --grace=-1s -- true", "--grace -1s"},
		{"lock a --on-lost=nothing -- true", "--on-lost"},
		{"lock a --keepalive 0s -- true", "--keepalive 0s"},
		{"lock a --heartbeat=-1s -- true", "--heartbeat -1s"},
		{"lock a -q -v -- true", "--quiet"},
		{"lock a --name a|bä -- true", "--name"},
		{"lock a --name " + strings.Repeat("n", 129) + " -- true", "at most 128"},
		{"lock a --connect-timeout 0s -- true", "--connect-timeout 0s"},
		{"lock a --at-least=-1s -- true", "--at-least -1s"},
		{"lock a --at-least 1m", "--at-least is for a command"},
		{"lock a --restart --try -- true", "--restart"},
		{"lock a --restart --on-lost=warn -- true", "--restart"},
		{"lock a --orphans=kill -- true", "--orphans"},
		{"lock a --orphans=leave --wait-children -- true", "--wait-children"},
		{"lock a --server localhost -- true", "--server: invalid address \"localhost\": want host:port, tls://host:port or unix:///path"},
		{"lock a --server http://localhost:6001 -- true", "--server: invalid address"},
		{"lock a --server unix:///run/a.sock?mode=0660 -- true", "want unix:///run/a.sock alone"},
		{"lock a --server localhost:6001 --tls-ca ca.pem -- true", "--server localhost:6001: a connection there is not encrypted: give tls://localhost:6001"},
		{"lock a --server tls://localhost:6002 --tls-ca /missing -- true", "--tls-ca: open /missing: no such file"},
		{"lock a --server tls://localhost:6002 --tls-ca " + empty + " -- true", "want a file with certificates in PEM"},
		{"lock a --server tls://localhost:6002 --tls-cert c.pem -- true", "give the private key of the certificate with --tls-key"},
		{"lock a --server tls://localhost:6002 --tls-key k.pem -- true", "give the certificate of the key with --tls-cert"},
		{"lock a --server tls://localhost:6002 --tls-cert /missing --tls-key k.pem -- true", "--tls-cert: open /missing"},
		{"lock a --server tls://localhost:6002 --tls-cert " + empty + " --tls-key /missing -- true", "--tls-key: open /missing"},
		{"lock a --server tls://localhost:6002 --tls-cert " + empty + " --tls-key " + empty + " -- true", "want a certificate and its private key in PEM"},
		{"locks --sort size", "--sort"},
		{"locks --limit 0", "--limit 0"},
		{"locks --limit 5 --all", "--all"},
		{"locks --admin ftp://localhost", "--admin ftp://localhost: want http://HOST:PORT, https://HOST:PORT or unix:///PATH"},
		{"locks --admin http://", "--admin http://: want http://HOST:PORT"},
		{"locks --admin unix://run/a.sock", "--admin: invalid address \"unix://run/a.sock\": want unix:///path, with three slashes"},
		{"locks --admin unix:///run/a.sock?mode=0600", "want unix:///run/a.sock alone"},
		{"locks --admin https://localhost --tls-ca /missing", "--tls-ca: open /missing"},
		{"locks --server localhost", "--server: invalid address \"localhost\""},
		{"locks --admin-token-file /missing", "/missing"},
		{"locks --admin-token-file " + empty, "one line, the token"},
		{"waiters", "the key is missing"},
		{"waiters a-b", "letters and digits only"},
		{"waiters a --limit 1001", "--limit 1001"},
		{"kick", "such as 17, which dreadlockctl connections lists"},
		{"kick abc -y", "kick abc: want the number of a connection, such as 17"},
		{"kick 0 -y", "kick 0: want the number"},
		{"kick --holder-of a-b -y", "letters and digits only"},
		{"kick 5", "give --yes"},
		{"release a", "give --yes"},
		{"release a-b -y", "letters and digits only"},
		{"release a -y --connection x", "--connection"},
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

// The help of each command has examples.
func TestHelp(t *testing.T) {
	got := runs(t, "--help")
	contains(t, got.stdout, "--server=ADDR", "$DREADLOCK_SERVER", "--admin=URL", "$DREADLOCK_ADMIN", "$DREADLOCK_ADMIN_TOKEN_FILE",
		"tls://HOST:PORT", "unix:///PATH", "$DREADLOCK_TLS_CA", "$DREADLOCK_TLS_CERT", "$DREADLOCK_TLS_KEY")
	if strings.Contains(got.stdout, "__complete") {
		t.Error("it lists the hidden command")
	}
	for _, command := range []string{
		"lock", "health", "status", "locks", "waiters", "connections", "deadlocks", "kick", "release", "history", "watch", "top", "completion",
	} {
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
	contains(t, runs(t, "health", "--help").stdout, "69")
	contains(t, runs(t, "lock", "--help").stdout, "as long as it takes", "75", "69", "76", "126", "127", "128+N", "DREADLOCK_KEY")
}

// The manual page has every command that is not hidden, with its options.
func TestMan(t *testing.T) {
	got := runs(t, "--man")
	if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, ".TH DREADLOCKCTL 1 ") {
		t.Fatalf("%+v", got)
	}
	_, line, err := newParser(&streams{})
	if err != nil {
		t.Fatal(err)
	}
	all, _, _ := strings.Cut(strings.TrimSpace(runs(t, "--help").stdout), "Run \"dreadlockctl")
	_, all, _ = strings.Cut(all, "Commands:\n")
	commands := regexp.MustCompile(`(?m)^  ([a-z]+)`).FindAllStringSubmatch(all, -1)
	if want := reflect.TypeOf(*line).NumField() - 4; len(commands) != want { // less the globals, --version, --man and __complete
		t.Errorf("help has %d commands, want %d", len(commands), want)
	}
	for _, command := range commands {
		if !strings.Contains(got.stdout, `.SS \fBdreadlockctl `+command[1]+`\fR`) {
			t.Errorf("%s is missing", command[1])
		}
	}
	contains(t, got.stdout, `\fB\-\-conflict\-exit\-code\fR`, ".SH EXIT STATUS", "DREADLOCK_SERVER", "dreadlockctl lock nightly \\-\\-try")
}

func TestVersion(t *testing.T) {
	got := runs(t, "--version")
	format := regexp.MustCompile(`^dreadlockctl \S+, commit \S+( of \S+)?( with changes)?, go1\.\S+ linux/` + runtime.GOARCH + "\n$")
	if got.status != 0 || got.stderr != "" || !format.MatchString(got.stdout) {
		t.Errorf("%+v", got)
	}
}
