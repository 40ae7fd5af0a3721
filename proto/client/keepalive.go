package client

import (
	"crypto/tls"
	"errors"
	"math"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keepAliveProbes is the number of probes that remain without an answer.
const keepAliveProbes = 3

// prepare sets the options of a socket. The commands of one write fit into its buffer, so that writing them never blocks.
// And if data that was sent stays without acknowledgement for the time silence, the kernel ends the connection; keepalive
// alone does not cover that. A Unix socket has neither: its server's host cannot vanish.
func prepare(network string, sock syscall.RawConn, silence time.Duration) error {
	err := setOption(sock, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	if network == "unix" {
		return err
	}
	return errors.Join(err, setOption(sock, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds())))
}

func setOption(sock syscall.RawConn, level, option, value int) error {
	var err error
	failed := sock.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(failed, err)
}

// watchHost has the kernel end the connection when the server's host is silent. If that fails, it goes on as before.
func (c *conn) watchHost() {
	sock := tcpOf(c.sock)
	if sock == nil {
		return
	}
	keepAlive := c.keepAlive
	if c.server != nil {
		keepAlive = shorter(keepAlive, c.server.silence)
	}
	probes, silence := probing(keepAlive)
	_ = sock.SetKeepAliveConfig(probes)
	limitUnacknowledged(sock, silence)
}

// trustHost keeps the kernel from ending the connection when the server's host is silent, for longer than it can matter.
func (c *conn) trustHost() {
	if sock := tcpOf(c.sock); sock != nil {
		_ = sock.SetKeepAlive(false)
		limitUnacknowledged(sock, 2*max(c.silence.Server, 2*c.silence.Lost))
	}
}

// limitUnacknowledged sets how long data may stay without acknowledgement.
func limitUnacknowledged(sock syscall.Conn, limit time.Duration) {
	if raw, err := sock.SyscallConn(); err == nil {
		_ = setOption(raw, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(limit.Milliseconds(), math.MaxInt32)))
	}
}

// isRemote reports whether another host is at the end of the connection, which may fall silent.
func (c *conn) isRemote() bool { return tcpOf(c.sock) != nil }

// tcpOf returns the TCP connection itself or below TLS, nil if there is none.
func tcpOf(sock net.Conn) *net.TCPConn {
	if secured, ok := sock.(*tls.Conn); ok {
		sock = secured.NetConn()
	}
	tcp, _ := sock.(*net.TCPConn)
	return tcp
}

// probing returns how a silent host is probed, and the time after which the connection is lost.
func probing(keepAlive time.Duration) (cfg net.KeepAliveConfig, silence time.Duration) {
	cfg = net.KeepAliveConfig{
		Enable:   true,
		Idle:     keepAlive,
		Interval: max(keepAlive/keepAliveProbes, time.Second),
		Count:    keepAliveProbes,
	}
	return cfg, keepAlive + max(keepAlive, keepAliveProbes*time.Second)
}

// shorter returns the keepalive of a connection to a server that takes the time server to give a silent client up, 0 if it
// never does: one with which the client is done in half of that, as far as whole seconds allow.
func shorter(keepAlive, server time.Duration) time.Duration {
	if server == 0 {
		return keepAlive
	}
	return min(keepAlive, max(server/4, time.Second).Truncate(time.Second))
}
