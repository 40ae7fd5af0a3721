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
// does not refer to the socket. While nothing is under way it takes 7 to 11 KB, of which crypto/tls's buffers are 3.5.
type TLS struct {
	conn *tls.Conn
	wire wire
	err  error // what open returns from now on

	partial, longest int // bytes: of the record that has not come whole, at most; of the longest such record so far
	counted          int // bytes in the memory of the loop
}

// tlsScratch has room for the plaintext of one record. One serves all connections of a loop.
type tlsScratch [16 << 10]byte

// Handshake does the server's part of a TLS handshake on conn, until ctx is done. conn remains the caller's; after an error
// it can only be closed, because its deadline may be over, now or in a moment.
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
// but must not arrive there before open has returned.
//
// After the peer's close_notify the error is io.EOF, and answers can still be sealed. Any other error means that the peer
// has given up, or that what came is not what it sent. An error comes again at every call.
//
// What TLS has to say itself leaves with the next seal: the answer to a new key, and the alert that tells the peer of an
// error.
//
// A call takes time and memory in proportion to the ciphertext. That holds for records without content, too, of which
// crypto/tls allows 16 in a row; the dearest change the key, about 7 us each.
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
		if err == errNoInput { //nolint:errorlint // an error that wraps it is permanent
			return nil
		}
		t.err = err
	}
	t.wire.input = nil
	return t.err
}

// seal appends to dst what TLS has to say itself, then the records that carry p, which may be empty. Nothing carries p once
// closeNotify was called, or open has sent an alert.
func (t *TLS) seal(dst, p []byte) []byte {
	t.wire.output = append(dst, t.wire.output...)
	if len(p) > 0 {
		_, _ = t.conn.Write(p)
	}
	return t.wire.takeOutput()
}

// closeNotify appends to dst what TLS has to say itself, then the alert that ends our side. The peer can still send.
func (t *TLS) closeNotify(dst []byte) []byte {
	t.wire.output = append(dst, t.wire.output...)
	_ = t.conn.CloseWrite()
	return t.wire.takeOutput()
}

// errNoInput is the error of a wire without input.
var errNoInput = os.ErrDeadlineExceeded

// wire is the connection below crypto/tls.
type wire struct {
	net.Conn        // the socket; nil after the handshake
	input    []byte // ciphertext that crypto/tls has not read
	output   []byte // records that have not left
}

func (w *wire) Read(p []byte) (int, error) {
	if w.Conn != nil {
		return w.Conn.Read(p)
	}
	if len(w.input) == 0 {
		w.input = nil // it may lie at the end of something large
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

func (w *wire) takeOutput() []byte {
	output := w.output
	w.output = nil
	return output
}

// Close makes the handshake fail: crypto/tls calls it when the context is done, at any time until HandshakeContext returns
// and a moment after that. The socket is not ours to close.
func (w *wire) Close() error { return w.SetDeadline(time.Unix(1, 0)) }

// SetWriteDeadline does nothing: crypto/tls calls it for close_notify, which goes to memory.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
