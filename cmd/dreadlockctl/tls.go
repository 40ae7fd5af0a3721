package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
)

// tlsOptions are the options for connections with TLS.
type tlsOptions struct {
	CA   string `name:"tls-ca" placeholder:"FILE" help:"Authorities whose daemons are trusted, PEM. By default those of this system." env:"DREADLOCK_TLS_CA" group:"daemon"`
	Cert string `name:"tls-cert" placeholder:"FILE" help:"Certificate of this client, PEM, if the daemon requires one." env:"DREADLOCK_TLS_CERT" group:"daemon"`
	Key  string `name:"tls-key" placeholder:"FILE" help:"Its private key, PEM." env:"DREADLOCK_TLS_KEY" group:"daemon"`
}

// given reports whether any of the options is.
func (o *tlsOptions) given() bool { return *o != tlsOptions{} }

// config reads the files. The name of the server is left to the caller.
func (o *tlsOptions) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, badOption("--tls-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, badOption("--tls-ca %s: want a file with certificates in PEM", o.CA)
		}
	}
	switch {
	case o.Cert == "" && o.Key == "":
		return cfg, nil
	case o.Key == "":
		return nil, badOption("--tls-cert %s: give the private key of the certificate with --tls-key FILE", o.Cert)
	case o.Cert == "":
		return nil, badOption("--tls-key %s: give the certificate of the key with --tls-cert FILE", o.Key)
	}
	cert, err := os.ReadFile(o.Cert)
	if err != nil {
		return nil, badOption("--tls-cert: %w", err)
	}
	key, err := os.ReadFile(o.Key)
	if err != nil {
		return nil, badOption("--tls-key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, badOption("--tls-cert %s and --tls-key %s: want a certificate and its private key in PEM (%w)", o.Cert, o.Key, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// environment returns the options as variables for a command, which may change its directory. An empty one is to be unset.
func (o *tlsOptions) environment() (map[string]string, error) {
	variables := map[string]string{"DREADLOCK_TLS_CA": o.CA, "DREADLOCK_TLS_CERT": o.Cert, "DREADLOCK_TLS_KEY": o.Key}
	for name, path := range variables {
		if path == "" {
			continue
		}
		var err error
		if variables[name], err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	return variables, nil
}
