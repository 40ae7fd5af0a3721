package server

import (
	"context"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/rs/zerolog"

	"dreadlock/proto/prototest"
	"dreadlock/server/api"
	"dreadlock/server/noise"
)

// Wherever a connection is given up, it is counted out.
func TestAbandonedAreCountedOut(t *testing.T) {
	srv := &Server{cfg: DefaultConfig(), tally: newTally(1), budget: newBudget(1<<30, 1), warnings: noise.New(zerolog.Nop())}
	srv.cfg.MaxConnections = 4
	direct := &entrance{server: srv, way: &way{}}
	proxied := &entrance{server: srv, way: &way{proxies: prefixes{netip.MustParsePrefix("10.0.0.9/32")}}}
	var all []*arrival
	for _, c := range []struct {
		entrance *entrance
		from     string
		counted  standing
	}{
		{direct, "10.0.0.1:1", asClient},
		{direct, "10.0.0.1:2", asRefusal}, // too many of the address
		{direct, "10.0.0.2:1", asClient},
		{proxied, "10.0.0.9:1", asConnection},
		{direct, "127.0.0.1:1", asClient},
		{direct, "10.0.0.3:1", asRefusal}, // too many
		{proxied, "10.0.0.9:2", asRefusal},
	} {
		a := &arrival{identity: identity{address: address{netip.MustParseAddrPort(c.from), c.entrance}}}
		if err := a.enter(); err != nil || a.counted != c.counted {
			t.Errorf("%s: %v, counted as %d, want %d", c.from, err, a.counted, c.counted)
		}
		all = append(all, a)
	}
	// What is behind the proxy is one too many of its address, and one at the limit of all.
	for _, i := range []int{3, 6} {
		if err := all[i].introduce(netip.MustParseAddrPort("10.0.0.2:2")); err != nil || all[i].counted != asRefusal {
			t.Errorf("behind the proxy: %v, counted as %d", err, all[i].counted)
		}
	}
	if srv.connections.Load() != 3 || srv.refusals.Load() != 4 || len(srv.tally.count) != 2 {
		t.Errorf("%d connections, %d refusals, %d addresses", srv.connections.Load(), srv.refusals.Load(), len(srv.tally.count))
	}
	for _, i := range []int{1, 5, 0, 3, 4, 2, 6} {
		srv.abandoned(all[i], context.Canceled)
	}
	if srv.connections.Load() != 0 || srv.refusals.Load() != 0 || len(srv.tally.count) != 0 {
		t.Errorf("%d connections, %d refusals, %d addresses are left", srv.connections.Load(), srv.refusals.Load(), len(srv.tally.count))
	}
	got := srv.refused()
	if got[api.RefusedLost] != 7 || got[api.RefusedMaxConnections] != 2 || got[api.RefusedMaxPerAddress] != 2 {
		t.Errorf("refused: %v", got)
	}
}

// Beyond the refusals that may be open, clients are closed at once, and counted all the same.
func TestRefusalsAreBounded(t *testing.T) {
	srv := &Server{cfg: DefaultConfig(), tally: newTally(0), budget: newBudget(1<<30, 1), warnings: noise.New(zerolog.Nop())}
	srv.cfg.MaxConnections = 0
	e := &entrance{server: srv, way: &way{}}
	for i := range maxRefusals + 3 {
		a := &arrival{identity: identity{address: address{entrance: e}}}
		err := a.enter()
		if (err == nil) != (i < maxRefusals) {
			t.Errorf("refusal %d: %v", i+1, err)
		}
		if err != nil {
			srv.abandoned(a, err)
		}
	}
	if n := srv.refused()[api.RefusedMaxConnections]; n != maxRefusals+3 {
		t.Errorf("%d refused, want %d", n, maxRefusals+3)
	}
	if srv.connections.Load() != 0 || srv.refusals.Load() != maxRefusals {
		t.Errorf("%d connections, %d refusals", srv.connections.Load(), srv.refusals.Load())
	}
}

// A stop does not wait for a client that is still preparing, and does not blame it.
func TestStopWhilePreparing(t *testing.T) {
	d := startProxied(t, func(cfg *Config) {
		cfg.Listen = append(cfg.Listen, "tls://127.0.0.1:0")
		cfg.Certificates = loadCertificates(t, prototest.NewCA(t), nil)
	})
	d.dial()
	prototest.Dial(t, hostOf(d.listen()[1]))
	d.wantConnections(2)
	began := time.Now()
	d.stop()
	if took := time.Since(began); took > prepareTime/2 {
		t.Errorf("the stop took %s", took)
	}
	d.wantConnections(0)
	if lines := d.log.containing("connection dropped"); len(lines) > 0 {
		t.Errorf("it says %q", lines)
	}
}

// An idle connection is to take no more than 1,536 bytes. The allocator adds a header of 8 bytes, and its next size is 640.
func TestSessionSize(t *testing.T) {
	if size := unsafe.Sizeof(session{}); size > 568 {
		t.Errorf("a session has %d bytes, want at most 568", size)
	}
}

// What arrives is kept as long as its session, as its identity, and 64 bytes are a size of the allocator.
func TestArrivalSize(t *testing.T) {
	if size := unsafe.Sizeof(arrival{}); size > 64 {
		t.Errorf("an arrival has %d bytes, want at most 64", size)
	}
}
