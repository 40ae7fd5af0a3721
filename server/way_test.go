package server

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"dreadlock/server/unixsock"
)

func TestParseWays(t *testing.T) {
	prefix := func(texts ...string) (ps prefixes) {
		for _, text := range texts {
			ps = append(ps, netip.MustParsePrefix(text))
		}
		return ps
	}
	for text, want := range map[string]way{
		":6001":                        {scheme: "tcp", address: ":6001"},
		"localhost:0":                  {scheme: "tcp", address: "localhost:0"},
		"tcp://[::1]:1":                {scheme: "tcp", address: "[::1]:1"},
		"tls://10.0.0.1:6002":          {scheme: "tcp", tls: true, address: "10.0.0.1:6002"},
		":1?allow=10.1.0.0/16,::1":     {scheme: "tcp", address: ":1", allowed: prefix("10.1.0.0/16", "::1/128")},
		":1?proxy=10.0.0.1&allow=::/0": {scheme: "tcp", address: ":1", proxies: prefix("10.0.0.1/32"), allowed: prefix("::/0")},
		"unix:///run/a//b.sock":        {scheme: "unix", socket: unixsock.Address{Path: "/run/a//b.sock", Mode: 0o660}},
		"unix:///a%3Fb":                {scheme: "unix", socket: unixsock.Address{Path: "/a?b", Mode: 0o660}},
		"unix:///s?mode=600&group=g":   {scheme: "unix", socket: unixsock.Address{Path: "/s", Mode: 0o600, Group: "g"}},
		"fd://":                        {scheme: "fd"},
		"fd://web?tls=1":               {scheme: "fd", tls: true, name: "web"},
		"fd://?proxy=::1":              {scheme: "fd", proxies: prefix("::1/128")},
	} {
		want.text = text
		got, err := parseWays([]string{text})
		if err != nil || !reflect.DeepEqual(*got[0], want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestBadWays(t *testing.T) {
	for _, c := range []struct{ listen, says string }{
		{"", "want at least one address"},
		{"6001", "--listen 6001: want host:port or :port"},
		{"::1:1", "want host:port"},
		{":x", "the port must be a number from 0 to 65535"},
		{":65536", "the port must be"},
		{"http://:1", "want HOST:PORT, tls://HOST:PORT, unix:///PATH or fd://NAME"},
		{":1?alow=::1", "unknown parameter alow: here can be proxy, allow"},
		{":1?mode=0600", "unknown parameter mode"},
		{"unix:///s?allow=::1", "unknown parameter allow: here can be mode, group"},
		{"fd://?mode=0600", "unknown parameter mode: here can be tls, proxy, allow"},
		{":1?allow=::1&allow=::2", "allow is given 2 times"},
		{":1?allow=", `allow=: "" is no range of addresses`},
		{":1?allow=host", `"host" is no range`},
		{":1?allow=10.0.0.0/33", `"10.0.0.0/33" is no range`},
		{":1?allow=10.0.0.1/8", "want 10.0.0.0/8"},
		{":1?allow=::ffff:10.0.0.1", "give it as IPv4"},
		{":1?allow=::ffff:10.0.0.0/104", "give it as IPv4"},
		{":1?allow=fe80::1%25eth0", "is no range"},
		{":1?allow=%zz", "--listen :1?allow=%zz: "},
		{"unix://s", "want unix:///PATH"},
		{"unix://", "want unix:///PATH"},
		{"unix:///s?mode=0999", "mode=0999: want an octal number"},
		{"unix:///s?mode=02000", "want an octal number"},
		{"fd://?tls=yes", "want tls=1"},
		{"tls://:1", "--listen tls://:1: TLS needs --tls-cert and --tls-key"},
		{"fd://?tls=1", "TLS needs"},
		{":1 tcp://:1", "--listen tcp://:1: --listen :1 is the same address: give it once"},
		{"LOCALHOST:1 tls://localhost:1?allow=::1", "is the same address"},
		{"unix:///a/b unix:///a/../a/b?mode=0600", "is the same address"},
		{"fd://a fd://a", "is the same address"},
		{"fd:// fd://a", "is the same address"},
	} {
		cfg := DefaultConfig()
		cfg.Listen = strings.Fields(c.listen)
		if err := cfg.Validate(); !errors.Is(err, ErrOption) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.listen, err, c.says)
		}
	}
	cfg := DefaultConfig()
	cfg.Listen = []string{":0", ":0", "127.0.0.1:0", "fd://a", "fd://b", "unix:///a", "unix:///b"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
