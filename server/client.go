package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// hungUp reports whether a connection has failed because the client ended it.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// plainReason says in plain words why no client came of a connection.
func plainReason(err error) string {
	if hungUp(err) {
		return "the client hung up"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("the client took more than %s", prepareTime)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the client does not speak TLS"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate of the client is not of an authority in --tls-client-ca"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			return "the certificate of the client has expired, or is not valid yet: " + invalid.Detail
		case x509.IncompatibleUsage:
			return "the certificate of the client is not for clients: its extended key usage lacks clientAuth"
		}
	}
	text := err.Error()
	for _, prefix := range []string{"TLS handshake: ", "tls: ", "proxyproto: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if alert, ok := strings.CutPrefix(text, "remote error: tls: "); ok {
		return "the client does not go on, it says: " + alert
	}
	if text == "client didn't provide a certificate" {
		return "the client has shown no certificate: it needs one of an authority in --tls-client-ca"
	}
	return text
}
