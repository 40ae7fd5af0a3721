package netns

import (
	"net"
	"os"
	"testing"
	"time"
)

// TestRouter: datagrams arrive until their way is cut, and again when it is healed; the other way stays open, and the sender is
// told only by Reject.
func TestRouter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	r, err := NewRouter()
	if err != nil {
		t.Skip(err)
	}
	defer r.Close()
	var conns [2]*net.UDPConn
	var addresses [2]string
	for i := range conns {
		h, address, err := r.Join()
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		addresses[i] = address
		if err := h.Do(func() (err error) {
			conns[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address), Port: 6001})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	calls := byte(0)
	// arrives sends until a datagram arrives, or for a while if none should.
	arrives := func(from, to int, want bool) {
		t.Helper()
		calls++
		patience := 10 * time.Second
		if !want {
			patience = 200 * time.Millisecond
		}
		got := false
		for deadline := time.Now().Add(patience); !got && time.Now().Before(deadline); {
			_, _ = conns[from].WriteToUDP([]byte{calls}, conns[to].LocalAddr().(*net.UDPAddr)) // fails after a Reject
			_ = conns[to].SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			datagram := make([]byte, 1)
			_, _, err := conns[to].ReadFromUDP(datagram)
			got = err == nil && datagram[0] == calls // not one of an earlier call
		}
		if got != want {
			t.Errorf("from %s to %s: arrives %t, want %t", addresses[from], addresses[to], got, want)
		}
	}
	arrives(0, 1, true)
	arrives(1, 0, true)
	for _, how := range []string{Drop, Reject} {
		if err := r.Cut(addresses[0], addresses[1], how); err != nil {
			t.Fatal(err)
		}
		arrives(0, 1, false)
		arrives(1, 0, true)
		if err := r.Heal(addresses[0], addresses[1], how); err != nil {
			t.Fatal(err)
		}
		arrives(0, 1, true)
	}
}
