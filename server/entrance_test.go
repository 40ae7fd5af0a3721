package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/certs"
)

// entry is one way into a daemon.
type entry struct {
	name  string
	begin string // how the address of its clients begins
	dial  func() *prototest.Client
}

// allWays starts a daemon with one way of each kind, and returns them.
func allWays(t *testing.T, change func(*Config)) (*daemon, []entry) {
	t.Helper()
	ca, clients := prototest.NewCA(t), prototest.NewCA(t)
	path := socketPath(t)
	passedPath := socketPath(t)
	d := startDaemon(t, func(cfg *Config) {
		cfg.Certificates = loadCertificates(t, ca, clients)
		cfg.Listen = []string{
			"127.0.0.1:0",
			"tls://127.0.0.1:0",
			"unix://" + path + "?mode=0600",
			"fd://tcp",
			"fd://unix",
			"tcp://127.0.0.1:0?proxy=127.0.0.1",
			"tls://127.0.0.1:0?proxy=127.0.0.0/8,::1",
		}
		cfg.Activated = func(name string) ([]PassedSocket, error) {
			if name == "unix" {
				return passedSockets(listen(t, "unix", passedPath)), nil
			}
			return passedSockets(listen(t, "tcp", "127.0.0.1:0")), nil
		}
		if change != nil {
			change(cfg)
		}
	})
	at := d.listen()
	client := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{clients.Client("ann")}, ServerName: "localhost"}
	tls12 := client.Clone()
	tls12.MaxVersion = tls.VersionTLS12
	const header = "PROXY TCP4 10.1.2.3 10.9.9.9 4444 6001\r\n"
	return d, []entry{
		{"tcp", "127.0.0.1:", func() *prototest.Client { return prototest.Dial(t, hostOf(at[0])) }},
		{"tls", "127.0.0.1:", func() *prototest.Client { return prototest.DialTLS(t, hostOf(at[1]), client) }},
		{"tls 1.2", "127.0.0.1:", func() *prototest.Client { return prototest.DialTLS(t, hostOf(at[1]), tls12) }},
		{"unix", "unix:" + path, func() *prototest.Client { return prototest.DialUnix(t, path) }},
		{"passed tcp", "127.0.0.1:", func() *prototest.Client { return prototest.Dial(t, hostOf(at[3])) }},
		{"passed unix", "unix:" + passedPath, func() *prototest.Client { return prototest.DialUnix(t, passedPath) }},
		{"proxy", "10.1.2.3:4444", func() *prototest.Client {
			c := prototest.Dial(t, hostOf(at[5]))
			c.Write([]byte(header))
			return c
		}},
		{"proxy and tls", "10.1.2.3:4444", func() *prototest.Client { return dialProxied(t, hostOf(at[6]), header, client) }},
	}
}

// listen returns the addresses of the daemon, as URLs.
func (d *daemon) listen() []string { return d.server.now().listen }

// hostOf returns the host:port of a URL.
func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	return host
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false) // as systemd does it
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// socketPath returns a path in an empty directory. The directories of testing have names that are too long for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "way")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// loadCertificates returns the certificates of a daemon; with clients, only those of that authority may connect.
func loadCertificates(t *testing.T, ca, clients *prototest.CA) *certs.Store {
	t.Helper()
	var files certs.Files
	files.Cert, files.Key = ca.Files(ca.Server())
	if clients != nil {
		files.ClientCA = clients.File()
	}
	store, err := certs.Load(files, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// The same is done on every way in, and all of them lead to the same locks.
func TestWays(t *testing.T) {
	d, ways := allWays(t, nil)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			c := w.dial()
			c.Do("lock held 0", "l locked")
			page, err := d.server.Connections(t.Context(), api.ConnectionQuery{Address: w.begin})
			if err != nil || len(page.Connections) != 1 || !strings.HasPrefix(page.Connections[0].Address, w.begin) {
				t.Errorf("it is shown as %+v, %v; want an address %s...", page, err, w.begin)
			}
			for _, other := range ways {
				o := other.dial()
				o.Do("unlock held", "e not owner")
				o.Close()
			}

			// Any split, a wait, a syntax error.
			for _, b := range []byte("lock a 0\r\nunlock a\r\n") {
				c.Write([]byte{b})
			}
			c.Expect("l locked", "u unlocked")
			waiter := w.dial()
			waiter.Send("lock held 60000", "unlock held")
			d.awaitWaiters(1)
			c.Do("unlock held", "u unlocked")
			waiter.Expect("l locked", "u unlocked")
			waiter.Send("nonsense")
			waiter.ExpectEnd()

			// The end of the input loses no answer; a broken connection frees its keys.
			c.Send("lock a 0", "lock b 0", "unlock a")
			c.CloseWrite()
			c.Expect("l locked", "l locked", "u unlocked")
			if _, err := c.ReadReply(); !errors.Is(err, io.EOF) {
				t.Errorf("want the end of the stream, got %v", err)
			}
			broken := w.dial()
			broken.Do("lock b 0", "l locked")
			broken.Reset()
			d.wantFree("b")
			d.wantConnections(0)
		})
	}
	d.wantRefused(map[string]uint64{})
}

