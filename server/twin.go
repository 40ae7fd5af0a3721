package server

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// twinTime bounds how long the other loopback address may take to answer. It is on this machine.
const twinTime = time.Second

// warnOfTwins warns if the other loopback address of a port leads to somebody else, which the kernel allows: "localhost" is both
// addresses, so its clients would use one lock table or another.
func (srv *Server) warnOfTwins(ctx context.Context, entrances []*entrance) {
	var ours []netip.AddrPort
	for _, e := range entrances {
		if tcp, ok := e.listener.Addr().(*net.TCPAddr); ok {
			ours = append(ours, unmapped(tcp))
		}
	}
	for _, address := range ours {
		twin, ok := twinOf(address)
		if !ok || slices.Contains(ours, twin) {
			continue
		}
		dialer := net.Dialer{Timeout: twinTime}
		conn, err := dialer.DialContext(ctx, "tcp", twin.String())
		if err != nil {
			continue // nobody is there
		}
		_ = conn.Close()
		srv.cfg.Log.Warn().Stringer("address", address).Stringer("other", twin).
			Msg("somebody else listens on the other loopback address of this port: if it is a daemon too, clients of localhost use " +
				"one lock table or another. Stop it, or listen on the port without a host")
	}
}

// twinOf returns the loopback address of the other IP family, on the same port, if clients of "localhost" reach the address.
// One that is every address of both families has no twin.
func twinOf(address netip.AddrPort) (twin netip.AddrPort, ok bool) {
	ip := address.Addr()
	four := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch {
	case ip == four, ip == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), address.Port()), true
	case ip == netip.IPv6Loopback():
		return netip.AddrPortFrom(four, address.Port()), true
	}
	return netip.AddrPort{}, false
}
