package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"dreadlock/server/unixsock"
)

// way is one --listen: where clients come in, and which.
//
//	HOST:PORT  tcp://HOST:PORT  tls://HOST:PORT    ?proxy=CIDR,...  ?allow=CIDR,...
//	unix:///PATH                                   ?mode=0660  ?group=NAME
//	fd://  fd://NAME                               ?tls=1  ?proxy=CIDR,...  ?allow=CIDR,...
type way struct {
	text   string // as it was given
	scheme string // tcp, unix or fd
	tls    bool

	address string           // of tcp: host:port
	socket  unixsock.Address // of unix
	name    string           // of fd; empty for all sockets that were passed

	proxies prefixes // who has to begin with a PROXY header, and nobody else comes in; empty if there is to be none
	allowed prefixes // the clients that come in; empty for all
}

// defaultMode lets the user and the group of the daemon connect to a Unix socket.
const defaultMode = 0o660

// parameters are what may follow the question mark, by scheme.
var parameters = map[string][]string{
	"tcp":  {"proxy", "allow"},
	"unix": {"mode", "group"},
	"fd":   {"tls", "proxy", "allow"},
}

// parseWays parses all --listen. Errors name the flag and say what is wanted.
func parseWays(texts []string) ([]*way, error) {
	if len(texts) == 0 {
		return nil, errors.New("--listen: want at least one address, like :6001")
	}
	var ways []*way
	for _, text := range texts {
		w, err := parseWay(text)
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", text, err)
		}
		if i := slices.IndexFunc(ways, w.clashes); i >= 0 {
			return nil, fmt.Errorf("--listen %s: --listen %s is the same address: give it once", text, ways[i].text)
		}
		ways = append(ways, w)
	}
	return ways, nil
}

// clashes reports whether two ways are the same address. The kernel finds out about those that only overlap.
func (w *way) clashes(o *way) bool {
	if w.scheme != o.scheme {
		return false
	}
	switch w.scheme {
	case "unix":
		return filepath.Clean(w.socket.Path) == filepath.Clean(o.socket.Path)
	case "fd":
		return w.name == o.name || w.name == "" || o.name == ""
	}
	return strings.EqualFold(w.address, o.address) && !strings.HasSuffix(w.address, ":0")
}

func parseWay(text string) (*way, error) {
	w := &way{text: text, scheme: "tcp"}
	rest, query, _ := strings.Cut(text, "?")
	if scheme, after, found := strings.Cut(rest, "://"); found {
		w.scheme, rest = scheme, after
	}
	var err error
	switch w.scheme {
	case "tls":
		w.scheme, w.tls = "tcp", true
		w.address, err = parseAddress(rest)
	case "tcp":
		w.address, err = parseAddress(rest)
	case "unix":
		w.socket, err = parseSocket(text)
	case "fd":
		w.name, err = url.PathUnescape(rest)
	default:
		return nil, errors.New("want HOST:PORT, tls://HOST:PORT, unix:///PATH or fd://NAME")
	}
	if err != nil {
		return nil, err
	}
	return w, w.parseParameters(query)
}

func parseAddress(text string) (string, error) {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("want host:port or :port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", errors.New("the port must be a number from 0 to 65535")
	}
	return text, nil
}

func parseSocket(text string) (unixsock.Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return unixsock.Address{}, err
	}
	return unixsock.ParseURL(u, defaultMode)
}

// parseParameters parses what follows the question mark.
func (w *way) parseParameters(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	for name, given := range values {
		known := parameters[w.scheme]
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown parameter %s: here can be %s", name, strings.Join(known, ", "))
		}
		if len(given) > 1 {
			return fmt.Errorf("%s is given %d times: give it once, with commas between its values", name, len(given))
		}
		if err := w.setParameter(name, given[0]); err != nil {
			return fmt.Errorf("%s=%s: %w", name, given[0], err)
		}
	}
	return nil
}

// setParameter sets a parameter, except those of a Unix socket, which parseSocket has set.
func (w *way) setParameter(name, value string) (err error) {
	switch name {
	case "proxy":
		w.proxies, err = parsePrefixes(value)
	case "allow":
		w.allowed, err = parsePrefixes(value)
	case "tls":
		if w.tls = value == "1"; !w.tls {
			return errors.New("want tls=1, or leave it out")
		}
	}
	return err
}

// prefixes are ranges of IP addresses.
type prefixes []netip.Prefix

// parsePrefixes parses ranges and addresses, separated by commas.
func parsePrefixes(text string) (ps prefixes, err error) {
	for part := range strings.SplitSeq(text, ",") {
		if addr, err := netip.ParseAddr(part); err == nil && addr.Zone() == "" {
			part += "/" + strconv.Itoa(addr.BitLen())
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("%q is no range of addresses: want 10.0.0.0/8,2001:db8::/32 or single addresses", part)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%s has bits beyond its length: want %s, or a single address", part, p.Masked())
		}
		if p.Addr().Is4In6() {
			return nil, fmt.Errorf("%s is an IPv4 address in IPv6: give it as IPv4", part)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// contain reports whether an address is in one of the ranges.
func (ps prefixes) contain(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(addr) })
}
