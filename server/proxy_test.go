package server

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
)

// startProxied starts a daemon that takes PROXY headers from this machine.
func startProxied(t *testing.T, change func(*Config)) *daemon {
	t.Helper()
	return startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"127.0.0.1:0?proxy=127.0.0.1"}
		if change != nil {
			change(cfg)
		}
	})
}

// from returns a header for a client.
func from(t *testing.T, version byte, client string) string {
	t.Helper()
	source, err := net.ResolveTCPAddr("tcp", client)
	if err != nil {
		t.Fatal(err)
	}
	destination := &net.TCPAddr{IP: net.IPv4(10, 9, 9, 9), Port: 6001}
	if source.IP.To4() == nil {
		destination.IP = net.ParseIP("2001:db8::9")
	}
	return formatted(t, proxyproto.HeaderProxyFromAddrs(version, source, destination))
}

func formatted(t *testing.T, header *proxyproto.Header) string {
	t.Helper()
	text, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dialAs connects as a proxy does for a client.
func (d *daemon) dialAs(t *testing.T, client string) *prototest.Client {
	t.Helper()
	c := d.dial()
	c.Write([]byte(from(t, 2, client)))
	return c
}

// dialProxied connects over TLS, as a proxy does that passes it through.
func dialProxied(t *testing.T, address, header string, cfg *tls.Config) *prototest.Client {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	go func() {
		near, err := front.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", address)
		if err != nil {
			near.Close()
			return
		}
		first := make([]byte, 4<<10) // the header is to come with a part of the handshake
		n, _ := near.Read(first)
		_, _ = far.Write(append([]byte(header), first[:n]...))
		go relay(near, far)
		relay(far, near)
	}()
	return prototest.DialTLS(t, front.Addr().String(), cfg)
}

// relay copies from one connection to another, and its end as well.
func relay(from, to net.Conn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// Headers of both versions say who the client is, wherever they are cut and whatever comes with them.
func TestProxyHeaders(t *testing.T) {
	local := proxyproto.HeaderProxyFromAddrs(2, nil, nil)
	overUnix := proxyproto.HeaderProxyFromAddrs(2, &net.UnixAddr{Net: "unix", Name: "/a"}, &net.UnixAddr{Net: "unix", Name: "/b"})
	tlv := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.IPv4(10, 1, 1, 1), Port: 11}, &net.TCPAddr{IP: net.IPv4(10, 1, 1, 2), Port: 22})
	if err := tlv.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: bytes.Repeat([]byte{'\n'}, 99)}}); err != nil {
		t.Fatal(err)
	}
	d := startProxied(t, nil)
	for _, c := range []struct{ header, client string }{ // without a client it is the proxy
		{from(t, 1, "10.1.2.3:4444"), "10.1.2.3:4444"},
		{from(t, 1, "[2001:db8::7]:4444"), "[2001:db8::7]:4444"},
		{"PROXY TCP6 ::ffff:10.1.2.3 ::1 4444 1\r\n", "10.1.2.3:4444"},
		{"PROXY UNKNOWN\r\n", ""},
		{"PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n", ""},
		{from(t, 2, "10.1.2.3:4444"), "10.1.2.3:4444"},
		{from(t, 2, "[2001:db8::7]:4444"), "[2001:db8::7]:4444"},
		{formatted(t, tlv), "10.1.1.1:11"},
		{formatted(t, local), ""},
		{formatted(t, overUnix), ""},
	} {
		for _, cut := range []int{0, 1, 5, len(c.header) - 1, len(c.header)} {
			client := d.dial()
			want := c.client
			if want == "" {
				want = client.Conn().LocalAddr().String()
			}
			text := c.header + "lock a 0\r\n"
			client.Write([]byte(text[:cut]))
			client.Write([]byte(text[cut:]))
			client.Expect("l locked")
			if got := d.key("a").Holder.Address; got != want {
				t.Errorf("%q: the client is %s, want %s", c.header, got, want)
			}
			leave(client)
		}
	}
	bytewise := d.dial()
	for _, b := range []byte(from(t, 1, "10.1.2.3:4444") + "unlock a\r\n") {
		bytewise.Write([]byte{b})
	}
	bytewise.Expect("e not locked")
	d.wantRefused(map[string]uint64{})
}

// A long pipeline comes with the header: nothing of it is lost.
func TestProxyPipeline(t *testing.T) {
	d := startProxied(t, nil)
	const pairs = 1000
	c := d.dial()
	c.Write([]byte(from(t, 2, "10.1.2.3:4444") + strings.Repeat("lock a 0\r\nunlock a\r\n", pairs)))
	for range pairs {
		c.Expect("l locked", "u unlocked")
	}
}

// Whatever is no header ends the connection.
func TestNoProxyHeader(t *testing.T) {
	datagram := proxyproto.HeaderProxyFromAddrs(2, &net.UDPAddr{IP: net.IPv4(10, 1, 1, 1), Port: 11}, &net.UDPAddr{IP: net.IPv4(10, 1, 1, 2), Port: 22})
	d := startProxied(t, nil)
	refused := uint64(0)
	for _, text := range []string{
		"lock a 0\r\n",
		"PRIVMSG all hello\r\n",
		"PROXY\r\n",
		"PROXY TCP4 10.1.2.3 10.9.9.9 4444\r\n",
		"PROXY TCP4 host 10.9.9.9 4444 6001\r\n",
		"PROXY TCP4 10.1.2.3 10.9.9.9 4444 6001\nlock a 0\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		from(t, 2, "10.1.2.3:4444")[:12] + "\x31\x11\x00\x00",
		formatted(t, datagram),
		"\x16\x03\x01\x00\x05hello",
	} {
		c := d.dial()
		c.Write([]byte(text))
		c.ExpectEnd()
		refused++
		d.wantRefused(map[string]uint64{api.RefusedProxyHeader: refused})
	}
	if n := len(d.log.containing("no PROXY header came", "proxy=", `"reason":`)); n != int(refused) {
		t.Errorf("%d lines in the log, want %d", n, refused)
	}

	// One that ends before it has sent anything may be a health check: it is counted, and the log is silent.
	c := d.dial()
	c.CloseWrite()
	c.ExpectEnd()
	d.wantRefused(map[string]uint64{api.RefusedProxyHeader: refused + 1})
	if n := len(d.log.containing("no PROXY header came", `"level":"warn"`)); n != int(refused) {
		t.Errorf("%d warnings in the log, want %d", n, refused)
	}
	d.wantConnections(0)
}

