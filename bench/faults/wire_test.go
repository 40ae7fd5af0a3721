package faults

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"dreadlock/proto/prototest/netns"
)

// TestWire: a good wire and bad ones carry a stream unharmed; nothing passes one that is cut, until it is whole again.
func TestWire(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make hosts")
	}
	var hosts [2]*netns.Host
	for i := range hosts {
		h, err := netns.New()
		if err != nil {
			t.Skip(err)
		}
		defer h.Close()
		hosts[i] = h
	}
	w, err := newWire("wire0", hosts, [2]string{"10.77.0.1", "10.77.0.2"})
	if err != nil {
		t.Skip(err)
	}
	defer w.close()
	var ln net.Listener
	if err := hosts[0].Do(func() (err error) {
		ln, err = net.Listen("tcp", "10.77.0.1:"+port)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	conn, err := dialOn(t.Context(), hosts[1], "10.77.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo := func(text string, within time.Duration) error {
		conn.SetReadDeadline(time.Now().Add(within))
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if string(got) != text {
			t.Errorf("sent %q, got %q", text, got)
		}
		return nil
	}
	for _, now := range []weather{
		{}, {loss: 0.1}, {duplicate: 0.5}, {reorder: 0.5}, {delay: time.Millisecond, jitter: 5 * time.Millisecond},
	} {
		w.set(now)
		for range 20 {
			if err := echo("a line of text\n", patience); err != nil {
				t.Errorf("%+v: %v", now, err)
			}
		}
	}
	w.set(weather{cut: true})
	if err := echo("lost", 300*time.Millisecond); err == nil {
		t.Error("a wire that is cut carries a packet")
	}
	w.set(weather{})
	got := make([]byte, len("lost"))
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "lost" {
		t.Errorf("after the cut: %q, %v", got, err)
	}
}
