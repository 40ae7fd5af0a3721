package server

import (
	"errors"
	"net"
	"net/netip"

	"github.com/rs/zerolog"

	"dreadlock/proto"
	"dreadlock/server/api"
	"dreadlock/server/unixsock"
)

// arrival is a connection from the moment when it is accepted until a loop has a client for it. It belongs to the goroutine
// that brings it there.
//
//	admit ──► prepare, on some ways ──► worker.Accept: a session, or a refusal
//	  └─────────────┴─► what is kept out: reported, and counted out
//
// It is counted in when it is admitted, and either its client takes the count over or [arrival.leave] gives it back.
type arrival struct {
	counted standing
	refusal proto.Reply // what it hears if it is a refusal

	// What is known about the client, and the identity that its session begins with. Until the PROXY header was read the address
	// is that of the proxy.
	identity
}

// standing is what a connection is counted as.
type standing uint8

const (
	uncounted    standing = iota
	asConnection          // whose client is not known yet
	asClient              // also for its address, see tally
	asRefusal             // it will only hear that there are too many
)

// barrier is what keeps a connection out.
type barrier uint8

const (
	tooMany     barrier = iota // --max-connections
	tooManyHere                // --max-connections-per-address
	noMemory                   // --max-memory
	notAllowed                 // its address is not in allow=
	notProxy                   // it should come from a proxy
	noHeader                   // no PROXY header came
	noHandshake                // TLS
	lost                       // on the way to a loop: a shortage, of which the reactor warns, or the daemon stops
	barriers    int     = iota
)

var barrierWords = [barriers]string{
	tooMany:     api.RefusedMaxConnections,
	tooManyHere: api.RefusedMaxPerAddress,
	noMemory:    api.RefusedMaxMemory,
	notAllowed:  api.RefusedNotAllowed,
	notProxy:    api.RefusedNotProxy,
	noHeader:    api.RefusedProxyHeader,
	noHandshake: api.RefusedTLSHandshake,
	lost:        api.RefusedLost,
}

// barrierAdvice says what to do about a barrier.
var barrierAdvice = [barriers]string{
	tooMany:     "connection refused: raise --max-connections, or look for clients that leak connections",
	tooManyHere: "connection refused: raise --max-connections-per-address, or look for a leak of connections at this address",
	noMemory:    "connection refused: the memory of the daemon is used up: raise --max-memory, or look for clients that take too much",
	notAllowed:  "connection refused: to let it in, add its address to allow= of this way",
	notProxy:    "connection refused: it is none of the proxies; if it is one, add its address to proxy= of this way",
	noHeader:    "connection dropped: no PROXY header came: turn it on in the proxy, or leave out proxy= of this way",
	noHandshake: "connection dropped: the TLS handshake has failed",
}

// refusal returns what a client hears whom the barrier keeps out, 0 if that is nothing.
func (b barrier) refusal() proto.Reply {
	switch b {
	case tooMany, tooManyHere:
		return proto.TooManyConnections
	case noMemory:
		return proto.OutOfMemory
	}
	return 0
}

// barredError says that a connection is kept out.
type barredError struct {
	barrier barrier
	err     error // what has gone wrong, nil where that is a rule
}

func (b *barredError) Error() string {
	if b.err == nil {
		return barrierAdvice[b.barrier]
	}
	return barrierAdvice[b.barrier] + ": " + b.err.Error()
}

func (b *barredError) Unwrap() error { return b.err }

// admit decides about a connection that was accepted. Without ok it is closed.
func (srv *Server) admit(e *entrance, conn net.Conn) (a *arrival, ok bool) {
	a = &arrival{identity: identity{address: address{entrance: e}}}
	if e.client == "" {
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			a.address.AddrPort = unmapped(tcp)
		}
	} else {
		a.prove(unixsock.Peer(conn))
	}
	if err := a.enter(); err != nil {
		a.tell(conn, err)
		srv.abandoned(a, err)
		return nil, false
	}
	return a, true
}

func (a *arrival) server() *Server { return a.address.entrance.server }

