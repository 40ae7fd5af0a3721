package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// resolver is a name server of a test.
type resolver map[string][]string

func (r resolver) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, a := range r[host] {
		all = append(all, netip.MustParseAddr(a))
	}
	if len(all) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return all, nil
}

func TestParseAddresses(t *testing.T) {
	all, err := ParseAddresses("a:6001, tls://b:6002,unix:///run/a%2Cb.sock")
	want := []Address{{"tcp", "a:6001", false}, {"tcp", "b:6002", true}, {"unix", "/run/a,b.sock", false}}
	if err != nil || !slices.Equal(all, want) {
		t.Errorf("%+v, %v", all, err)
	}
	for _, list := range []string{"", "a:6001,", ",a:6001", "a:6001,,b:6001", "a:6001 b:6001", "a:6001,b"} {
		if all, err := ParseAddresses(list); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %+v, %v", list, all, err)
		}
		_, err := newClient(t, list, Options{}).TryLock(patient(t), "a")
		wantErr(t, err, ErrAddress)
	}
	_, err = newClient(t, "tls://a:6001,b:6001", Options{TLS: &tls.Config{}}).TryLock(patient(t), "a")
	wantErr(t, err, ErrAddress)
}

// where returns where endpoints are.
func where(all []endpoint) string {
	var places []string
	for _, e := range all {
		places = append(places, e.where)
	}
	return strings.Join(places, " ")
}

// Each name stands for all its addresses, and each address is there once.
func TestEndpoints(t *testing.T) {
	names := resolver{
		"one": {"10.0.0.1"}, "two": {"10.0.0.2", "::ffff:10.0.0.3"}, "both": {"fd00::1", "fd00::2", "10.0.0.4", "fd00::3"},
	}
	endpoints := func(list string, o Options) ([]endpoint, error) {
		c := newClient(t, list, o)
		c.lookup = names.lookup
		return c.endpoints(patient(t))
	}
	for list, want := range map[string]string{
		"one:6001":                 "10.0.0.1:6001",
		"10.0.0.9:6001":            "10.0.0.9:6001",
		":6001":                    ":6001",
		"[fd00::9%lo]:6001":        "[fd00::9%lo]:6001",
		"unix:///s":                "/s",
		"one:6001,10.0.0.1:6001":   "10.0.0.1:6001",
		"one:6001,nowhere:6001":    "10.0.0.1:6001",
		"one:http":                 "10.0.0.1:80",
		"two:1,one:2,10.0.0.3:1":   "10.0.0.1:2 10.0.0.2:1 10.0.0.3:1",
		"tls://two:1,unix:///a%2C": "/a, 10.0.0.2:1 10.0.0.3:1",
	} {
		all, err := endpoints(list, Options{})
		slices.SortFunc(all, func(a, b endpoint) int { return strings.Compare(a.where, b.where) })
		if got := where(all); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", list, got, err, want)
		}
	}
	_, err := endpoints("nowhere:6001", Options{})
	wantErr(t, err, ErrUnreachable)
	_, err = endpoints("nowhere:6001,nohow:6001", Options{})
	var none *ServersError
	if !errors.As(err, &none) || len(none.Failures) != 2 || !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}

	// Clients begin with different ones, but not with the other family.
	first, last := map[string]bool{}, map[string]bool{}
	for range 200 {
		all, _ := endpoints("both:1", Options{})
		first[all[0].where], last[all[3].where] = true, true
		all, _ = endpoints("one:1,two:1", Options{})
		first[all[0].where] = true
		all, _ = endpoints("one:1,two:1", Options{First: "10.0.0.3:1"})
		last["first "+all[0].label] = true
		all, _ = endpoints("two:1,one:1", Options{First: "one:1"})
		last["first "+all[0].label] = true
	}
	if len(first) != 6 || len(last) != 3 || !last["10.0.0.4:1"] || !last["first 10.0.0.3:1"] || !last["first one:1"] {
		t.Errorf("they begin with %v and end with %v", first, last)
	}
}
