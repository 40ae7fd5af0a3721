package deploy_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dreadlock/proto/prototest"
)

// machine is a folder that packages take for a machine: it has a shell, and a systemctl that only writes down how it was called.
type machine struct {
	t      *testing.T
	dir    string
	before []string // all that was there before anything was installed
}

// systemctl is that program. With it goes a folder that says that systemd runs.
const systemctl = `#!/bin/sh
echo "$*" >>/systemctl.log
`

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	for _, dir := range []string{"bin", "usr/bin", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write("var/lib/dpkg/status", "", 0o644)
	m.write("usr/bin/systemctl", systemctl, 0o755)
	m.write("systemctl.log", "", 0o644)
	m.write("dev/null", "", 0o666)
	m.copyProgram("/bin/sh", "bin/sh")
	m.before = m.everything()
	return m
}

// copyProgram copies a program and the libraries that it needs.
func (m *machine) copyProgram(from, to string) {
	m.t.Helper()
	m.write(to, read(m.t, from), 0o755)
	for _, library := range regexp.MustCompile(`/\S+`).FindAllString(run(m.t, "ldd", from), -1) {
		m.write(strings.TrimPrefix(library, "/"), read(m.t, library), 0o755)
	}
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// boot lets systemd run from now on.
func (m *machine) boot() {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Join(m.dir, "run/systemd/system"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.before = m.everything()
}

// everything returns all paths of the machine but those of dpkg itself.
func (m *machine) everything() (all []string) {
	m.t.Helper()
	err := filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		if path = strings.TrimPrefix(path, m.dir); !strings.HasPrefix(path, "/var/lib/dpkg") {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// dpkg runs dpkg for the machine, and returns how systemctl was called meanwhile.
func (m *machine) dpkg(args ...string) (calls string) {
	m.t.Helper()
	return m.calls(func() {
		run(m.t, "dpkg", append([]string{"--root=" + m.dir, "--log=/dev/null", "--force-unsafe-io", "--force-confold"}, args...)...)
	})
}

// calls returns how systemctl is called by what is done, a line for each call.
func (m *machine) calls(do func()) string {
	m.t.Helper()
	m.write("systemctl.log", "", 0o644)
	do()
	return read(m.t, filepath.Join(m.dir, "systemctl.log"))
}

// command returns a command that runs on the machine.
func (m *machine) command(name string, args ...string) *exec.Cmd {
	command := exec.Command(name, args...)
	command.Path, command.Err = name, nil
	command.Dir = "/"
	command.Env = []string{"PATH=/usr/bin:/bin"}
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: m.dir}
	return command
}

// run runs a command on the machine that must succeed, and returns its output.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	command := m.command(name, args...)
	output, err := command.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %v\n%s", command, err, output)
	}
	return string(output)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s calls systemctl\n%swant\n%s", what, got, want)
	}
}

// The package for Debian is installed, used, upgraded and removed. An upgrade reloads the daemon, and does not restart it, which
// would lose the locks; what an operator has written stays until the package is purged.
func checkDeb(t *testing.T, dir string) {
	if _, err := exec.LookPath("dpkg"); err != nil || os.Getuid() != 0 {
		t.Skip("the package for Debian is NOT tested: that needs root and dpkg")
	}
	deb := one(t, dir, "dreadlock_*_"+runtime.GOARCH+".deb")

	m := newMachine(t)
	expect(t, "an installation where systemd does not run", m.dpkg("-i", deb), "")
	use(t, m)
	expect(t, "its removal", m.dpkg("-P", "dreadlock"), "--no-reload disable dreadlock.socket dreadlock.service\n")
	nothingLeft(t, m)

	m.boot()
	expect(t, "an installation", m.dpkg("-i", deb), "daemon-reload\n")
	const options = "/etc/default/dreadlock"
	m.write(options, "DREADLOCK_DRAIN=30s\n", 0o644)
	expect(t, "an upgrade", m.dpkg("-i", newer(t, deb)), "daemon-reload\ntry-reload-or-restart dreadlock.service\n")
	if got := read(t, filepath.Join(m.dir, options)); got != "DREADLOCK_DRAIN=30s\n" {
		t.Errorf("after the upgrade the options are %q", got)
	}
	expect(t, "a removal", m.dpkg("-r", "dreadlock"), "--no-reload disable --now dreadlock.socket dreadlock.service\ndaemon-reload\n")
	left := slices.DeleteFunc(m.everything(), func(path string) bool { return slices.Contains(m.before, path) })
	if want := []string{"/etc", "/etc/default", options}; !slices.Equal(left, want) {
		t.Errorf("after the removal there are %q, want %q", left, want)
	}
	m.dpkg("-P", "dreadlock")
	nothingLeft(t, m)

	m.write("usr/bin/systemctl", systemctl+"case $1 in try-*) exit 1 ;; esac\n", 0o755)
	m.dpkg("-i", deb)
	m.dpkg("-i", newer(t, deb)) // succeeds where the daemon cannot be reloaded
}

