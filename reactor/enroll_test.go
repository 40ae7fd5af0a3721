package reactor

import "testing"

// gnet is given no addresses, and a connection knows that of its peer all the same, before a move and after it.
func TestTrimAddresses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		srv, err := setup{loops: 2, address: address}.start(t)
		if err != nil {
			t.Skip(err)
		}
		client := dial(t, srv.address)
		s := receive(t, srv.accepted, "the connection is not served")
		check := func() {
			if got, want := s.conn.RemoteAddr(), client.LocalAddr(); got.String() != want.String() {
				t.Errorf("the peer is %s, want %s", got, want)
			}
			for _, kept := range []string{s.conn.sock.RemoteAddr().String(), s.conn.sock.LocalAddr().String()} {
				if kept != ":0" {
					t.Errorf("gnet keeps the address %s", kept)
				}
			}
		}
		s.do(t, check)
		moved := make(chan int, 1)
		s.do(t, func() {
			s.moved = func(to int) { moved <- to }
			if !s.conn.TryMove(1 - s.handler.loop.index) {
				t.Error("the connection does not move")
			}
		})
		srv.handlers[receive(t, moved, "the connection has not moved")].do(t, check)
	}
}
