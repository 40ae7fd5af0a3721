package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
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
// Those with a scheme are URLs: a blank in a path is %20. The error wraps ErrAddress.
func ParseAddress(text string) (Address, error) {
	if !strings.Contains(text, "://") {
		switch {
		case !isHostPort(text):
			return Address{}, badAddress(text, "want host:port, tls://host:port or unix:///path")
		case !hasPort(text):
			return Address{}, badAddress(text, noPort)
		}
		return Address{Network: "tcp", Address: text}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // without the address
		}
		return Address{}, badAddress(text, err.Error())
	}
	switch {
	case u.Scheme != "tcp" && u.Scheme != "tls" && u.Scheme != "unix":
		return Address{}, badAddress(text, "want host:port, tls://host:port or unix:///path")
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return Address{}, badAddress(text, "want "+u.Scheme+"://"+u.Host+u.EscapedPath()+" alone: what comes after ? is for the daemon")
	case u.Scheme != "unix":
		if u.Path != "" || !isHostPort(u.Host) {
			return Address{}, badAddress(text, "want "+u.Scheme+"://host:port, such as "+u.Scheme+"://localhost:6001")
		}
		if !hasPort(u.Host) {
			return Address{}, badAddress(text, noPort)
		}
		return Address{Network: "tcp", Address: u.Host, TLS: u.Scheme == "tls"}, nil
	case u.Host != "" || len(u.Path) < 2:
		return Address{}, badAddress(text, "want unix:///path, with three slashes")
	case len(u.Path) > maxSocketPath:
		return Address{}, badAddress(text, fmt.Sprintf("the path of a Unix socket has at most %d bytes", maxSocketPath))
	}
	return Address{Network: "unix", Address: u.Path}, nil
}

func isHostPort(text string) bool {
	_, port, err := net.SplitHostPort(text)
	return err == nil && port != "" && !strings.Contains(text, "/")
}

// noPort says that nobody can listen on a port.
const noPort = "the port must be a number from 1 to 65535"

// hasPort reports whether the port of host:port can be one: it may also be the name of a service that this machine knows.
func hasPort(hostPort string) bool {
	_, text, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	port, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", text)
	return err == nil && port > 0
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
