package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreadlock/proto/client"
	"dreadlock/server/admin/adminsock"
)

// lookupTime bounds how long a name server may take to say whether the daemon is on this machine.
const lookupTime = 2 * time.Second

// findAdmin returns the path of the admin socket of the daemon. It is on this machine, as it can be asked nowhere else
// without being told where.
func findAdmin(ctx context.Context, g *globals) (path string, err error) {
	daemons, err := client.ParseAddresses(g.Server)
	if err != nil {
		return "", badOption("--server: %s", describe(err))
	}
	local := here(ctx, daemons)
	switch {
	case len(local) == 0 && g.several():
		return "", failed(exitUnreachable, "the daemons at %s are on other machines: give the address of the admin interface of one with "+
			"--admin URL or DREADLOCK_ADMIN", g.Server)
	case len(local) == 0:
		return "", failed(exitUnreachable, "the daemon at %s is on another machine: give the address of its admin interface with "+
			"--admin URL or DREADLOCK_ADMIN", g.Server)
	}
	return choose(adminsock.Find(), local)
}

// here returns those of some daemons that are on this machine.
func here(ctx context.Context, daemons []client.Address) (local []client.Address) {
	for _, daemon := range daemons {
		if isHere(ctx, daemon) {
			local = append(local, daemon)
		}
	}
	return local
}

// isHere reports whether an address is one of this machine.
func isHere(ctx context.Context, a client.Address) bool {
	if a.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(a.Address)
	if err != nil {
		return false
	}
	if host == "" || host == "localhost" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	theirs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	ours, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(theirs, func(their net.IPAddr) bool {
		return their.IP.IsLoopback() || their.IP.IsUnspecified() || slices.ContainsFunc(ours, func(our net.Addr) bool {
			network, ok := our.(*net.IPNet)
			return ok && network.IP.Equal(their.IP)
		})
	})
}

// choose returns the socket of the daemon at one of the addresses: the only one, or of several the one with the port.
func choose(found []adminsock.Socket, daemons []client.Address) (path string, err error) {
	if len(found) == 0 {
		return "", failed(exitUnreachable, "no daemon has an admin socket in %s: start one without --admin off as this user or root, or "+
			"give the address of its admin interface with --admin URL or DREADLOCK_ADMIN", strings.Join(adminsock.Directories(), " or "))
	}
	one := found
	if len(one) > 1 {
		if one = withPorts(found, daemons); len(one) != 1 {
			one = usable(found)
		}
	}
	switch {
	case len(one) == 1 && one[0].Denied == nil:
		return one[0].Path, nil
	case len(one) < 2: // what there is belongs to others
		if len(one) == 1 {
			found = one
		}
		return "", failed(exitUnreachable, "you may not use the admin socket %s: run dreadlockctl as root or as the user of the daemon, or "+
			"give the address of an admin interface with --admin URL or DREADLOCK_ADMIN (%w)", paths(found), found[0].Denied)
	}
	return "", badOption("there are several daemons: choose one by its port, with --server localhost:PORT, or by its socket, with %s",
		asOptions(one))
}

// usable returns the sockets that this user may use.
func usable(found []adminsock.Socket) []adminsock.Socket {
	return slices.DeleteFunc(slices.Clone(found), func(s adminsock.Socket) bool { return s.Denied != nil })
}

// withPorts returns the sockets of the daemons with the ports of the addresses.
func withPorts(found []adminsock.Socket, daemons []client.Address) (those []adminsock.Socket) {
	var ports []int
	for _, daemon := range daemons {
		if port := portOf(daemon); !slices.Contains(ports, port) {
			ports = append(ports, port)
			those = append(those, withPort(found, port)...)
		}
	}
	return those
}

// withPort returns the sockets of the daemons with a port; of several those that this user may use.
func withPort(found []adminsock.Socket, port int) []adminsock.Socket {
	found = slices.DeleteFunc(slices.Clone(found), func(s adminsock.Socket) bool { return s.Port != port })
	if len(found) > 1 {
		return usable(found)
	}
	return found
}

// portOf returns the port of a daemon, 0 for a Unix socket.
func portOf(daemon client.Address) int {
	_, text, err := net.SplitHostPort(daemon.Address)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return port
}

// paths lists where sockets are.
func paths(found []adminsock.Socket) string {
	var all []string
	for _, s := range found {
		all = append(all, s.Path)
	}
	return strings.Join(all, " or ")
}

// asOptions names sockets as options.
func asOptions(found []adminsock.Socket) string {
	var options []string
	for _, s := range found {
		options = append(options, fmt.Sprintf("--admin %s", socketURL(s.Path)))
	}
	return strings.Join(options, " or ")
}

// socketURL returns the URL of a Unix socket.
func socketURL(path string) string {
	u := url.URL{Scheme: "unix", Path: path}
	return u.String()
}
