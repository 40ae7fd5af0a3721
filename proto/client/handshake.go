package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
)

// refused returns an ErrHandshake if a handshake failed because one side does not accept the other, which it would not at
// the next attempt either. It returns nil if the connection failed: the next one may be better.
func refused(err error) error {
	var op *net.OpError
	switch {
	case isAlert(err):
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrHandshake, reasonOf(err), err)
}

// isAlert reports whether an error of a connection is what the server gave as its reason to end it. With TLS 1.3 a client
// has finished its handshake before the server has seen its certificate, so this may be all that comes instead of the first
// answer.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" // crypto/tls has no type for it
}

// reasonOf says which side does not accept the other, and what to look at.
func reasonOf(err error) string {
	var (
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	switch {
	case isAlert(err):
		return "the server does not accept this client, see Options.TLS.Certificates"
	case errors.As(err, &unknown):
		return "the server's certificate is not from a known authority, see Options.TLS.RootCAs"
	case errors.As(err, &name):
		return "the server's certificate is for another name, see the address and Options.TLS.ServerName"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the server's certificate has expired, or one of the clocks is wrong"
	case errors.As(err, &record):
		return "what listens there does not speak TLS"
	}
	return "the server cannot be trusted"
}
