package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

const (
	// DefaultPrefix is what the keys of a fleet begin with.
	DefaultPrefix = "/dreadlock"
	// DefaultTTL is the TTL of the lease of a daemon.
	DefaultTTL = 10 * time.Second
	// MinTTL leaves the lease some renewals within what is left of it after the margin.
	MinTTL = 5 * time.Second
	// maxTTL bounds what the keys of a daemon take to go on that has died.
	maxTTL = 10 * time.Minute
)

// ErrOption is wrapped by errors about options.
var ErrOption = errors.New("bad option")

// Config says which etcd to use, and how.
type Config struct {
	// Endpoints are the URLs of the members, at least one; all of one cluster. Without a scheme they are http.
	Endpoints []string
	// Prefix begins all keys of the fleet. Fleets with different ones have nothing in common.
	Prefix string
	// TTL is how long etcd keeps the lease of a daemon that it does not hear of, in whole seconds: [MinTTL] to 10 minutes.
	TTL time.Duration
	// CA is a file with the authorities of the members' certificates, PEM; empty for those of the system. It is read by New.
	CA string
	// Cert and Key are files with the certificate of this daemon and its key, PEM; empty for none. They are read for every connection.
	Cert, Key string
	// User is the name of a user of etcd, empty for none, and PasswordFile the file with the password, read for every connection.
	User, PasswordFile string
	// Address returns where others reach the daemon, for people to see. Safe from any goroutine.
	Address func() string
	// Version is that of the daemon.
	Version string
	// Log gets what the store has to say.
	Log zerolog.Logger
}

// validate reports the first option that cannot be used, by the name of its flag, and completes the others.
func (c *Config) validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("--fleet: want the URL of an etcd member")
	}
	for i, text := range c.Endpoints {
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("--fleet: %q is no endpoint of etcd: want http://HOST:PORT or https://HOST:PORT", c.Endpoints[i])
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "2379")
		}
		c.Endpoints[i] = u.Scheme + "://" + u.Host
		if u.Scheme == "http" && (c.CA != "" || c.Cert != "") {
			return fmt.Errorf("--fleet: %s is not encrypted: with --fleet-ca or --fleet-cert it has to be https", c.Endpoints[i])
		}
	}
	for i, e := range c.Endpoints {
		for _, before := range c.Endpoints[:i] {
			if e == before {
				return fmt.Errorf("--fleet: %s is there twice", e)
			}
		}
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	switch {
	case c.Prefix == "" || strings.ContainsFunc(c.Prefix, func(r rune) bool { return r <= ' ' || r == 0x7F }):
		return fmt.Errorf("--fleet-prefix: %q: want the beginning of keys, like %s", c.Prefix, DefaultPrefix)
	case c.TTL < MinTTL || c.TTL > maxTTL || c.TTL%time.Second != 0:
		return fmt.Errorf("--fleet-ttl: %s: want whole seconds, %s to %s", c.TTL, MinTTL, maxTTL)
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("--fleet-cert and --fleet-key: give both or neither")
	case (c.User == "") != (c.PasswordFile == ""):
		return errors.New("--fleet-user and --fleet-password-file: give both or neither")
	}
	if c.User != "" {
		if _, err := c.password(); err != nil {
			return err
		}
	}
	return nil
}

// password reads the password.
func (c *Config) password() (string, error) {
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("--fleet-password-file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("--fleet-password-file: %s has no password", c.PasswordFile)
	}
	return password, nil
}

// tls returns how connections are encrypted.
func (c *Config) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("--fleet-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--fleet-ca: %s has no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		read := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			if err != nil {
				return nil, fmt.Errorf("--fleet-cert, --fleet-key: %w", err)
			}
			return &cert, nil
		}
		if _, err := read(nil); err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = read
	}
	return cfg, nil
}
