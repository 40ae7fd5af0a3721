package client

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
)

// maxSocketPath is the longest path of a Unix socket, in bytes: the kernel's limit.
const maxSocketPath = 107

// Address is where a server listens.
type Address struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of the socket
	TLS     bool   // over TCP
}

// ParseAddress reads an address:
//
//	localhost:6001          TCP
//	tcp://localhost:6001    the same
//	tls://localhost:6002    TLS
//	unix:///run/lock.sock   a Unix socket, by its absolute path
//
// The error wraps ErrAddress.
func ParseAddress(text string) (Address, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "tcp", text
	}
	if before, _, found := strings.Cut(rest, "?"); found {
		return Address{}, badAddress(text, "what comes after ? is for the daemon: leave it out, as in "+scheme+"://"+before)
	}
	switch scheme {
	case "tcp", "tls":
		if _, port, err := net.SplitHostPort(rest); err != nil || port == "" {
			return Address{}, badAddress(text, "want host:port, such as localhost:6001 or [::1]:6001")
		}
		return Address{Network: "tcp", Address: rest, TLS: scheme == "tls"}, nil
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return Address{}, badAddress(text, "want an absolute path, as in unix:///run/lock.sock")
		}
		if len(rest) > maxSocketPath {
			return Address{}, badAddress(text, fmt.Sprintf("the path of a Unix socket has at most %d bytes", maxSocketPath))
		}
		return Address{Network: "unix", Address: rest}, nil
	}
	return Address{}, badAddress(text, "want host:port, tls://host:port or unix:///path")
}

// secure returns the configuration for TLS, nil for an address without it. The host of the address is the server's name
// unless the configuration has another one.
func (a Address) secure(configured *tls.Config) (*tls.Config, error) {
	if !a.TLS {
		if configured != nil && a.Network == "tcp" {
			return nil, badAddress(a.Address, "Options.TLS is set, but the connection would not be encrypted: want tls://host:port")
		}
		return nil, nil
	}
	cfg := configured.Clone()
	if cfg == nil {
		cfg = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(a.Address)
		if err != nil {
			return nil, badAddress(a.Address, err.Error())
		}
		cfg.ServerName, _, _ = strings.Cut(host, "%") // certificates know no zones
		if host == "" {
			cfg.ServerName = "localhost" // which is what an address without a host connects to
		}
	}
	return cfg, nil
}

func badAddress(text, why string) error { return fmt.Errorf("%w %q: %s", ErrAddress, text, why) }
