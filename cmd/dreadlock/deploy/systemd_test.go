package deploy_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// booted is a container in which systemd runs as on a machine. It has the programs of this one, below /usr, a network of its own, and can
// change nothing but itself.
type booted struct {
	t       *testing.T
	root    string
	nspawn  *exec.Cmd
	ended   chan struct{}
	console bytes.Buffer
	first   string // process 1, as seen from here
}

// boot starts the container and waits until systemd is ready. Where that cannot be, the test is skipped.
func boot(t *testing.T) *booted {
	t.Helper()
	for _, tool := range []string{"systemd-nspawn", "nsenter", "dpkg", "/usr/lib/systemd/systemd"} {
		if _, err := exec.LookPath(tool); err != nil || os.Getuid() != 0 {
			t.Skipf("the package is NOT tested with systemd: that needs root and %s (apt-get install systemd-container)", tool)
		}
	}
	b := &booted{t: t, root: filepath.Join(t.TempDir(), "root"), ended: make(chan struct{})}
	for _, dir := range []string{"dev", "etc/default", "packages", "proc", "root", "run", "sys", "tmp", "usr", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"} {
		if err := os.MkdirAll(filepath.Join(b.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(b.root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", "etc/group": "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts": "127.0.0.1 localhost\n", "etc/machine-id": "", "etc/os-release": "ID=test\n", "var/lib/dpkg/status": "",
	} {
		b.write(name, text)
	}
	b.nspawn = exec.Command("systemd-nspawn", "--directory="+b.root, "--overlay=/usr::/usr", fmt.Sprintf("--machine=dreadlock-%d", os.Getpid()),
		"--private-network", "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "--boot")
	b.nspawn.Stdout, b.nspawn.Stderr, b.nspawn.WaitDelay = &b.console, &b.console, prototest.Patience
	if err := b.nspawn.Start(); err != nil {
		t.Skipf("the package is NOT tested with systemd: %v", err)
	}
	go func() {
		defer close(b.ended)
		_ = b.nspawn.Wait()
	}()
	t.Cleanup(b.halt)
	for deadline := time.Now().Add(2 * prototest.Patience); ; {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", b.nspawn.Process.Pid))
		b.first = strings.TrimSpace(string(children))
		state, _ := b.command("systemctl is-system-running").Output()
		switch strings.TrimSpace(string(state)) {
		case "running", "degraded":
			return b
		}
		select {
		case <-b.ended:
			t.Skipf("the package is NOT tested with systemd, which does not boot:\n%s", b.console.String())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Skip("the package is NOT tested with systemd: it does not boot in time")
		}
	}
}

// halt ends the container without a shutdown, which would take some seconds.
func (b *booted) halt() {
	b.t.Helper()
	var first int
	if _, err := fmt.Sscan(b.first, &first); err != nil || syscall.Kill(first, syscall.SIGKILL) != nil {
		_ = b.nspawn.Process.Kill()
	}
	<-b.ended
	if b.t.Failed() {
		b.t.Logf("the console:\n%s", b.console.String())
	}
}

func (b *booted) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.root, name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// command returns a command of the shell in the container.
func (b *booted) command(script string) *exec.Cmd {
	c := exec.Command("nsenter", "--target", b.first, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "sh", "-c", script)
	c.Env, c.Dir = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"}, "/"
	return c
}

// do runs a command of the shell that must succeed, and returns its output.
func (b *booted) do(script string) string {
	b.t.Helper()
	output, err := b.command(script).CombinedOutput()
	if err != nil {
		journal, _ := b.command("journalctl --unit dreadlock --no-pager --output cat").Output()
		b.t.Fatalf("%s: %v\n%s\nthe journal:\n%s", script, err, output, journal)
	}
	return strings.TrimSpace(string(output))
}

// await waits until a command of the shell prints what is wanted.
func (b *booted) await(script string, wanted func(output string) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(prototest.Patience); ; {
		output := b.do(script)
		if wanted(output) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: still %q\nthe journal:\n%s", script, output, b.do("journalctl --unit dreadlock --no-pager --output cat"))
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (b *booted) state(unit string) string {
	return b.do("systemctl show --property ActiveState --value " + unit)
}

const mainPID = "systemctl show --property MainPID --value dreadlock.service"

// takesOver does something after which another process must be the daemon.
func (b *booted) takesOver(script string) {
	b.t.Helper()
	before := b.do(mainPID)
	b.do(script)
	b.await(mainPID, func(now string) bool { return now != before && now != "0" })
	if state := b.state("dreadlock.service"); state != "active" && state != "reloading" {
		b.t.Errorf("after %s the service is %s", script, state)
	}
}

// holder holds nightly until the end of its connection.
type holder struct {
	*booted
	command *exec.Cmd
	ended   chan struct{}
	output  bytes.Buffer
}

func (b *booted) hold() *holder {
	b.t.Helper()
	h := &holder{booted: b, command: b.command("exec dreadlockctl lock nightly -- sleep 600"), ended: make(chan struct{})}
	h.command.Stdout, h.command.Stderr = &h.output, &h.output
	if err := h.command.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		defer close(h.ended)
		_ = h.command.Wait()
	}()
	b.await("dreadlockctl locks", func(output string) bool { return strings.Contains(output, "nightly") })
	return h
}

// holds expects that the key was never lost.
func (h *holder) holds() {
	h.t.Helper()
	list := h.do("dreadlockctl locks")
	select {
	case <-h.ended:
		h.t.Fatalf("the key is lost: %s", h.output.String())
	default:
	}
	if !strings.Contains(list, "nightly") {
		h.t.Errorf("nobody holds nightly:\n%s", list)
	}
}

// lost waits for the end of the holder.
func (h *holder) lost() {
	h.t.Helper()
	select {
	case <-h.ended:
	case <-time.After(prototest.Patience):
		h.t.Fatal("the holder goes on")
	}
}

// The package does on a machine with systemd what the documents say: an installation starts nothing; a reload and an upgrade hand
// over, and a typo in the options leaves the daemon as it was; with the socket the first client starts it; a removal stops it.
func checkSystemd(t *testing.T, dir string) {
	deb := one(t, dir, "dreadlock_*_"+runtime.GOARCH+".deb")
	b := boot(t)
	b.write("packages/one.deb", read(t, deb))
	b.write("packages/two.deb", read(t, newer(t, deb)))
	b.do("dpkg --install /packages/one.deb")
	if state := b.state("dreadlock.service"); state != "inactive" {
		t.Errorf("after the installation the service is %s", state)
	}
	b.do("systemctl enable --now dreadlock.service")
	h := b.hold()

	const options = "etc/default/dreadlock"
	b.write(options, "DREADLOCK_MAX_CONNECTIONS=77\n")
	b.takesOver("systemctl reload-or-restart dreadlock")
	b.await("dreadlockctl status", func(output string) bool { return strings.Contains(output, "of 77") })
	b.write(options, "DREADLOCK_MAXCONNECTIONS=78\n")
	pid := b.do(mainPID)
	b.do("systemctl reload-or-restart dreadlock")
	b.await("journalctl --unit dreadlock --no-pager --output cat", func(journal string) bool {
		return strings.Contains(journal, "no takeover: this process serves on") && strings.Contains(journal, "did you mean DREADLOCK_MAX_CONNECTIONS?")
	})
	if now := b.do(mainPID); now != pid {
		t.Errorf("the daemon is process %s, and was %s", now, pid)
	}
	b.write(options, "DREADLOCK_MAX_CONNECTIONS=79\n")
	b.takesOver("dpkg --force-confold --install /packages/two.deb")
	b.await("dreadlockctl status", func(output string) bool { return strings.Contains(output, "of 79") })
	h.holds()
	b.do("systemctl stop dreadlock.service")
	h.lost()

	b.do("systemctl enable --now dreadlock.socket")
	if state := b.state("dreadlock.service"); state != "inactive" {
		t.Errorf("before the first client the service is %s", state)
	}
	if output := b.do("dreadlockctl lock nightly --wait 20 -- echo done"); output != "done" {
		t.Errorf("with the socket: %s", output)
	}
	h = b.hold()
	b.takesOver("systemctl reload-or-restart dreadlock")
	h.holds()

	b.do("dpkg --remove dreadlock")
	h.lost()
	for _, unit := range []string{"dreadlock.service", "dreadlock.socket"} {
		if state := b.state(unit); state != "inactive" {
			t.Errorf("after the removal %s is %s", unit, state)
		}
	}
	b.do("dpkg --purge dreadlock")
	if left := b.do("find / -xdev -path /packages -prune -o -name '*dreadlock*' -print"); left != "" {
		t.Errorf("after the removal there is\n%s", left)
	}
}
