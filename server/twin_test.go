package server

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
)

// sixOrSkip listens on a free port of the IPv6 loopback, or skips the test if there is none.
func sixOrSkip(t *testing.T) (l net.Listener, port int) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("there is no IPv6 here: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

// It warns of whoever listens on the other loopback address of its port, and not of itself.
func TestTwin(t *testing.T) {
	_, port := sixOrSkip(t)
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		d := startDaemon(t, func(cfg *Config) { cfg.Listen = []string{fmt.Sprintf("%s:%d", host, port)} })
		eventually(t, func() error {
			if n := len(d.log.containing("somebody else listens on the other loopback address", fmt.Sprintf(`"other":"[::1]:%d"`, port))); n != 1 {
				return fmt.Errorf("%d warnings, want 1", n)
			}
			return nil
		})
		d.stop()
	}

	l, port := sixOrSkip(t)
	_ = l.Close()
	both := startDaemon(t, func(cfg *Config) {
		cfg.Listen = []string{"127.0.0.1:" + strconv.Itoa(port), "[::1]:" + strconv.Itoa(port)}
	})
	one := startDaemon(t, nil)
	for name, d := range map[string]*daemon{"on both": both, "on one": one} {
		var entrances []*entrance
		for _, address := range d.server.now().listen {
			l, err := net.ResolveTCPAddr("tcp", address[len("tcp://"):])
			if err != nil {
				t.Fatal(err)
			}
			entrances = append(entrances, &entrance{listener: addressed{addr: l}})
		}
		d.server.warnOfTwins(context.Background(), entrances)
		if n := len(d.log.containing("somebody else listens")); n > 0 {
			t.Errorf("%s: %d warnings, and nobody else listens", name, n)
		}
	}
}

// addressed is a listener that only has an address.
type addressed struct {
	net.Listener
	addr net.Addr
}

func (a addressed) Addr() net.Addr { return a.addr }
