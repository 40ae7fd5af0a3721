package docs

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// A scene is where a block is run: an empty directory with the real programs on its PATH and, unless the block starts one, a daemon. What
// the block names and a machine may not have is put there, or replaced by what stands for it:
//
//	6001, 6002 ...       ports that are free
//	NAME.sh,             a script that does nothing
//	-- /usr/bin/NAME
//	*.pem, *.key         a certificate of the daemon, one of a client, and their authority
//	/run/dreadlock,      directories of the scene
//	/usr/local/bin
//	locks.example        localhost
//	group=locks          the group of the test
//	PID, 17              the process of the daemon; the connection that holds nightly
//	token=...            the token of backup
//	--at-least 1m        a second
//
// A daemon in the foreground is stopped when it is ready, and must end with status 0; one with & serves the lines after it.
type scene struct {
	t      *testing.T
	dir    string
	env    []string
	asked  map[string]int // commands of the block that run under a key, or wait for it
	ports  map[string]string
	values *strings.Replacer
}

// The tools of a block that a machine may not have.
var tools = regexp.MustCompile(`\b(nc|jq|curl|openssl|step|flock|etcdctl|zsh|fish)\b`)

func newScene(t *testing.T, script string, ca *prototest.CA) *scene {
	t.Helper()
	for _, tool := range tools.FindAllString(script, -1) {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir, err := os.MkdirTemp("", "docs") // short, for the paths of sockets
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, dir: dir, asked: map[string]int{}, ports: map[string]string{}}
	s.env = append(os.Environ(), "PATH="+s.path("bin")+":"+os.Getenv("PATH"), "HOME="+dir, "XDG_RUNTIME_DIR="+s.path("run"),
		"RUNTIME_DIRECTORY="+s.path("run"), "DREADLOCK_LISTEN=:"+s.port("6001"), "DREADLOCK_SERVER=localhost:"+s.port("6001"), "SCENE="+dir)
	t.Cleanup(func() {
		s.end()
		_ = os.RemoveAll(dir)
	})
	for _, name := range []string{"bin", "run"} {
		if err := os.Mkdir(s.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dreadlock", "dreadlockctl"} {
		if err := os.Symlink(filepath.Join(programs, name), s.path("bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(programs, "dreadlock"), s.path("dreadlock")); err != nil { // a new version, to be installed
		t.Fatal(err)
	}
	stubs := regexp.MustCompile(`[\w-]+\.sh\b`).FindAllString(script, -1)
	for _, service := range regexp.MustCompile(`-- /usr/bin/(\w+)`).FindAllStringSubmatch(script, -1) {
		stubs = append(stubs, "bin/"+service[1])
	}
	for _, name := range stubs {
		if err := os.WriteFile(s.path(name), []byte("#!/bin/sh\n"), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	if strings.Contains(script, ".pem") && !strings.Contains(script, "-out ca.pem") {
		prototest.WriteFiles(t, ca.Server("localhost", "127.0.0.1"), s.path("server.pem"), s.path("server.key"))
		prototest.WriteFiles(t, ca.Client("ann"), s.path("client.pem"), s.path("client.key"))
		if err := os.Symlink(ca.File(), s.path("ca.pem")); err != nil {
			t.Fatal(err)
		}
	}
	s.replace()
	return s
}

func (s *scene) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// port returns a free port that stands for the one of a document. It is below those that the kernel gives to clients.
func (s *scene) port(written string) string {
	for s.ports[written] == "" {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", 20_000+rand.IntN(12_000)))
		if err != nil {
			continue
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		s.ports[written] = port
		_ = ln.Close()
	}
	return s.ports[written]
}

// replace sets what stands for what a document says; more are pairs of these.
func (s *scene) replace(more ...string) {
	gid := strconv.Itoa(os.Getgid())
	pairs := append([]string{"/run/dreadlock", s.path("run"), "/usr/local/bin", s.path("bin"), "/usr/bin/", "", "locks.example", "localhost",
		"group=locks", "group=" + gid, "--at-least 1m", "--at-least 1s", "admin-6001", "admin-" + s.port("6001")}, more...)
	s.values = strings.NewReplacer(pairs...)
}

var written = regexp.MustCompile(`\b(6001|6002|6003|11066)\b`)

func (s *scene) fill(line string) string {
	return written.ReplaceAllStringFunc(s.values.Replace(line), s.port)
}

// serve starts the daemon that the block expects. With held, nightly and backup are held, and each is waited for.
func (s *scene) serve(script string, held bool) {
	s.t.Helper()
	args := []string{"--listen", ":" + s.port("6001"), "--listen", "unix://" + s.path("run", "lock.sock")}
	if strings.Contains(script, "tls://") {
		args = append(args, "--listen", "tls://:"+s.port("6002"), "--tls-cert", "server.pem", "--tls-key", "server.key")
	} else {
		args = append(args, "--admin", "localhost:"+s.port("6002"))
	}
	pid := s.output("start " + strings.Join(args, " ") + "; echo $pid")
	more := []string{"PID", strings.TrimSpace(pid)}
	if held {
		clients := []string{"nightly --name ann@build7", "nightly --name bob@build8", "backup --name ann@build7", "backup --name bob@build8"}
		ids, tokens := map[string]string{}, map[string]string{}
		for _, client := range clients {
			s.output("dreadlockctl lock " + client + " -- sleep 600 >/dev/null 2>&1 &")
			key, _, _ := strings.Cut(client, " ")
			k := s.await(key)
			ids[key], tokens[key] = fmt.Sprint(k.Holder.Connection), fmt.Sprint(k.Token)
		}
		more = append(more, "token=1795579783267957083", "token="+tokens["backup"], "backup/release?connection=17", "backup/release?connection="+ids["backup"],
			"kick 17", "kick "+ids["nightly"], "connections/17", "connections/"+ids["nightly"], "connection 17", "connection "+ids["nightly"])
	}
	s.replace(more...)
}

// await waits until one client more has the key, or waits for it.
func (s *scene) await(name string) (key api.Key) {
	s.t.Helper()
	s.asked[name]++
	for deadline := time.Now().Add(prototest.Patience); key.Holder.Connection == 0 || key.Waiters+1 < s.asked[name]; {
		answer, err := s.command("dreadlockctl waiters " + name + " --json").Output()
		if err == nil {
			err = json.Unmarshal(answer, &key)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not get its clients: %v, %s", name, err, answer)
		}
	}
	return key
}

// preamble has the functions that the commands of a document become.
const preamble = `
start() { command dreadlock "$@" >>daemon.log 2>&1 & pid=$!
	until grep -q 'dreadlock is ready' daemon.log; do kill -0 $pid || { cat daemon.log; return 1; }; sleep 0.02; done; }
serves() { : >daemon.log; start "$@" && kill $pid && wait $pid; }
`

// output runs a script of the test itself, to its end.
func (s *scene) output(script string) string {
	s.t.Helper()
	cmd := s.command(preamble + script)
	defer time.AfterFunc(prototest.Patience, s.end).Stop()
	output, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s: %v", script, err)
	}
	return string(output)
}

func (s *scene) command(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.dir, s.env, prototest.Patience
	return cmd
}

// end ends every process of the scene, also those that have left their parents, as a daemon has that took over.
func (s *scene) end() {
	for deadline := time.Now().Add(prototest.Patience); ; {
		sig := syscall.SIGTERM
		if time.Now().After(deadline) {
			sig = syscall.SIGKILL
		}
		files, _ := filepath.Glob("/proc/[0-9]*/environ")
		left := false
		for _, file := range files {
			environ, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(environ), "SCENE="+s.dir+"\x00") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				left = true
				_ = syscall.Kill(pid, sig)
			}
		}
		if !left {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}
