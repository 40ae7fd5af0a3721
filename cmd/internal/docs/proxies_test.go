package docs

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"dreadlock/proto/prototest"
)

// A proxy is a program whose configuration a document shows. So that a test sees in seconds what takes longer, the shown times are made
// short, and the times that hold where the document says nothing are shorter than those of the test.
type proxy struct {
	config func(shown string) string
	times  []string // pairs: what is shown, and what it becomes
	run    string   // in the foreground, with the file "proxy"
	grants bool     // whether it gives up a host that has vanished before a grant
}

var proxies = map[string]*proxy{
	"haproxy": {
		config: func(shown string) string {
			return "defaults\nmode tcp\ntimeout client 1s\ntimeout server 1s\ntimeout connect 1s\n" + shown + "\n"
		},
		times:  []string{"clitcpka-idle 30s", "clitcpka-idle 1s", "clitcpka-cnt 30", "clitcpka-cnt 1", "tcp-ut 60s", "tcp-ut 2s"},
		run:    "exec haproxy -db -f proxy",
		grants: true,
	},
	"nginx": {
		config: func(shown string) string {
			return "include /etc/nginx/modules-enabled/*.conf;\ndaemon off;\npid nginx.pid;\nevents {}\n" +
				strings.Replace(shown, "stream {", "stream {\nproxy_timeout 1s;", 1) + "\n"
		},
		times: []string{"so_keepalive=30s:1s:30", "so_keepalive=1s:1s:1"},
		run:   `exec nginx -e stderr -c "$PWD/proxy"`,
	},
}

// The configurations of proxies do what the document says: clients are known by their own addresses, keep their keys and their places while
// they say nothing, lose them when their host has vanished, and learn of a loss at once, also of that of the proxy.
func TestProxies(t *testing.T) {
	shown := 0
	for _, doc := range documents(t) {
		for _, b := range doc.blocks {
			p := proxies[b.lang]
			if p == nil {
				continue
			}
			shown++
			t.Run(b.lang, func(t *testing.T) {
				if _, err := exec.LookPath(b.lang); err != nil {
					t.Skipf("%s: the configuration is NOT tested: %v", b, err)
				}
				t.Parallel() // it mostly waits
				newProxied(t, p, b).use()
			})
		}
	}
	if shown != len(proxies) {
		t.Errorf("%d configurations are shown, want %d", shown, len(proxies))
	}
}

// proxied is a daemon with a proxy before it. The daemon has another port for clients that come directly.
type proxied struct {
	*scene
	proxy   *proxy
	process *exec.Cmd
	log     bytes.Buffer
}

func newProxied(t *testing.T, p *proxy, b block) *proxied {
	s := &proxied{scene: newScene(t, "", nil), proxy: p}
	s.env = append(s.env, "DREADLOCK_ADMIN=http://localhost:"+s.port("6002"))
	s.output("start --listen '127.0.0.1:" + s.port("behind") + "?proxy=127.0.0.1' --listen 127.0.0.1:" + s.port("direct") +
		" --admin localhost:" + s.port("6002"))
	text := strings.Join(b.lines, "\n")
	pairs := append([]string{"10.0.0.7:6001", "127.0.0.1:" + s.port("behind"), "6001", s.port("6001")}, p.times...)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Errorf("%s: %s is missing", b, pairs[i])
		}
	}
	text = p.config(strings.NewReplacer(pairs...).Replace(text))
	if err := os.WriteFile(s.path("proxy"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.process = s.command(p.run)
	s.process.Stderr = &s.log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.output("dreadlockctl lock ready --wait 20 -- true") // it tries until the proxy is there
	return s
}

// stop ends the proxy as a service manager does.
func (s *proxied) stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	_ = s.process.Wait()
	s.process = nil
	if s.t.Failed() {
		s.t.Logf("the proxy:\n%s", s.log.String())
	}
}

func (s *proxied) dial(t *testing.T, port string) *prototest.Client {
	t.Helper()
	return prototest.Dial(t, "127.0.0.1:"+s.port(port))
}

func (s *proxied) use() {
	stranger := s.dial(s.t, "behind")
	stranger.Send("lock a 0")
	stranger.ExpectEnd() // it has no header

	holder, waiter, next := s.dial(s.t, "6001"), s.dial(s.t, "6001"), s.dial(s.t, "6001")
	holder.Do("lock a 0", "l locked")
	waiter.Send("lock a 60000")
	list := s.output("dreadlockctl connections --json")
	if address := holder.Conn().LocalAddr().String(); !strings.Contains(list, `"`+address+`"`) {
		s.t.Errorf("the daemon does not know the client at %s:\n%s", address, list)
	}
	<-time.After(2500 * time.Millisecond) // two and a half times what the proxies would allow without the document
	holder.Do("unlock a", "u unlocked")
	waiter.Expect("l locked")
	waiter.Close()
	next.Do("lock a 60000", "l locked")
	s.output("dreadlockctl kick --holder-of a --yes")
	next.ExpectEnd()

	s.t.Run("vanish", s.vanish)

	holder.Do("lock a 0", "l locked")
	s.stop()
	s.dial(s.t, "direct").Do("lock a 60000", "l locked")
	holder.ExpectEnd()
}

// vanish lets the host of a client vanish that holds a key, and of one that is granted a key after that.
func (s *proxied) vanish(t *testing.T) {
	r := prototest.NewRemote(t)
	here := s.dial(t, "6001")
	here.Do("lock late 0", "l locked")
	var holder, waiter *prototest.Client
	r.Do(func() {
		address := r.Address + ":" + s.port("6001")
		holder, waiter = prototest.Dial(t, address), prototest.Dial(t, address)
	})
	holder.Do("lock held 0", "l locked")
	waiter.Send("lock late 60000")
	s.await("late")
	s.await("late") // for its waiter
	r.Vanish()
	if s.proxy.grants {
		here.Do("unlock late", "u unlocked")
		here.Do("lock late 60000", "l locked")
	}
	here.Do("lock held 60000", "l locked")
}