// Who is no proxy does not come in, header or not.
func TestNotAProxy(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) { cfg.Listen = []string{"127.0.0.1:0?proxy=10.0.0.0/8,127.0.0.2"} })
	c := d.dial()
	_, _ = c.Conn().Write([]byte(from(t, 1, "10.1.2.3:4444")))
	c.ExpectEnd()
	d.wantRefused(map[string]uint64{api.RefusedNotProxy: 1})
	if len(d.log.containing("it is none of the proxies", "proxy=", c.Conn().LocalAddr().String())) != 1 {
		t.Error("the log does not say so")
	}
	d.wantConnections(0)
}

// Behind a proxy, the address of the client counts and not that of the proxy.
func TestAllowBehindProxy(t *testing.T) {
	d := startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"127.0.0.1:0?proxy=127.0.0.1&allow=10.1.0.0/16,2001:db8::/32"}
	})
	for _, client := range []string{"10.1.2.3:4444", "[2001:db8::1]:4444"} {
		d.dialAs(t, client).Do("lock a 0", map[bool]string{true: "l locked", false: "t timeout"}[client[0] == '1'])
	}
	for _, client := range []string{"10.2.2.3:4444", "[2001:db9::1]:4444", "127.0.0.1:4444"} {
		d.dialAs(t, client).ExpectEnd()
	}
	local := d.dial()
	local.Write([]byte("PROXY UNKNOWN\r\n"))
	local.ExpectEnd()
	d.wantRefused(map[string]uint64{api.RefusedNotAllowed: 4})
	for _, client := range []string{"10.2.2.3:4444", "[2001:db9::1]:4444", "127.0.0.1:4444"} {
		if len(d.log.containing("allow=", client)) != 1 {
			t.Errorf("the log does not have %s", client)
		}
	}
	d.wantConnections(2)
}

// A limit for each address is that for each client behind the proxy. Clients on this machine do not count.
func TestLimitPerAddress(t *testing.T) {
	const limit = 3
	d := startProxied(t, func(cfg *Config) { cfg.MaxPerAddress = limit })
	var clients []*prototest.Client
	for _, host := range []string{"10.0.0.1", "10.0.0.2", "[2001:db8::1]"} {
		for i := range limit {
			c := d.dialAs(t, fmt.Sprintf("%s:%d", host, 1000+i))
			c.Do("unlock a", "e not locked")
			clients = append(clients, c)
		}
	}
	for i := range 2 * limit {
		c := d.dialAs(t, fmt.Sprintf("127.0.0.1:%d", 1000+i))
		c.Do("unlock a", "e not locked")
	}
	refused := uint64(0)
	for i := range limit { // who leaves makes room for one more of the same address
		for range 2 {
			c := d.dialAs(t, "10.0.0.1:2000")
			c.Expect("e too many connections")
			c.ExpectEnd()
			refused++
		}
		leave(clients[i])
		clients[i] = d.dialAs(t, fmt.Sprintf("10.0.0.1:%d", 3000+i))
		clients[i].Do("unlock a", "e not locked")
	}
	d.wantRefused(map[string]uint64{api.RefusedMaxPerAddress: refused})
	if len(d.log.containing("raise --max-connections-per-address", `"client":"10.0.0.1:2000"`)) != int(refused) {
		t.Error("the log does not say so")
	}
	d.wantConnections(len(clients) + 2*limit)
	for _, c := range clients {
		leave(c)
	}
	d.server.tally.mu.Lock()
	defer d.server.tally.mu.Unlock()
	if n := len(d.server.tally.count); n != 0 {
		t.Errorf("%d addresses are left in the tally", n)
	}
}

// At the limit of all connections, also a client behind a proxy hears why, over TLS too.
func TestLimitBehindProxy(t *testing.T) {
	ca := prototest.NewCA(t)
	d := startProxied(t, func(cfg *Config) {
		cfg.Listen = append(cfg.Listen, "tls://127.0.0.1:0")
		cfg.Certificates = loadCertificates(t, ca, nil)
		cfg.MaxConnections, cfg.MaxPerAddress = 1, 1
	})
	first := d.dialAs(t, "10.0.0.1:1")
	first.Do("unlock a", "e not locked")
	for range 3 {
		for _, c := range []*prototest.Client{
			d.dialAs(t, "10.0.0.1:2"), d.dialAs(t, "10.0.0.2:1"),
			prototest.DialTLS(t, hostOf(d.listen()[1]), &tls.Config{RootCAs: ca.Pool()}),
		} {
			c.Expect("e too many connections")
			c.ExpectEnd()
			c.Close()
		}
	}
	d.wantRefused(map[string]uint64{api.RefusedMaxConnections: 9})
	d.wantNoRefusals()
	leave(first)
	d.wantConnections(0)
	d.dialAs(t, "10.0.0.1:2").Do("unlock a", "e not locked")
}
