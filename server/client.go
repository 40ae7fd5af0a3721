package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"
)

// maxIdentity is the number of characters of a certificate's name that are shown.
const maxIdentity = 128

// certificateName returns who a certificate is for: its first DNS name, else its first URI, else its common name, else its
// whole subject.
func certificateName(cert *x509.Certificate) string {
	name := cert.Subject.CommonName
	switch {
	case len(cert.DNSNames) > 0:
		name = cert.DNSNames[0]
	case len(cert.URIs) > 0:
		name = cert.URIs[0].String()
	case name == "":
		name = cert.Subject.String()
	}
	return printable(name)
}

// printable returns a text that a terminal can show, and a table has room for.
func printable(text string) string {
	runes := []rune(text)
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	return string(runes[:min(len(runes), maxIdentity)])
}

// peerProcess returns the user and the process at the other end of a Unix socket: those that connected it.
func peerProcess(conn net.Conn) string {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return ""
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if failed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); failed != nil || err != nil {
		return ""
	}
	if cred.Pid == 0 { // in a namespace that is not seen from here
		return fmt.Sprintf("uid %d", cred.Uid)
	}
	return fmt.Sprintf("uid %d pid %d", cred.Uid, cred.Pid)
}

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
