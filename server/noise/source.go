package noise

import (
	"cmp"
	"net"
	"net/netip"
)

// Source is what counts as one client: an address of IPv4, the 64 bits of IPv6 that one host may have all of, or all who come
// by one Unix socket. It can be compared.
type Source struct {
	from netip.Prefix
	path string
}

// Address returns the source at an address; all that have no valid one are the same.
func Address(addr netip.Addr) Source {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	from, _ := addr.Prefix(bits) // fails for an invalid address only
	return Source{from: from}
}

// Socket returns the source behind a Unix socket, by how the log shows it.
func Socket(path string) Source { return Source{path: path} }

// Remote returns the source at the other end of a connection.
func Remote(addr net.Addr) Source {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return Address(tcp.AddrPort().Addr())
	}
	return Source{}
}

// String returns the address, the prefix of IPv6 or the path.
func (s Source) String() string {
	switch {
	case !s.from.IsValid():
		return s.path
	case s.from.IsSingleIP():
		return s.from.Addr().String()
	}
	return s.from.String()
}

func (s Source) compare(o Source) int {
	return cmp.Or(s.from.Compare(o.from), cmp.Compare(s.path, o.path))
}
