package client

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dreadlock/proto/prototest"
	"dreadlock/server"
)

// A server whose host has vanished never sends anything again. The holder learns of its loss all the same. So does one that
// unlocks: its command is never acknowledged, which keepalive alone does not notice.
func TestServerHostVanishes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds until a host is given up")
	}
	r := prototest.NewRemote(t)
	here := net.JoinHostPort(r.Address, "0")
	address, _ := startServer(t, func(cfg *server.Config) { cfg.Listen = []string{here} })
	ca := prototest.NewCA(t)
	secured := tls.NewListener(listenOn(t, "tcp", here), &tls.Config{Certificates: []tls.Certificate{ca.Server(r.Address)}})
	o := Options{KeepAlive: time.Second, TLS: &tls.Config{RootCAs: ca.Pool()}}
	clients := map[string]*Client{
		"tcp": newClient(t, address, Options{KeepAlive: o.KeepAlive}),
		"tls": newClient(t, startRelayOn(t, secured, "tls://", address).address, o),
	}
	silent, unlocking := map[string]*Lock{}, map[string]*Lock{}
	r.Do(func() {
		for way, c := range clients {
			silent[way], unlocking[way] = mustLock(t, c, "silent"+way), mustLock(t, c, "unlocking"+way)
		}
	})
	r.Vanish()
	began := time.Now()
	unlocked := make(chan error, len(clients))
	for _, l := range unlocking {
		go func() { unlocked <- l.Unlock(patient(t)) }()
	}
	for range clients {
		wantErr(t, <-unlocked, ErrConnectionLost, syscall.ETIMEDOUT)
	}
	t.Logf("the unlocks ended after %s", time.Since(began).Round(time.Millisecond))
	for _, l := range silent {
		wantLost(t, l, syscall.ETIMEDOUT)
	}
	t.Logf("the losses were known after %s", time.Since(began).Round(time.Millisecond))
}

// The options of the sockets for silent hosts, and the room for commands.
func TestSocketOptions(t *testing.T) {
	for _, tc := range []struct {
		keepAlive            time.Duration
		idle, interval, user int // s, s, ms
	}{
		{0, 15, 5, 30_000},
		{time.Second, 1, 1, 4_000},
		{time.Minute, 60, 20, 120_000},
		{1 << 62, 32767, 10923, 65_534_000},
	} {
		l := mustLock(t, newClient(t, listen(t, func(conn *net.TCPConn) {
			takeFirst(conn)
			reply(conn, "n named 0 00000000000000af\r\nl locked\r\n") // it does not look for silent hosts
			takeLine(conn)
		}), Options{KeepAlive: tc.keepAlive}), "a")
		sock := l.conn.sock.(*net.TCPConn)
		// The kernel doubles the number, for its own needs.
		if got := optionOf(t, sock, unix.SOL_SOCKET, unix.SO_SNDBUF); got != 2*sendBuffer {
			t.Errorf("the buffer has %d bytes", got)
		}
		for option, want := range map[int]int{
			unix.TCP_KEEPIDLE:     tc.idle,
			unix.TCP_KEEPINTVL:    tc.interval,
			unix.TCP_KEEPCNT:      keepAliveProbes,
			unix.TCP_USER_TIMEOUT: tc.user,
		} {
			if got := optionOf(t, sock, unix.IPPROTO_TCP, option); got != want {
				t.Errorf("keepalive %s: option %d is %d, want %d", tc.keepAlive, option, got, want)
			}
		}
	}
}
