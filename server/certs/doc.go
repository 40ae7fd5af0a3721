// Package certs keeps the TLS certificate of the daemon and, for mutual TLS, the authority of its clients.
//
//	files ── Load ─────────► Store ── Config ──► every handshake asks for the newest
//	      ── Reload (SIGHUP) ──┘ ▲
//	      ── Watch, when they change
//
// A Store is made from readable files or not at all. Whatever becomes of the files later, it goes on with what it has read
// last: files that cannot be used are no reason to turn clients away, and are read again until they can.
//
// The oldest version of TLS is 1.2. With an authority for clients, a client must show a certificate of it in every
// handshake: sessions are not resumed, since a certificate that is not accepted any more would open them.
//
// Start reading at store.go; watch.go says when files are read again and when their expiry is warned of.
package certs