// Many connections on every way at the same time share one lock space, and all are counted out.
func TestManyOnWays(t *testing.T) {
	const perWay = 30
	d, ways := allWays(t, nil)
	var clients []*prototest.Client
	for i := range perWay {
		for _, w := range ways {
			c := w.dial()
			c.Do(fmt.Sprintf("lock k%d 0", i), map[bool]string{true: "l locked", false: "t timeout"}[w.name == ways[0].name])
			clients = append(clients, c)
		}
	}
	d.wantConnections(len(clients))
	for _, c := range clients {
		c.Close()
	}
	d.wantConnections(0)
}

// The status and the log have all addresses, and each can be given to --listen.
func TestListenURLs(t *testing.T) {
	path := socketPath(t)
	d := startDaemon(t, func(cfg *Config) {
		cfg.Certificates = loadCertificates(t, prototest.NewCA(t), nil)
		cfg.Listen = []string{"unix://" + path, ":0", "tls://localhost:0", "[::1]:0", "tcp://[::]:0"}
	})
	status, err := d.server.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, begin := range []string{"unix://" + path, "tcp://:", "tls://127.0.0.1:", "tcp://[::1]:", "tcp://:"} {
		got := status.Listen[i]
		if w, err := parseWay(got); !strings.HasPrefix(got, begin) || err != nil || w.tls != (i == 2) {
			t.Errorf("%s: %v, want %s...", got, err, begin)
		}
	}
	if status.Address != status.Listen[0] || d.address != status.Address || status.CertificateExpires.Before(time.Now()) {
		t.Errorf("status %+v", status)
	}
	if len(d.log.containing("dreadlock is ready", status.Listen[0], status.Listen[1], status.Listen[4])) != 1 {
		t.Errorf("the log does not have the addresses")
	}
}

// The port is that of the first address that has one, while the server serves.
func TestPort(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Listen = []string{"unix://" + socketPath(t), "127.0.0.1:0", "127.0.0.1:0"} })
	if got, want := strconv.Itoa(d.server.Port()), strings.TrimPrefix(d.listen()[1], "tcp://127.0.0.1:"); got != want {
		t.Errorf("port %s, want %s", got, want)
	}
	d.stop()
	if got := d.server.Port(); got != 0 {
		t.Errorf("port %d of a server that has stopped", got)
	}
	d = startDaemon(t, func(cfg *Config) { cfg.Listen = []string{"unix://" + socketPath(t)} })
	if got := d.server.Port(); got != 0 {
		t.Errorf("port %d of a Unix socket", got)
	}
}

// passedSockets are listeners as the parent process passes them.
func passedSockets(listeners ...net.Listener) (passed []PassedSocket) {
	for _, l := range listeners {
		passed = append(passed, PassedSocket{Listener: l})
	}
	return passed
}

// If one way cannot be opened, none is.
func TestAllWaysOrNone(t *testing.T) {
	taken := listen(t, "tcp", "127.0.0.1:0")
	defer taken.Close()
	free := listen(t, "tcp", "127.0.0.1:0")
	free.Close()
	path := socketPath(t)
	cfg := DefaultConfig()
	cfg.Listen = []string{"unix://" + path, "fd://", free.Addr().String(), taken.Addr().String(), "127.0.0.1:0"}
	passed := listen(t, "tcp", "127.0.0.1:0")
	cfg.Activated = func(string) ([]PassedSocket, error) { return passedSockets(passed), nil }
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("%v, want an address in use", err)
	}
	if _, err := passed.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the passed socket is open: %v", err)
	}
	listen(t, "tcp", free.Addr().String()).Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the Unix socket stays: %v", err)
	}
}

