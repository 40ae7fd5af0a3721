package main

import (
	"net"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// Every option is taken from the command line, else from the environment, else it has its default.
func TestOptions(t *testing.T) {
	for _, o := range []struct {
		flag, env         string
		field             string // of the log line "dreadlock is ready"
		byFlag, byEnv     string
		flagSays, envSays string
		otherwise         string
	}{
		{"--loops", "DREADLOCK_LOOPS", "loops", "3", "4", "3", "4", strconv.Itoa(server.DefaultConfig().Loops)},
		{"--max-connections", "DREADLOCK_MAX_CONNECTIONS", "max_connections", "11", "12", "11", "12", ""},
		{"--max-connections-per-address", "DREADLOCK_MAX_CONNECTIONS_PER_ADDRESS", "max_connections_per_address", "5", "6", "5", "6", "0"},
		{"--idle-timeout", "DREADLOCK_IDLE_TIMEOUT", "idle_timeout", "1m", "2s", "1m0s", "2s", "0s"},
		{"--max-pipeline", "DREADLOCK_MAX_PIPELINE", "max_pipeline", "4KiB", "100", "4096", "100", "262144"},
		{"--max-output", "DREADLOCK_MAX_OUTPUT", "max_output", "1MB", "77", "1e+06", "77", "262144"},
		{"--max-keys", "DREADLOCK_MAX_KEYS", "max_keys", "7", "8", "7", "8", "100000"},
		{"--max-key-bytes", "DREADLOCK_MAX_KEY_BYTES", "max_key_bytes", "4KiB", "1000", "4096", "1000", "1.6777216e+07"},
		{"--max-memory", "DREADLOCK_MAX_MEMORY", "max_memory", "8MB", "5000000", "8e+06", "5e+06", ""},
		{"--keepalive", "DREADLOCK_KEEPALIVE", "keepalive", "1m", "2s", "1m0s", "2s", "30s"},
		{"--tick", "DREADLOCK_TICK", "tick", "1ms", "100ms", "1ms", "100ms", "5ms"},
		{"--events", "DREADLOCK_EVENTS", "events", "0", "50", "0", "50", "10000"},
		{"--lock-delay", "DREADLOCK_LOCK_DELAY", "lock_delay", "15s", "1m", "15s", "1m0s", "0s"},
		{"--listen", "DREADLOCK_LISTEN", "address", "127.0.0.2:0", "127.0.0.3:0", "127.0.0.2:", "127.0.0.3:", ""},
	} {
		t.Run(o.field, func(t *testing.T) {
			check := func(source, want string, l launch, args ...string) {
				t.Helper()
				if o.flag != "--listen" {
					args = append(args, "--listen", "127.0.0.1:0")
				}
				d := startWith(t, l, args...)
				got := d.ready.text(o.field)
				if o.flag == "--listen" {
					got = strings.TrimRight(got, "0123456789")
				}
				if got != want {
					t.Errorf("%s: %s, want %s", source, got, want)
				}
			}
			env := launch{env: []string{o.env + "=" + o.byEnv}}
			check("flag", o.flagSays, launch{}, o.flag, o.byFlag)
			check("environment", o.envSays, env)
			check("both", o.flagSays, env, o.flag, o.byFlag)
			if o.otherwise != "" {
				check("default", o.otherwise, launch{})
			}
		})
	}
}

// variables returns the names of all environment variables of the daemon's options.
func variables() (names []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[options]()) {
		if name := field.Tag.Get("env"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// A variable that is empty counts as not set, whatever its option is, and white space around a value is not part of it.
func TestBlankVariables(t *testing.T) {
	defaults := startWith(t, launch{}, "--listen", "127.0.0.1:0")
	for _, blank := range []string{"", " ", "\r", " \t\r\n"} {
		var l launch
		for _, name := range variables() {
			l.env = append(l.env, name+"="+blank)
		}
		d := startWith(t, l, "--listen", "127.0.0.1:0")
		for name := range defaults.ready {
			if name == "time" || name == "address" || name == "listen" {
				continue
			}
			if got, want := d.ready.text(name), defaults.ready.text(name); got != want {
				t.Errorf("all variables are %q: %s is %s, want %s", blank, name, got, want)
			}
		}
		if _, ok := d.log.await("admin is ready"); !ok {
			t.Errorf("all variables are %q: there is no admin interface", blank)
		}
		d.stop()
	}
	d := startWith(t, launch{env: []string{
		"DREADLOCK_LISTEN=127.0.0.1:0\r", "DREADLOCK_LOOPS= 3 ", "DREADLOCK_TICK=7ms\r", "DREADLOCK_MAX_PIPELINE=1KiB\r\n",
		"DREADLOCK_LOG_FORMAT=json\r", "DREADLOCK_PPROF=true\r", "DREADLOCK_MAX_CONNECTIONS=\t9",
	}})
	for name, want := range map[string]string{"loops": "3", "tick": "7ms", "max_pipeline": "1024", "max_connections": "9"} {
		if got := d.ready.text(name); got != want {
			t.Errorf("with white space: %s is %s, want %s", name, got, want)
		}
	}
}

// The port argument is an address too, and takes precedence over the environment.
func TestPortArgument(t *testing.T) {
	d := startWith(t, launch{env: []string{"DREADLOCK_LISTEN=127.0.0.3:0"}}, "0")
	if !strings.HasPrefix(d.address, ":") && !strings.HasPrefix(d.address, "[::]:") {
		t.Errorf("it listens on %s, want all addresses", d.address)
	}
	got := run(t, launch{}, "0", "--listen", "127.0.0.1:0")
	if got.status != 2 || !oneLine(got.stderr, "--listen 127.0.0.1:0") {
		t.Errorf("a port and --listen: %+v", got)
	}
}

// The default port is that of the protocol.
func TestDefaultPort(t *testing.T) {
	if probe, err := net.Listen("tcp", ":6001"); err != nil {
		t.Skipf("the port is in use here: %v", err)
	} else if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	d := spawn(t, launch{})
	if _, ok := d.log.await("dreadlock is ready"); !ok {
		if strings.Contains(d.log.String(), "address already in use") {
			t.Skip("somebody has taken the port meanwhile")
		}
		t.Fatalf("it is not ready; log:\n%s", d.log)
	}
	d.address = "127.0.0.1:6001"
	d.alive()
}

func TestLogOptions(t *testing.T) {
	address := freeAddress(t) // at this level the log does not say where it listens
	for _, l := range []launch{{env: []string{"DREADLOCK_LOG_LEVEL=error"}}, {env: []string{"DREADLOCK_LOG_LEVEL=debug"}}} {
		args := []string{"--listen", address}
		if l.env[0] == "DREADLOCK_LOG_LEVEL=debug" {
			args = append(args, "--log-level", "error")
		}
		d := spawn(t, l, args...)
		d.address = address
		awaitPort(t, address)
		d.alive()
		d.stop()
		if log := d.log.String(); log != "" {
			t.Errorf("%q logs at level error: %s", l.env, log)
		}
	}

	console := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) INF dreadlock is ready .*address=127\.0\.0\.1:\d+.*$`)
	for _, l := range []launch{{env: []string{"DREADLOCK_LOG_FORMAT=console"}}, {env: []string{"DREADLOCK_LOG_FORMAT=json"}}} {
		args := []string{"--listen", address}
		if l.env[0] == "DREADLOCK_LOG_FORMAT=json" {
			args = append(args, "--log-format", "console")
		}
		d := spawn(t, l, args...)
		d.log.awaitText(t, "\n")
		if log := d.log.String(); !console.MatchString(log) {
			t.Errorf("no console log: %q", log)
		}
		d.stop()
	}
	debug := start(t, "--log-level", "debug", "--log-format", "json")
	debug.log.awaitText(t, `"level":"debug"`)
}

// awaitPort waits until somebody listens.
func awaitPort(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // there is nothing to wait for but the port itself
	}
}

// Bad options: one line that names the option and says where help is, exit status 2, nothing else.
func TestBadOptions(t *testing.T) {
	for _, c := range []struct {
		names string // in the line
		env   string
		args  []string
	}{
		{"--loops", "", []string{"--loops", "x"}},
		{"--loops 0", "", []string{"--loops", "0"}},
		{"--loops 257", "", []string{"--loops", "257"}},
		{"DREADLOCK_LOOPS", "DREADLOCK_LOOPS=many", nil},
		{"--loops 0", "DREADLOCK_LOOPS=0", nil},
		{"--max-connections -1", "", []string{"--max-connections=-1"}},
		{"--max-connections-per-address -1", "", []string{"--max-connections-per-address=-1"}},
		{"--idle-timeout 10ms", "", []string{"--idle-timeout", "10ms"}},
		{"--idle-timeout", "DREADLOCK_IDLE_TIMEOUT=60", nil},
		{"--max-pipeline", "", []string{"--max-pipeline", "much"}},
		{"--max-pipeline 0", "", []string{"--max-pipeline", "0"}},
		{"--max-pipeline", "", []string{"--max-pipeline=-1"}},
		{"--max-output", "", []string{"--max-output", "2TiB"}},
		{"--max-output 0", "", []string{"--max-output", "0"}},
		{"--max-output 2147483648", "", []string{"--max-output", "2GiB"}},
		{"--max-keys 0", "", []string{"--max-keys", "0"}},
		{"--max-key-bytes 143", "DREADLOCK_MAX_KEY_BYTES=143", nil},
		{"--max-memory 1048576", "", []string{"--max-memory", "1MiB"}},
		{"--max-memory", "DREADLOCK_MAX_MEMORY=half", nil},
		{"--keepalive", "", []string{"--keepalive", "30"}},
		{"--keepalive 500ms", "", []string{"--keepalive", "500ms"}},
		{"--keepalive 1.5s", "", []string{"--keepalive", "1500ms"}},
		{"--keepalive 0s", "DREADLOCK_KEEPALIVE=0s", nil},
		{"--tick 0s", "", []string{"--tick", "0s"}},
		{"--tick 1s", "", []string{"--tick", "1s"}},
		{"--tick -5ms", "", []string{"--tick=-5ms"}},
		{"--log-events", "DREADLOCK_LOG_EVENTS=true", []string{"--events=0"}},
		{"--events -1", "", []string{"--events=-1"}},
		{"--events 1000001", "DREADLOCK_EVENTS=1000001", nil},
		{"--lock-delay -1s", "", []string{"--lock-delay=-1s"}},
		{"--lock-delay 1h0m1s", "DREADLOCK_LOCK_DELAY=3601s", nil},
		{"--lock-delay", "", []string{"--lock-delay", "15"}},
		{"--drain -1s", "", []string{"--drain=-1s"}},
		{"--drain 25h0m0s", "DREADLOCK_DRAIN=25h", nil},
		{"--drain", "", []string{"--drain", "30"}},
		{"--listen nonsense", "", []string{"--listen", "nonsense"}},
		{"--listen :70000", "", []string{"--listen", ":70000"}},
		{"--listen :http", "", []string{"--listen", ":http"}},
		{"--listen :-1", "", []string{"--listen", ":-1"}},
		{"--listen 127.0.0.1", "DREADLOCK_LISTEN=127.0.0.1", nil},
		{"--listen :http", "DREADLOCK_LISTEN=:0 :http", nil},
		{"--listen :1?alow=::1", "", []string{"--listen", ":0", "--listen", ":1?alow=::1"}},
		{"--listen tls://:0: TLS needs --tls-cert and --tls-key", "", []string{"--listen", "tls://:0"}},
		{"--tls-cert: open /nonexistent", "", []string{"--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"}},
		{"--tls-key is missing", "DREADLOCK_LISTEN_TLS_CERT=cert.pem", nil},
		{"--tls-cert is missing", "", []string{"--tls-client-ca", "ca.pem"}},
		{"--log-level", "", []string{"--log-level", "loud"}},
		{"--log-format", "", []string{"--log-format", "xml"}},
		{"--nonsense", "", []string{"--nonsense"}},
		{"port 70000: want 0 to 65535", "", []string{"70000"}},
		{"http", "", []string{"http"}},
		{"6002", "", []string{"6001", "6002"}},
	} {
		var l launch
		if c.env != "" {
			l.env = []string{c.env}
		}
		got := run(t, l, c.args...)
		if got.status != 2 || got.stdout != "" || !oneLine(got.stderr, c.names) || !oneLine(got.stderr, "--help") ||
			strings.Contains(got.stderr, "bad option: ") {
			t.Errorf("%q %q: status %d, %q, %q, want 2 and one line with %q", c.env, c.args, got.status, got.stdout, got.stderr, c.names)
		}
	}
}

// oneLine reports whether the text is one line of the daemon that contains a part.
func oneLine(text, part string) bool {
	return strings.HasPrefix(text, "dreadlock: ") && strings.Count(text, "\n") == 1 &&
		strings.HasSuffix(text, "\n") && strings.Contains(text, part)
}

// Help lists every option with its flag and its variable.
func TestHelp(t *testing.T) {
	got := run(t, launch{}, "--help")
	if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, "Usage: dreadlock [<port>]") {
		t.Errorf("%+v", got)
	}
	inner := regexp.MustCompile(`([a-z])([A-Z])`)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[options]()) {
		if field.Name == "Port" || field.Name == "Man" || field.Anonymous || !field.IsExported() {
			continue
		}
		flag := "--" + strings.ToLower(inner.ReplaceAllString(field.Name, "$1-$2"))
		if name := field.Tag.Get("name"); name != "" {
			flag = "--" + name
		}
		env := "$" + field.Tag.Get("env")
		want := "$DREADLOCK_" + strings.ToUpper(strings.ReplaceAll(flag[2:], "-", "_"))
		switch field.Name {
		case "Version":
			want, env = "", ""
		case "Admin": // what the rule gives is for dreadlockctl, here and below
			want = "$DREADLOCK_ADMIN_LISTEN"
		case "TLSCert", "TLSKey", "TLSClientCA":
			want = strings.Replace(want, "TLS", "LISTEN_TLS", 1)
		}
		if env != want {
			t.Errorf("the variable of %s is %s, want %s", flag, env, want)
		}
		if !strings.Contains(got.stdout, flag) || !strings.Contains(got.stdout, env) {
			t.Errorf("help does not mention %s or %s", flag, env)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile(`(?m)^\| (SIG[A-Z0-9, SIG]+) \|`).FindAllSubmatch(readme, -1) {
		for _, signal := range strings.Split(string(row[1]), ", ") {
			if !strings.Contains(got.stdout, signal) {
				t.Errorf("help does not mention %s, which README.md does", signal)
			}
		}
	}
}

// The manual page has every option, and is the same on every machine.
func TestMan(t *testing.T) {
	got := run(t, launch{}, "--man")
	if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, ".TH DREADLOCK 8 ") {
		t.Fatalf("%+v", got)
	}
	for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(run(t, launch{}, "--help").stdout, -1) {
		if !strings.Contains(got.stdout, strings.ReplaceAll(flag, "-", `\-`)) {
			t.Errorf("%s is missing", flag)
		}
	}
	if !strings.Contains(got.stdout, "(2 where there are two)") {
		t.Error("the number of processors of this machine is in it")
	}
}

func TestVersion(t *testing.T) {
	got := run(t, launch{}, "--version")
	format := regexp.MustCompile(`^dreadlock \S+, commit [0-9a-z]+( of \S+)?( with changes)?, go1\.\d+\S* linux/` + runtime.GOARCH + "\n$")
	if got.status != 0 || got.stderr != "" || !format.MatchString(got.stdout) {
		t.Errorf("%+v", got)
	}
}
