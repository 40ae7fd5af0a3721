package client

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/server"
	"dreadlock/server/certs"
)

// way is one way to reach a server.
type way struct {
	*relay
	options Options
}

// startWays returns every way to reach a server: TCP, TLS, TLS with a client certificate, a Unix socket.
func startWays(t *testing.T, target string) map[string]way {
	t.Helper()
	ca := prototest.NewCA(t)
	secured := &tls.Config{Certificates: []tls.Certificate{ca.Server()}}
	mutual := secured.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	overTLS := func(server, client *tls.Config) way {
		l := tls.NewListener(listenOn(t, "tcp", "127.0.0.1:0"), server)
		return way{startRelayOn(t, l, "tls://", target), Options{TLS: client}}
	}
	path := filepath.Join(t.TempDir(), "lock.sock")
	return map[string]way{
		"tcp":    {startRelayOn(t, listenOn(t, "tcp", "127.0.0.1:0"), "tcp://", target), Options{}},
		"tls":    overTLS(secured, &tls.Config{RootCAs: ca.Pool()}),
		"mutual": overTLS(mutual, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("ann")}}),
		"unix":   {startRelayOn(t, listenOn(t, "unix", path), "unix://", target), Options{}},
	}
}

// Whatever way leads to the server, locks are the same: connections are used again, a context that ends leaves the queue, a
// holder learns of its loss.
func TestWays(t *testing.T) {
	address, _ := startServer(t, nil)
	for name, w := range startWays(t, address) {
		t.Run(name, func(t *testing.T) {
			w.options.Name, w.options.Owner, w.options.Fence = "ann", "x", true
			c := newClient(t, w.address, w.options)
			for range 10 {
				mustUnlock(t, mustLock(t, c, "a"))
			}
			l := mustLock(t, c, "a")
			_, err := c.TryLock(patient(t), "a")
			wantErr(t, err, ErrTimeout)
			if n := w.count(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}

			ctx, cancel := context.WithCancel(t.Context())
			waiting := lockLater(ctx, c, "a", -1)
			w.awaitCommand("lock a 9223372036854")
			next := prototest.Dial(t, address)
			next.Send("lock a 30000")
			cancel()
			wantErr(t, (<-waiting).err, context.Canceled)
			w.awaitOpen(1)
			mustUnlock(t, l)
			next.Do("unlock a", "l locked")
			next.Expect("u unlocked")

			lost := mustLock(t, c, "a")
			w.cut()
			wantLost(t, lost)
			mustUnlock(t, mustLock(t, c, "a"))
		})
	}
}

// Only holders notice that the server was restarted.
func TestRestartOnEveryWay(t *testing.T) {
	address, stop := startServer(t, nil)
	ways := startWays(t, address)
	clients := map[string]*Client{}
	for name, w := range ways {
		clients[name] = newClient(t, w.address, w.options)
		mustUnlock(t, mustLock(t, clients[name], name))
	}
	for range 3 {
		stop()
		_, stop = startServer(t, at(address))
		for name, c := range clients {
			mustUnlock(t, mustLock(t, c, name))
		}
	}
}

// With TLS the connection below has the options of TCP. A Unix socket has the buffer alone.
func TestSocketOptionsOfWays(t *testing.T) {
	address, _ := startServer(t, nil)
	for name, w := range startWays(t, address) {
		w.options.Name = "ann"
		sock := mustLock(t, newClient(t, w.address, w.options), name).conn.sock
		tcp := tcpOf(sock)
		if name == "unix" {
			if tcp != nil {
				t.Errorf("a Unix socket is a %T", sock)
			}
			if got := optionOf(t, sock.(*net.UnixConn), unix.SOL_SOCKET, unix.SO_SNDBUF); got != 2*sendBuffer {
				t.Errorf("%s: the buffer has %d bytes", name, got)
			}
			continue
		}
		for _, o := range []struct{ level, option, want int }{
			{unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * sendBuffer},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000},
		} {
			if got := optionOf(t, tcp, o.level, o.option); got != o.want {
				t.Errorf("%s: option %d is %d, want %d", name, o.option, got, o.want)
			}
		}
	}
}

// The real server, by every way of its own: locks exclude each other, a call that gives up leaves the queue, a holder learns
// of the server's end, and whoever has an idle connection does not notice a restart.
func TestServerWays(t *testing.T) {
	ca := prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server())
	trusted := &tls.Config{RootCAs: ca.Pool()}
	named := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("ann")}}
	socket := "unix://" + filepath.Join(t.TempDir(), "lock.sock")
	for name, tc := range map[string]struct {
		listen string
		files  certs.Files
		tls    *tls.Config
	}{
		"tcp":    {listen: "tcp://127.0.0.1:0"},
		"tls":    {"tls://127.0.0.1:0", certs.Files{Cert: certFile, Key: keyFile}, trusted},
		"mutual": {"tls://127.0.0.1:0", certs.Files{Cert: certFile, Key: keyFile, ClientCA: ca.File()}, named},
		"unix":   {listen: socket},
	} {
		t.Run(name, func(t *testing.T) {
			configured := func(listen string) func(*server.Config) {
				return func(cfg *server.Config) {
					cfg.Listen = []string{listen}
					if tc.files.Cert == "" {
						return
					}
					store, err := certs.Load(tc.files, zerolog.Nop())
					if err != nil {
						t.Fatal(err)
					}
					cfg.Certificates = store
				}
			}
			address, stop := startServer(t, configured(tc.listen))
			if name != "unix" {
				address = tc.listen[:len("tcp://")] + address
			}
			o := Options{TLS: tc.tls, Name: "ann", Fence: true}
			c, rival := newClient(t, address, o), newClient(t, address, o)
			l := mustLock(t, c, "a")
			if l.Token() == 0 {
				t.Error("a lock without a token")
			}
			_, err := rival.TryLock(patient(t), "a")
			wantErr(t, err, ErrTimeout)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, err = rival.Lock(ctx, "a", -1)
			wantErr(t, err, context.DeadlineExceeded)
			mustUnlock(t, l)
			mustUnlock(t, mustLock(t, rival, "a"))

			held := mustLock(t, c, "a")
			stop()
			wantLost(t, held)
			startServer(t, configured(address))
			mustUnlock(t, mustLock(t, c, "a"))
			mustUnlock(t, mustLock(t, rival, "a"))
		})
	}
}

// The real server refuses a client without a certificate, and the client says so and does not try again. It cannot tell
// before it has asked: with TLS 1.3 its own handshake is over by then.
func TestServerRefusesClient(t *testing.T) {
	ca, other := prototest.NewCA(t), prototest.NewCA(t)
	certFile, keyFile := ca.Files(ca.Server())
	store, err := certs.Load(certs.Files{Cert: certFile, Key: keyFile, ClientCA: ca.File()}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	address, _ := startServer(t, func(cfg *server.Config) {
		cfg.Listen, cfg.Certificates = []string{"tls://127.0.0.1:0"}, store
	})
	for name, cert := range map[string]tls.Certificate{
		"none": {}, "the wrong authority": other.Client("ann"), "expired": ca.Issue("ann", prototest.Expired),
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := &tls.Config{
				RootCAs: ca.Pool(), MaxVersion: version,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
			}
			_, err := newClient(t, "tls://"+address, Options{TLS: cfg, Backoff: time.Hour}).Lock(patient(t), "a", -1)
			wantErr(t, err, ErrHandshake)
			t.Logf("%s, %s: %v", name, tls.VersionName(version), err)
		}
	}
}