// What a way needs and has not got is an error that says so.
func TestCannotOpen(t *testing.T) {
	path := socketPath(t)
	live := listen(t, "unix", path)
	defer live.Close()
	for _, c := range []struct {
		listen string
		passed []net.Listener
		is     error
		says   string
	}{
		{"unix://" + path, nil, syscall.EADDRINUSE, "--listen unix://" + path},
		{"unix://" + path + "?group=nobodysgroup", nil, nil, "group nobodysgroup"},
		{"unix:///nonexistent/s", nil, os.ErrNotExist, "/nonexistent"},
		{"fd://", nil, nil, "--listen fd://: no sockets were passed (LISTEN_FDS)"},
		{"fd://web", nil, nil, "FileDescriptorName=web"},
		{"fd://?allow=10.0.0.1", []net.Listener{listen(t, "unix", socketPath(t))}, ErrOption, "leave out proxy= and allow="},
	} {
		cfg := DefaultConfig()
		cfg.Listen = []string{c.listen}
		if c.passed != nil {
			cfg.Activated = func(string) ([]PassedSocket, error) { return passedSockets(c.passed...), nil }
		}
		srv, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = srv.Run(t.Context())
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v and %q", c.listen, err, c.is, c.says)
		}
	}
}

// A Unix socket has its mode, tells who its clients are, and is gone with the daemon. A stale one is replaced.
func TestUnixSocket(t *testing.T) {
	path := socketPath(t)
	stale := listen(t, "unix", path)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	d := startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"unix://" + path + "?mode=0606&group=" + strconv.Itoa(os.Getgid())}
	})
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o606 {
		t.Errorf("mode %v, %v; want 0606", info.Mode(), err)
	}
	c := prototest.DialUnix(t, path)
	c.Do("lock a 0", "l locked")
	want := fmt.Sprintf("uid %d pid %d", os.Getuid(), os.Getpid())
	if holder := d.key("a").Holder; holder.Identity != want || holder.Address != "unix:"+path {
		t.Errorf("the holder is %+v, want %s", holder, want)
	}
	c.Do("name ann", d.named())
	c.Send("nonsense")
	c.ExpectEnd()
	if len(d.log.containing("syntax error", `"client":"unix:`+path+`"`, `"identity":"`+want+`"`)) != 1 {
		t.Error("the log does not say who it was")
	}
	d.stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// By default others than the user and the group of the daemon cannot connect.
func TestUnixDefaultMode(t *testing.T) {
	path := socketPath(t)
	startDaemon(t, func(cfg *Config) { cfg.Listen = []string{"unix://" + path} })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// fd:// without a name takes all sockets; with tls=1 they speak TLS.
func TestPassedSockets(t *testing.T) {
	ca := prototest.NewCA(t)
	path := socketPath(t)
	d := startDaemon(t, func(cfg *Config) {
		cfg.Certificates = loadCertificates(t, ca, nil)
		cfg.Listen = []string{"fd://?tls=1"}
		cfg.Activated = func(name string) ([]PassedSocket, error) {
			if name != "" {
				return nil, fmt.Errorf("asked for %q", name)
			}
			return passedSockets(listen(t, "tcp", "127.0.0.1:0"), listen(t, "unix", path)), nil
		}
	})
	if at := d.listen(); len(at) != 2 || at[0] != "tls://"+d.address || at[1] != "unix://"+path+"?tls=1" {
		t.Fatalf("it listens on %v", at)
	}
	client := &tls.Config{RootCAs: ca.Pool()}
	c := prototest.DialTLS(t, d.address, client)
	c.Do("lock a 0", "l locked")
	sock, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	client.ServerName = "localhost"
	conn := tls.Client(sock, client)
	if _, err := conn.Write([]byte("unlock a\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("e not owner\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "e not owner\r\n" {
		t.Errorf("%q, %v", answer, err)
	}
}

// Who is not allowed is closed at once; the others are served.
func TestAllow(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Listen = []string{"127.0.0.1:0?allow=10.0.0.0/8,127.0.0.2"} })
	for range 3 {
		c := d.dial()
		c.ExpectEnd()
	}
	d.wantRefused(map[string]uint64{api.RefusedNotAllowed: 3})
	if len(d.log.containing("connection refused", "allow=", `"listen":"tcp://`+d.address)) != 3 {
		t.Error("the log does not say so")
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.Dial("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("lock a 0\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, len("l locked\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "l locked\r\n" {
		t.Errorf("%q, %v", answer, err)
	}
	d.wantConnections(1)
}

// wantRefused expects that these connections and no others were kept out, by reason.
func (d *daemon) wantRefused(want map[string]uint64) {
	d.tb.Helper()
	eventually(d.tb, func() error {
		got := d.status().Counters.Refused
		for reason, n := range got {
			if n != want[reason] {
				return fmt.Errorf("refused: %v, want %v", got, want)
			}
		}
		return nil
	})
}

// named is the answer to a name.
func (d *daemon) named() string {
	return fmt.Sprintf("n named %d %016x", d.server.cfg.silence().Milliseconds(), d.server.space)
}