// newer returns the same package with the next version.
func newer(t *testing.T, deb string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "next")
	run(t, "dpkg-deb", "-R", deb, dir)
	control := filepath.Join(dir, "DEBIAN", "control")
	text := regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAllString(read(t, control), "Version: 9999.0")
	if err := os.WriteFile(control, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "dpkg-deb", "-Znone", "-b", dir)
	return dir + ".deb"
}

// nothingLeft expects the machine as it was before.
func nothingLeft(t *testing.T, m *machine) {
	t.Helper()
	if left := m.everything(); !slices.Equal(left, m.before) {
		t.Errorf("after the removal there is\n%q\nand there was\n%q", left, m.before)
	}
}

// use runs the programs of the package on the machine: a daemon, a lock around a command, a health check.
func use(t *testing.T, m *machine) {
	t.Helper()
	const server, admin = "unix:///tmp/lock.sock", "unix:///tmp/admin.sock"
	daemon := m.command("/usr/bin/dreadlock", "--listen", server)
	daemon.Env = append(daemon.Env, "RUNTIME_DIRECTORY=/tmp")
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- daemon.Wait() }()
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		if err := <-stopped; err != nil {
			t.Errorf("the daemon: %v\n%s", err, log.String())
		}
	}()
	// It waits until the daemon is there.
	const ctl = "/usr/bin/dreadlockctl"
	patience := strconv.Itoa(int(prototest.Patience.Seconds()))
	got := m.run(ctl, "lock", "nightly", "--server", server, "--wait", patience, "--", ctl, "waiters", "nightly", "--admin", admin)
	if !strings.Contains(got, "nightly is held by connection") {
		t.Errorf("%s", got)
	}
	if got := m.run(ctl, "health", "--ready", "--admin", admin); got != "ok\n" {
		t.Errorf("%q", got)
	}
}

// The package for Fedora and its like has the same files, and its scripts do the same when rpm calls them.
func checkRPM(t *testing.T, dir string) {
	for _, arch := range []string{"x86_64", "aarch64"} {
		const magic = "\xed\xab\xee\xdb"
		if got := read(t, one(t, dir, "dreadlock-*."+arch+".rpm"))[:len(magic)]; got != magic {
			t.Errorf("%s: it begins with %x", arch, got)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("the scripts of the package are NOT tested: that needs root")
	}
	m := newMachine(t)
	m.boot()
	for _, c := range []struct{ script, versions, calls string }{
		{"postinstall.sh", "1", "daemon-reload\n"},
		{"postinstall.sh", "2", "daemon-reload\ntry-reload-or-restart dreadlock.service\n"},
		{"preremove.sh", "1", ""},
		{"preremove.sh", "0", "--no-reload disable --now dreadlock.socket dreadlock.service\n"},
		{"postremove.sh", "1", ""},
		{"postremove.sh", "0", "daemon-reload\n"},
	} {
		m.write("tmp/script", read(t, filepath.Join("package", c.script)), 0o755)
		expect(t, c.script+" "+c.versions, m.calls(func() { m.run("/tmp/script", c.versions) }), c.calls)
	}
}
