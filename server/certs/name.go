package certs

import (
	"crypto/x509"
	"unicode"
)

// maxIdentity is the number of characters of a certificate's name that are shown.
const maxIdentity = 128

// Name returns who a certificate is for: its first DNS name, else its first URI, else its common name, else its
// whole subject. A terminal can show it, and a table has room for it.
func Name(cert *x509.Certificate) string {
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
