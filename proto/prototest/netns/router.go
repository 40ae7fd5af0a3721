package netns

import (
	"errors"
	"fmt"
	"os"
)

// Router is a host that carries packets between others, and can be told not to. Its methods are not safe from several
// goroutines, but for Cut and Heal.
type Router struct {
	host  *Host
	ports int // hosts that have joined
}

// The ways in which a router does not carry packets: it says nothing, or tells the sender.
const (
	Drop   = "blackhole"
	Reject = "unreachable"
)

// maxPorts is the largest number of hosts at a router: each has a subnet of its own.
const maxPorts = 255

// NewRouter makes a router. Its addresses are 10.78.0.0/16.
func NewRouter() (*Router, error) {
	h, err := New()
	if err != nil {
		return nil, err
	}
	err = h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a router: %w", err), h.Close())
	}
	return &Router{host: h}, nil
}

// Close gives the router up, and with it all links to it.
func (r *Router) Close() error { return r.host.Close() }

// Join makes a host with a link to the router, and returns it with its address.
func (r *Router) Join() (h *Host, address string, err error) {
	if r.ports == maxPorts {
		return nil, "", fmt.Errorf("a router has at most %d hosts", maxPorts)
	}
	if h, err = New(); err != nil {
		return nil, "", err
	}
	port := fmt.Sprintf("port%d", r.ports)
	gateway, address := fmt.Sprintf("10.78.%d.1", r.ports), fmt.Sprintf("10.78.%d.2", r.ports)
	r.ports++
	for _, step := range []struct {
		on   *Host
		args []string
	}{
		{r.host, []string{"link", "add", port, "type", "veth", "peer", "name", "uplink", "netns", h.path()}},
		{r.host, []string{"addr", "add", gateway + "/30", "dev", port}},
		{r.host, []string{"link", "set", port, "up"}},
		{h, []string{"addr", "add", address + "/30", "dev", "uplink"}},
		{h, []string{"link", "set", "uplink", "up"}},
		{h, []string{"route", "add", "default", "via", gateway}},
	} {
		if err := step.on.IP(step.args...); err != nil {
			return nil, "", errors.Join(err, h.Close())
		}
	}
	return h, address, nil
}

// Cut ends the way of packets from one address to another, by Drop or Reject. It is safe from any goroutine.
func (r *Router) Cut(from, to, how string) error {
	return r.host.IP("rule", "add", "from", from, "to", to, how)
}

// Heal undoes a Cut. It is safe from any goroutine.
func (r *Router) Heal(from, to, how string) error {
	return r.host.IP("rule", "del", "from", from, "to", to, how)
}
