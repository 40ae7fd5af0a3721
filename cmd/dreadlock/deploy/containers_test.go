package deploy_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/proto/prototest/netns"
)

// containerfile is a Containerfile, as far as ours goes: two stages, and commands in the form of JSON.
type containerfile struct {
	from        string      // base of the first stage
	run         []string    // shell commands of the first stage
	copied      [][2]string // files from the first stage, and where they go
	env         []string
	user        uint32
	exposed     string
	healthcheck []string
	entrypoint  []string
}

// parseContainerfile reads the file. A word that it does not know is an error, so that nothing goes untested.
func parseContainerfile(t *testing.T) *containerfile {
	t.Helper()
	var c containerfile
	final := false
	for line := range strings.Lines(read(t, "../Containerfile")) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#", "WORKDIR":
		case "FROM":
			final = rest == "scratch"
			if !final {
				c.from = rest
			}
		case "RUN":
			c.run = append(c.run, rest)
		case "COPY":
			if final {
				paths := strings.Fields(strings.TrimPrefix(rest, "--from=build "))
				to := paths[len(paths)-1]
				for _, from := range paths[:len(paths)-1] {
					c.copied = append(c.copied, [2]string{from, to + filepath.Base(from)})
				}
			} else if rest != ". ." {
				t.Fatalf("COPY %s", rest)
			}
		case "ENV":
			for _, pair := range regexp.MustCompile(`([A-Z_]+)=("[^"]*"|\S+)`).FindAllStringSubmatch(rest, -1) {
				c.env = append(c.env, pair[1]+"="+strings.Trim(pair[2], `"`))
			}
		case "USER":
			id, err := strconv.ParseUint(strings.Split(rest, ":")[0], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			c.user = uint32(id)
		case "EXPOSE":
			c.exposed = rest
		case "HEALTHCHECK":
			c.healthcheck = words(rest)
		case "ENTRYPOINT":
			c.entrypoint = words(rest)
		default:
			t.Fatalf("the test does not know %s", word)
		}
	}
	return &c
}

// words returns the strings of a list in JSON.
func words(list string) (all []string) {
	for _, quoted := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(list, -1) {
		all = append(all, quoted[1])
	}
	return all
}

// command returns a command in a container without a runtime: in the tree of the image, as its user, with its variables alone.
func (c *containerfile) command(tree string, args, env []string) *exec.Cmd {
	command := exec.Command(args[0], args[1:]...)
	command.Path, command.Err = args[0], nil
	command.Dir = "/"
	command.Env = slices.Concat(c.env, env)
	command.SysProcAttr = &syscall.SysProcAttr{Chroot: tree, Credential: &syscall.Credential{Uid: c.user, Gid: c.user}}
	return command
}

// build builds the image without a runtime, from the last commit and without a network, and returns its tree of files.
func (c *containerfile) build(t *testing.T) (tree string) {
	t.Helper()
	source, _ := checkout(t)
	version := toolchain(t)
	for _, line := range c.run {
		step := exec.Command("sh", "-c", line)
		step.Dir = source
		step.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOTOOLCHAIN="+version)
		if output, err := step.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, output)
		}
	}
	tree = t.TempDir()
	for _, pair := range c.copied {
		from, inSource := strings.CutPrefix(pair[0], "/src/")
		if !inSource { // of the base image
			continue
		}
		to := filepath.Join(tree, pair[1])
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(source, from), to); err != nil {
			t.Fatal(err)
		}
	}
	for dir := tree; dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) { // which its user must be able to enter
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

// The image can be built, and works as its user, who can write nothing in it: it becomes healthy, gives locks, can be looked at, and
// ends when it is told to. So does it with the variables and the preStop of the manifest for Kubernetes, with its token.
func TestImage(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("the image is NOT tested: that takes root, and some time")
	}
	c := parseContainerfile(t)
	if want := "golang:" + strings.TrimPrefix(pinned(t), "go") + " AS build"; c.from != want {
		t.Errorf("the image is built with %s, the packages with %s", c.from, want)
	}
	if c.user == 0 || c.exposed != "6001" || len(c.healthcheck) == 0 || len(c.entrypoint) == 0 {
		t.Fatalf("%+v", c)
	}
	tree := c.build(t)
	container := &parseManifest(t).deployment.Spec.Template.Spec.Containers[0]
	var env []string
	for _, v := range container.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	c.runtime(t, tree, filepath.Join(container.Mounts[0].Path, "token"))
	for _, variant := range []struct {
		name string
		env  []string
		stop []string // none: SIGTERM
	}{
		{name: "alone"},
		{name: "Kubernetes", env: env, stop: container.Lifecycle.PreStop.Exec.Command},
	} {
		t.Run(variant.name, func(t *testing.T) { c.use(t, tree, variant.env, variant.stop) })
	}
}

// runtime adds to the tree what a runtime does: /proc, /etc/hosts, and the secret with the token, which the user can read by its group.
func (c *containerfile) runtime(t *testing.T, tree, token string) {
	t.Helper()
	proc := filepath.Join(tree, "proc")
	for name, text := range map[string]string{"/etc/hosts": "127.0.0.1 localhost\n", token: strings.Repeat("0123456789abcdef", 4)} {
		path := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o440), os.Chown(path, 0, int(c.user))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(proc, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("proc", proc, "proc", 0, ""); err != nil {
		t.Skipf("the image is NOT tested: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(proc, 0); err != nil {
			t.Error(err)
		}
	})
}

// use runs a container on a host of its own.
func (c *containerfile) use(t *testing.T, tree string, env, stop []string) {
	host, err := netns.New()
	if err != nil {
		t.Skipf("the image is NOT tested: %v", err)
	}
	defer host.Close()
	daemon := c.command(tree, c.entrypoint, env)
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := host.Do(daemon.Start); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- daemon.Wait() }()
	defer func() {
		_ = daemon.Process.Kill()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	in := func(args ...string) (output string, err error) {
		command := c.command(tree, args, env)
		var out bytes.Buffer
		command.Stdout, command.Stderr = &out, &out
		err = host.Do(command.Run)
		return out.String(), err
	}
	const ctl = "/usr/bin/dreadlockctl"
	// It waits until the daemon is there.
	output, err := in(ctl, "lock", "nightly", "--wait", strconv.Itoa(int(prototest.Patience.Seconds())), "--", ctl, "waiters", "nightly")
	if err != nil || !strings.Contains(output, "nightly is held by connection") {
		t.Fatalf("%v\n%s", err, output)
	}
	if output, err := in(c.healthcheck...); err != nil || output != "ok\n" {
		t.Errorf("health: %v\n%s", err, output)
	}
	if len(stop) > 0 {
		if output, err := in(stop...); err != nil || !strings.Contains(output, "no key is lost") {
			t.Errorf("%q: %v\n%s", stop, err, output)
		}
	} else if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("the daemon: %v", err)
		}
	case <-time.After(prototest.Patience):
		t.Error("the daemon does not end")
	}
	if strings.Contains(log.String(), `"level":"error"`) || strings.Contains(log.String(), `"level":"warn"`) {
		t.Errorf("warnings: %s", log.String())
	}
}
