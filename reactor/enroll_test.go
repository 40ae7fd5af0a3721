package reactor

import (
	"net"
	"testing"
)

// What is left of the addresses of a connection is that of the peer.
func TestTrimAddresses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err)
		}
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		trimAddresses(conn)
		if got, want := conn.RemoteAddr().String(), client.LocalAddr().String(); got != want {
			t.Errorf("the peer of %s is %s, want %s", address, got, want)
		}
		if local := conn.LocalAddr().(*net.TCPAddr); local.IP != nil {
			t.Errorf("the local address %s is kept", local)
		}
		for _, c := range []interface{ Close() error }{conn, client, listener} {
			_ = c.Close()
		}
	}
}
