package reactor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"time"
)

// A loop reads and writes its sockets itself, and crypto/tls wants a connection that blocks. So its connection is a wire:
// the socket during the handshake, which has a goroutine to block, then memory.
//
//	        Handshake                               on the loop
//	tls.Conn ◄──► wire ◄──► socket       open: ciphertext ──► wire ──► tls.Conn ──► take
//	                                     seal: plaintext ──► tls.Conn ──► wire ──► records
//
// Where the ciphertext ends, also in the middle of a record, the wire is like a socket whose deadline for reading is over.
// That reading can go on afterwards is nowhere promised by crypto/tls, but net/http needs it as well, whenever it hands a
// connection over.

// TLS is the encryption of one connection, on the server's side. It belongs to the connection, and thus to its loop. It
// does not refer to the socket.
type TLS struct {
	conn *tls.Conn
	wire wire
	err  error // what open returns from now on
}

// tlsScratch has room for the plaintext of one record. One serves all connections of a loop.
type tlsScratch [16 << 10]byte

// Handshake does the server's part of a TLS handshake on conn, until ctx is done. conn remains the caller's, but after an
// error it is only good for being closed: its deadline may be over, now or soon.
func Handshake(ctx context.Context, conn net.Conn, cfg *tls.Config) (*TLS, error) {
	t := &TLS{wire: wire{Conn: conn}}
	t.conn = tls.Server(&t.wire, cfg)
	if err := t.conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	t.wire.Conn = nil
	return t, nil
}

// State describes the connection: its version, the client's certificates and so on.
func (t *TLS) State() tls.ConnectionState { return t.conn.ConnectionState() }

// open decrypts what was read from the socket and calls take with each piece of plaintext, which is valid during the call.
// It must be called once without ciphertext, for what was read beyond the handshake. take may call seal. When take returns
// false, open keeps the rest for the next call and returns nil. The connection may be on its way to another loop by then,
// but must not arrive before open has returned.
//
// After the peer's close_notify the error is io.EOF. Any other error means that the protocol was broken; it comes again at
// every call. What TLS has to say itself, such as an alert that tells the peer of the error or the answer to a new key,
// leaves with the next seal.
//
// The time that a call takes is bounded by the length of the ciphertext. Records that carry nothing cost the peer as much
// as others, and crypto/tls allows 16 of them in a row.
func (t *TLS) open(ciphertext []byte, scratch *tlsScratch, take func(plain []byte) (more bool)) error {
	if len(t.wire.input) == 0 {
		t.wire.input = ciphertext
	} else {
		t.wire.input = append(t.wire.input, ciphertext...)
	}
	for t.err == nil {
		n, err := t.conn.Read(scratch[:])
		if n > 0 && !take(scratch[:n]) {
			t.wire.input = bytes.Clone(t.wire.input)
			return nil // err comes again
		}
		switch err {
		case nil:
		case errNoInput:
			return nil
		default:
			t.err = err
		}
	}
	return t.err
}

// seal appends to dst what TLS has to send itself, then the records that carry p, which may be empty. After closeNotify, or
// an error of open other than io.EOF, p is dropped.
func (t *TLS) seal(dst, p []byte) []byte {
	t.wire.output = append(dst, t.wire.output...)
	if len(p) > 0 {
		_, _ = t.conn.Write(p)
	}
	return t.wire.take()
}

// closeNotify appends to dst what ends our side, and what seal would have. The peer can still send.
func (t *TLS) closeNotify(dst []byte) []byte {
	t.wire.output = append(dst, t.wire.output...)
	_ = t.conn.CloseWrite()
	return t.wire.take()
}

// errNoInput is the error of a wire without input. It is compared by identity: if crypto/tls ever made it permanent, that
// would be an error which wraps it.
var errNoInput = os.ErrDeadlineExceeded

// wire is the connection below TLS.
type wire struct {
	net.Conn        // the socket; nil after the handshake
	input    []byte // ciphertext that was read and not decrypted
	output   []byte // records to be sent
}

func (w *wire) Read(p []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Read(p)
	}
	if len(w.input) == 0 {
		return 0, errNoInput
	}
	n := copy(p, w.input)
	w.input = w.input[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Write(p)
	}
	w.output = append(w.output, p...)
	return len(p), nil
}

// take returns the output and forgets it.
func (w *wire) take() []byte {
	output := w.output
	w.output = nil
	return output
}

// Close ends the handshake: crypto/tls calls it when the context is done.
func (w *wire) Close() error { return w.SetDeadline(time.Unix(1, 0)) }

// SetWriteDeadline does nothing: crypto/tls calls it for close_notify, which is written to memory.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
