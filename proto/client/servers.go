package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// target is a server that a client was given.
type target struct {
	text    string // as it was given
	address Address
	tls     *tls.Config // nil unless the address has TLS
}

// endpoint is where a server is dialled: an address of its host.
type endpoint struct {
	target
	where string // ip:port or the path of a socket: what tells endpoints apart
	label string // for people: the text of the server, or ip:port if its host has several addresses
}

// ParseAddresses reads the addresses of one server or of several, with commas in between: see ParseAddress. A comma in a path is
// %2C. The error wraps ErrAddress.
func ParseAddresses(text string) ([]Address, error) {
	var all []Address
	for _, item := range itemsOf(text) {
		a, err := ParseAddress(item)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// itemsOf returns the items of a list with commas.
func itemsOf(list string) []string {
	items := strings.Split(list, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// parseServers reads the addresses of servers, in an order of its own: clients that were given the same list do not all begin
// with the same server.
func parseServers(list string, configured *tls.Config) ([]target, error) {
	var all []target
	for _, item := range itemsOf(list) {
		address, err := ParseAddress(item)
		if err != nil {
			return nil, err
		}
		secured, err := address.secure(configured)
		if err != nil {
			return nil, err
		}
		all = append(all, target{item, address, secured})
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all, nil
}

// endpoints returns where the servers are, at least one place, in the order in which they are to be tried. Names are looked up
// each time: what they stand for may change. The error is ErrUnreachable, or that of the context.
func (c *Client) endpoints(ctx context.Context) ([]endpoint, error) {
	limited, cancel := context.WithTimeout(ctx, c.options.DialTimeout)
	defer cancel()
	found, failures := make([][]endpoint, len(c.servers)), make([]error, len(c.servers))
	var lookups sync.WaitGroup
	for i := range c.servers {
		lookups.Go(func() { found[i], failures[i] = c.lookUp(limited, c.servers[i]) })
	}
	lookups.Wait()
	if err := endOf(ctx); err != nil {
		return nil, err
	}
	var all []endpoint
	for _, e := range slices.Concat(found...) {
		if !slices.ContainsFunc(all, func(other endpoint) bool { return other.where == e.where }) {
			all = append(all, e)
		}
	}
	first := c.options.First
	slices.SortStableFunc(all, func(a, b endpoint) int { return rank(!a.isCalled(first)) - rank(!b.isCalled(first)) })
	switch {
	case len(all) > 0:
		return all, nil
	case len(c.servers) == 1:
		return nil, failures[0]
	}
	none := &ServersError{}
	for i, s := range c.servers {
		none.Failures = append(none.Failures, Failure{s.text, failures[i]})
	}
	return nil, none
}

// isCalled reports whether that is how the endpoint is called.
func (e endpoint) isCalled(name string) bool {
	return name != "" && (name == e.label || name == e.text)
}

// rank is 1 for what comes later.
func rank(later bool) int {
	if later {
		return 1
	}
	return 0
}

// lookUp returns the addresses of a server. Those of a name come in an order of their own, but all of the family first that the
// system prefers: the other one may lead nowhere.
func (c *Client) lookUp(ctx context.Context, s target) ([]endpoint, error) {
	host, service, _ := net.SplitHostPort(s.address.Address)
	if _, err := netip.ParseAddr(host); s.address.Network == "unix" || host == "" || err == nil {
		return []endpoint{{s, s.address.Address, s.text}}, nil
	}
	failed := func(err error) error {
		return fmt.Errorf("%w: %w", ErrUnreachable, &net.OpError{Op: "dial", Net: s.address.Network, Err: err})
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, failed(err)
	}
	addresses, err := c.lookup(ctx, host)
	if err != nil {
		return nil, failed(err)
	}
	for i := range addresses {
		addresses[i] = addresses[i].Unmap()
	}
	preferred := addresses[0].Is4()
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	slices.SortStableFunc(addresses, func(a, b netip.Addr) int { return rank(a.Is4() != preferred) - rank(b.Is4() != preferred) })
	var all []endpoint
	for _, address := range addresses {
		where := net.JoinHostPort(address.String(), strconv.Itoa(port))
		all = append(all, endpoint{s, where, where})
	}
	if len(all) == 1 {
		all[0].label = s.text
	}
	return all, nil
}

// lookUpHost is Client.lookup, except in tests.
func lookUpHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}
