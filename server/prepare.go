package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"dreadlock/reactor"
	"dreadlock/server/certs"
)

// prepareTime bounds how long a client may take for the PROXY header and the TLS handshake.
const prepareTime = 10 * time.Second

// preparation returns what has to be done with a connection before a loop gets it, nil if there is nothing.
func (srv *Server) preparation(e *entrance) func(context.Context, net.Conn, any) (reactor.Prepared, error) {
	if len(e.proxies) == 0 && !e.tls {
		return nil
	}
	return func(ctx context.Context, conn net.Conn, info any) (reactor.Prepared, error) {
		bounded, cancel := context.WithTimeout(ctx, prepareTime)
		defer cancel()
		p, err := info.(*arrival).prepare(bounded, conn)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // the daemon stops: it is not the client's fault
		}
		return p, err
	}
}

// prepare reads the PROXY header and does the TLS handshake, where the way has them.
func (a *arrival) prepare(ctx context.Context, conn net.Conn) (p reactor.Prepared, err error) {
	e := a.address.entrance
	if len(e.proxies) > 0 {
		client, rest, err := readHeader(ctx, conn)
		if err != nil {
			return p, &barredError{noHeader, err}
		}
		if !client.IsValid() {
			client = a.address.AddrPort
		}
		if err := a.introduce(client); err != nil {
			a.tell(conn, err)
			return p, err
		}
		p.Input = rest
	}
	if !e.tls {
		return p, nil
	}
	in := &prefixed{Conn: conn, first: p.Input}
	if p.TLS, err = reactor.Handshake(ctx, in, a.server().cfg.Certificates.Config()); err != nil {
		if ctx.Err() == nil && !hungUp(err) {
			awaitEnd(ctx, conn)
		}
		return p, &barredError{noHandshake, err}
	}
	p.Input = in.first
	if shown := p.TLS.State().PeerCertificates; len(shown) > 0 {
		a.prove(certs.Name(shown[0]))
	}
	return p, nil
}

// awaitEnd gives the client of a failed handshake some time to read why, and to close, unless ctx is done: if its input is unread
// when the connection is closed, the kernel resets the connection, and what the client was told could be lost.
func awaitEnd(ctx context.Context, conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // an error ends the reading as well
	}
	// Deadlines cannot be set only on a closed connection, from which nothing can be read either.
	_ = conn.SetReadDeadline(time.Now().Add(refusalTime))
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = io.CopyN(io.Discard, conn, maxIgnored) // ends when the client closes, or its time is up
}

// maxIgnored is the number of bytes that are read of a client that has failed.
const maxIgnored = 64 << 10

// prefixed is a connection of which something was read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (c *prefixed) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// readHeader reads a PROXY header, until ctx is done. It returns the address of the client, invalid if the header has none, and
// what was read after the header.
func readHeader(ctx context.Context, conn net.Conn) (client netip.AddrPort, rest []byte, err error) {
	// Fails only if the connection is closed, and the reading with it.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	in := bufio.NewReader(&headerReader{conn: conn})
	var header *proxyproto.Header
	if _, err = in.Peek(1); err == nil { // the library does not tell the end of the input from another protocol
		header, err = proxyproto.Read(in)
	}
	if !stop() {
		err = ctx.Err() // the deadline is over, or will be
	}
	if err != nil {
		return client, nil, err
	}
	if !header.Command.IsLocal() {
		switch source := header.SourceAddr.(type) {
		case *net.TCPAddr:
			client = unmapped(source)
		case *net.UDPAddr:
			return client, nil, errors.New("it is about a datagram")
		}
	}
	rest, _ = in.Peek(in.Buffered()) // that many are there
	return client, bytes.Clone(rest), nil
}

// headerReader reads a header of version 1 in one piece, which the library wants, however it comes.
type headerReader struct {
	conn  net.Conn
	begun bool
}

// maxHeaderLine is the size of the longest header of version 1.
const maxHeaderLine = 107

func (r *headerReader) Read(p []byte) (n int, err error) {
	if r.begun {
		return r.conn.Read(p)
	}
	r.begun = true
	for {
		m, err := r.conn.Read(p[n:])
		n += m
		if err != nil || p[0] != proxyproto.SIGV1[0] || n >= maxHeaderLine || bytes.IndexByte(p[:n], '\n') >= 0 {
			return n, err
		}
	}
}