// tell says why to a client that is about to be closed because there are too many, and too many that are told so at leisure.
// It cannot be said over TLS, and is lost if the client has sent something already: see [refusal].
func (a *arrival) tell(conn net.Conn, err error) {
	barred, ok := errors.AsType[*barredError](err)
	if ok && barred.barrier.refusal() != 0 && !a.address.entrance.tls {
		_, _ = conn.Write(barred.barrier.refusal().Append(nil)) // the socket is new and has room
	}
}

// prove says who the client is; empty says nothing.
func (a *arrival) prove(identity string) {
	if identity != "" {
		a.about = &about{proven: identity}
	}
}

// unmapped returns an address, and one of IPv4 always as such.
func unmapped(tcp *net.TCPAddr) netip.AddrPort {
	a := tcp.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// enter counts the connection in.
func (a *arrival) enter() error {
	e := a.address.entrance
	proxied := len(e.proxies) > 0
	switch {
	case proxied && !e.proxies.contain(a.address.Addr()):
		return &barredError{barrier: notProxy}
	case !proxied && !a.isAllowed():
		return &barredError{barrier: notAllowed}
	}
	if a.server().budget.now() >= full {
		return a.refuse(noMemory)
	}
	if a.server().connections.Add(1) > int64(a.server().cfg.MaxConnections) {
		a.server().connections.Add(-1)
		return a.refuse(tooMany)
	}
	a.counted = asConnection
	if proxied {
		return nil
	}
	return a.countAddress()
}

// introduce makes the connection that of the client for whom a proxy has opened it.
func (a *arrival) introduce(client netip.AddrPort) error {
	a.address.AddrPort = client
	if !a.isAllowed() {
		return &barredError{barrier: notAllowed}
	}
	return a.countAddress()
}

func (a *arrival) isAllowed() bool {
	allowed := a.address.entrance.allowed
	return len(allowed) == 0 || allowed.contain(a.address.Addr())
}

// countAddress counts the connection in for the address of its client.
func (a *arrival) countAddress() error {
	if a.counted != asConnection { // it is a refusal already
		return nil
	}
	if a.server().tally.add(a.address.Addr()) {
		a.counted = asClient
		return nil
	}
	a.leave()
	return a.refuse(tooManyHere)
}

// refuse makes the connection one that only hears that there are too many, unless too many of that kind are open.
func (a *arrival) refuse(b barrier) error {
	if a.server().refusals.Add(1) > maxRefusals {
		a.server().refusals.Add(-1)
		return &barredError{barrier: b}
	}
	a.counted, a.refusal = asRefusal, b.refusal()
	a.report(&barredError{barrier: b})
	return nil
}

// leave counts the connection out.
func (a *arrival) leave() {
	switch a.counted {
	case asClient:
		a.server().clientGone(a.address)
	case asConnection:
		a.server().connections.Add(-1)
	case asRefusal:
		a.server().refusals.Add(-1)
	}
	a.counted = uncounted
}

// clientGone counts out a connection whose client was known.
func (srv *Server) clientGone(from address) {
	srv.tally.remove(from.Addr())
	srv.connections.Add(-1)
}

// abandoned ends an arrival that gets to no loop.
func (srv *Server) abandoned(a *arrival, err error) {
	a.leave()
	barred, ok := errors.AsType[*barredError](err)
	if !ok {
		barred = &barredError{barrier: lost, err: err}
	}
	a.report(barred)
}

// report counts a connection that is kept out, and says what to do about it, within the bounds of [noise.Log].
func (a *arrival) report(b *barredError) {
	defer a.server().barred[b.barrier].Add(1) // after the line: who sees the count finds it
	a.server().history.refused(a, b.barrier)
	if b.barrier == lost {
		return
	}
	level := zerolog.WarnLevel
	if hungUp(b.err) { // it may be a health check, which comes again and again
		level = zerolog.DebugLevel
	}
	event := a.server().warnings.Event(level, a.address.source(), barrierAdvice[b.barrier]).
		Stringer("client", a.address).Str("listen", a.address.entrance.url)
	if proven := a.more().proven; proven != "" {
		event = event.Str("identity", proven)
	}
	if b.err != nil {
		event = event.Str("reason", plainReason(b.err))
	}
	event.Send()
}
