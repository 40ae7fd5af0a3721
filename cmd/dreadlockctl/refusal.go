package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"dreadlock/proto"
	"dreadlock/proto/client"
)

// The texts of the daemon's answers to a wait that an operator has ended, and to one that it has ended itself.
var (
	kickedText   = strings.TrimSpace(proto.Kicked.Line()[len("e"):])
	deadlockText = strings.TrimSpace(proto.Deadlock.Line()[len("e"):])
)

// refusal explains why there is no lock, with advice.
func (c *lockCommand) refusal(g *globals, err error) error {
	var server *client.ServerError
	var unknown *net.DNSError
	var tables *client.TablesError
	var none *client.ServersError
	var other *client.OtherTableError
	switch {
	case errors.As(err, &tables):
		remedy := "start both with --fleet, or name one"
		if tables.Other == "" {
			remedy = "start a newer dreadlock there, or name one"
		}
		return failed(exitTables, "%s; %s", describe(tables), remedy)
	case errors.As(err, &none):
		return failed(exitUnreachable, "none of the daemons can be used: %s", reasons(none))
	case errors.As(err, &other):
		return failed(exitUnreachable, "%s did not come back: %s", other.Former, describe(err))
	case errors.Is(err, client.ErrTimeout):
		if c.Quiet {
			return &exit{c.ConflictExitCode, nil}
		}
		return failed(c.ConflictExitCode, "somebody else holds %s; dreadlockctl waiters %s%s shows who", c.shortKey(), c.shortKey(),
			g.whoseAdmin())
	case errors.As(err, &server) && server.Text == kickedText:
		return failed(exitKicked, "an operator has ended the wait for %s, with dreadlockctl kick or on the status page", c.shortKey())
	case errors.As(err, &server) && server.Text == deadlockText:
		return failed(exitDeadlock, "the wait for %s was part of a deadlock, and the daemon has ended it: take nested keys in the same "+
			"order everywhere", c.shortKey())
	case errors.As(err, &server):
		return failed(exitUnreachable, "the daemon at %s refuses: %s", g.Server, server.Text)
	case errors.Is(err, client.ErrHandshake):
		return handshakeRefusal(g.Server, "--server", &g.TLS, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failed(exitUnreachable, "nothing listens at %s: start dreadlock there, or give its address with --server ADDR or "+
			"DREADLOCK_SERVER (%s)", g.Server, describe(err))
	case errors.Is(err, fs.ErrNotExist):
		return failed(exitUnreachable, "there is no socket at %s: start dreadlock with --listen %s, or give its address with --server "+
			"ADDR or DREADLOCK_SERVER (%s)", g.Server, g.Server, describe(err))
	case errors.Is(err, fs.ErrPermission) && strings.HasPrefix(g.Server, "unix:"):
		return failed(exitUnreachable, "you may not use the socket at %s: join the group that owns it (%s)", g.Server, describe(err))
	case isSilentDNS(err):
		return failed(exitUnreachable, "the name server does not answer: give the address of the daemon as a number with --server ADDR or "+
			"DREADLOCK_SERVER (%s)", describe(err))
	case errors.As(err, &unknown):
		return failed(exitUnreachable, "there is no such host: give the address of the daemon with --server ADDR or "+
			"DREADLOCK_SERVER (%s)", describe(err))
	case errors.Is(err, client.ErrProtocol):
		return failed(exitUnreachable, "%s is not a lock daemon: is --server right? (%s)", g.Server, describe(err))
	case isNoWay(err):
		return failed(exitUnreachable, "there is no way from this machine to %s: is the address right, and the network up? (%s)",
			g.Server, describe(err))
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return failed(exitUnreachable, "the daemon at %s does not answer: it may be stopped, or a firewall may be in between (%s)",
			g.Server, describe(err))
	case errors.Is(err, client.ErrUnreachable) && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return failed(exitUnreachable, "the daemon at %s ended the handshake: does it speak TLS at this port, and let clients from here in? (%s)",
			g.Server, describe(err))
	case errors.Is(err, client.ErrConnectionLost) && !strings.Contains(g.Server, "://"):
		return failed(exitUnreachable, "the daemon at %s ended the connection: if it speaks TLS at this port, give tls://%s; or does it not "+
			"let clients from here in? (%s)", g.Server, g.Server, describe(err))
	}
	return failed(exitUnreachable, "the daemon at %s: %s", g.Server, describe(err))
}

// isSilentDNS reports whether a name could not be looked up, so that nobody knows whether there is such a host.
func isSilentDNS(err error) bool {
	var lookup *net.DNSError
	return errors.As(err, &lookup) && !lookup.IsNotFound
}

// isNoWay reports whether no network leads to an address.
func isNoWay(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// isTimeout reports whether there was no answer in time.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// reasons returns why each of several daemons cannot be used.
func reasons(none *client.ServersError) string {
	_, text, _ := strings.Cut(none.Error(), "no server can be used: ")
	return text
}

// whoseAdmin returns the options for a hint to the admin interface of the daemon: see naming. That of a daemon on another
// machine is not known.
func (g *globals) whoseAdmin() string {
	if addresses, err := client.ParseAddresses(g.Server); err == nil && g.Admin == "" && len(here(context.Background(), addresses)) == 0 {
		return " --admin URL, with the address of the admin interface of " + g.Server + ","
	}
	return g.naming()
}

// handshakeRefusal explains why TLS failed, with advice. The flag is that of the address.
func handshakeRefusal(where, flag string, o *tlsOptions, err error) error {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		alert   *net.OpError // from the daemon
	)
	switch {
	case errors.As(err, &unknown) && o.CA == "":
		return failed(exitUnreachable, "the certificate of the daemon at %s is not from an authority that this system trusts: give "+
			"the authority's certificate with --tls-ca FILE or DREADLOCK_TLS_CA (%w)", where, unknown)
	case errors.As(err, &unknown):
		return failed(exitUnreachable, "the certificate of the daemon at %s is not from the authority in %s: is --tls-ca right? (%w)",
			where, o.CA, unknown)
	case errors.As(err, &name):
		return failed(exitUnreachable, "the certificate of the daemon at %s is for another name: give a name that it is for with "+
			"%s (%w)", where, flag, name)
	case errors.As(err, &invalid):
		return failed(exitUnreachable, "the certificate of the daemon at %s cannot be used: renew it (%w)", where, invalid)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return failed(exitUnreachable, "what listens at %s does not speak TLS: is %s right? (%s)", where, flag, describe(err))
	case errors.As(err, &alert) && o.Cert == "":
		return failed(exitUnreachable, "the daemon at %s refuses the handshake: if it requires a client certificate, give one with "+
			"--tls-cert FILE and --tls-key FILE (%w)", where, alert)
	case errors.As(err, &alert):
		return failed(exitUnreachable, "the daemon at %s refuses the handshake: is the certificate in %s valid, and from the "+
			"authority that the daemon trusts? (%w)", where, o.Cert, alert)
	}
	return failed(exitUnreachable, "the daemon at %s: %s", where, describe(err))
}

// describe returns the text of an error of the client without the operation and the name of the package, which are for
// developers.
func describe(err error) string {
	text := err.Error()
	if _, after, found := strings.Cut(text, "client: "); found {
		return after
	}
	return text
}
