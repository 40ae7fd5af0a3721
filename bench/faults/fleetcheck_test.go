package faults

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// fleetScript is a history of a fleet that somebody has made up. Session n is at daemon n%2.
type fleetScript struct {
	script
	nodes [2]node
}

// grant adds a lock that was granted, and its token if it is not 0.
func (s *fleetScript) grant(session, sent, answered int, token string) *operation {
	n := len(s.session(session).operations)
	s.op(session, lock, 90, locked, sent, answered)
	if token != "" {
		s.op(session, fence, 0, token, answered, answered+1)
	}
	return &s.session(session).operations[n]
}

func (s *fleetScript) unlock(session, sent int) {
	s.op(session, unlock, 0, unlocked, sent, sent+1)
	s.session(session).alive = moment(sent)
}

// died ends the connection of a session, which has seen it alive before.
func (s *fleetScript) died(session, alive, ended int) {
	s.session(session).alive, s.session(session).ended, s.session(session).cause = moment(alive), moment(ended), io.EOF
}

// TestFleetCheck: what is right in a fleet is found without fault, and each kind of violation is found.
func TestFleetCheck(t *testing.T) {
	for _, tc := range []struct {
		name     string
		fallible bool
		story    func(s *fleetScript)
		want     string // a part of the violation; empty: there is none
	}{
		{"a connection ends in a fleet without faults", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.died(0, 5, 6)
		}, "for no reason"},
		{"granted after the holder last saw that it lives", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.died(0, 5, 9)
			s.grant(1, 3, 6, "")
			s.unlock(1, 10)
		}, ""},
		{"granted while the holder saw that it lives", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.died(0, 7, 9)
			s.grant(1, 3, 6, "")
			s.unlock(1, 10)
		}, "held it at the same time"},
		{"granted before the holder unlocks", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.unlock(0, 7)
			s.grant(1, 3, 6, "")
			s.unlock(1, 10)
		}, "held it at the same time"},
		{"granted while the daemon of the holder is stopped", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 4, to: 20}}
			s.grant(0, 1, 2, "")
			s.died(0, 21, 22)
			s.grant(1, 3, 6, "")
			s.unlock(1, 30)
		}, ""},
		{"granted before the daemon of the holder was stopped", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 7, to: 20}}
			s.grant(0, 1, 2, "")
			s.died(0, 21, 22)
			s.grant(1, 3, 6, "")
			s.unlock(1, 30)
		}, "held it at the same time"},
		{"asked after the daemon went on", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 4, to: 20}}
			s.grant(1, 3, 6, "")
			s.died(1, 40, 41)
			s.grant(0, 21, 22, "")
			s.died(0, 30, 31)
		}, "held it at the same time"},
		{"tokens that rise", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "f 5")
			s.unlock(0, 4)
			s.grant(1, 3, 6, "f 6")
			s.unlock(1, 10)
		}, ""},
		{"a token that falls from one holder to the next", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "f 5")
			s.unlock(0, 4)
			s.grant(1, 1, 6, "f 4")
			s.unlock(1, 10)
		}, "with the token 5 before 4"},
		{"a token that falls, and nobody knows who had it first", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "f 5")
			s.session(0).alive, s.session(0).ended, s.session(0).cause = 0, 5, io.EOF
			s.grant(1, 1, 6, "f 4")
			s.died(1, 0, 7)
		}, ""},
		{"a token that is smaller than one that was known", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 0, to: 100}}
			s.grant(1, 1, 2, "f 5")
			s.died(1, 3, 4)
			s.grant(0, 10, 12, "f 4")
			s.died(0, 12, 13)
		}, "asked after session 1 had read its token 5"},
		{"the same with a lease that was revoked", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 0, to: 100, revoked: true}}
			s.grant(1, 1, 2, "f 5")
			s.died(1, 3, 4)
			s.grant(0, 10, 12, "f 4")
			s.died(0, 12, 13)
		}, ""},
		{"a token that was given twice", true, func(s *fleetScript) {
			s.nodes[0].doubts = []*doubt{{from: 0, to: 100, revoked: true}}
			s.grant(1, 1, 2, "f 5")
			s.died(1, 3, 4)
			s.grant(0, 10, 12, "f 5")
			s.died(0, 12, 13)
		}, "had the same token 5"},
		{"a token that changes", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "f 5")
			s.op(0, fence, 0, "f 6", 4, 5)
		}, "was 5, and is 6"},
		{"a token that is none", false, func(s *fleetScript) { s.grant(0, 1, 2, "f 0") }, `answered "f 0"`},
		{"a token without the key", false, func(s *fleetScript) { s.op(0, fence, 0, "f 5", 1, 2) }, "does not hold"},
		{"no token without the key", false, func(s *fleetScript) { s.op(0, fence, 0, notLocked, 1, 2) }, ""},
		{"no token with the key", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.op(0, fence, 0, notOwner, 3, 4)
		}, "holds it"},
		{"refused, and nobody has it", false, func(s *fleetScript) { s.op(0, lock, 5, timedOut, 10, 16) }, ""},
		{"not locked, and somebody has it", false, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.op(1, unlock, 0, notLocked, 3, 4)
		}, "told that it is not locked"},
		{"a holder whose write is refused", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.died(0, 9, 10)
			s.session(0).refused = []refusal{{"key", 8}}
		}, "has refused a write"},
		{"somebody else whose write is refused", true, func(s *fleetScript) {
			s.grant(0, 1, 2, "")
			s.died(0, 7, 10)
			s.session(0).refused = []refusal{{"key", 8}}
		}, ""},
		{"overtaken at another daemon, too early to know", false, func(s *fleetScript) {
			s.overtake(0, 1)
			s.nodes[1].slack = 10
		}, ""},
		{"overtaken at another daemon", false, func(s *fleetScript) {
			s.overtake(0, 1)
			s.nodes[1].slack = 9
		}, "was overtaken"},
		{"overtaken at the same daemon", false, func(s *fleetScript) {
			s.overtake(0, 2)
			s.nodes[0].slack = noOrder
		}, "was overtaken"},
		{"overtaken at another daemon without an order", false, func(s *fleetScript) {
			s.overtake(0, 1)
			s.nodes[0].slack = noOrder
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &fleetScript{}
			tc.story(s)
			for i, session := range s.sessions {
				session.node = &s.nodes[i%2]
			}
			for i := range s.nodes {
				s.nodes[i].fallible = tc.fallible
			}
			got := strings.Join(check(&s.history).violations, "\n")
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("want a violation with %q, got %q", tc.want, got)
			}
		})
	}
}

// overtake has the second session ask when the first was known to wait for 10 ns, and have the key before it.
func (s *fleetScript) overtake(first, second int) {
	s.op(first, lock, 90, locked, 1, 40).queued = 3
	s.unlock(first, 41)
	s.op(second, lock, 90, locked, 13, 20)
	s.unlock(second, 21)
}

// TestDoubt: a doubt lasts until its end is told.
func TestDoubt(t *testing.T) {
	s := &node{}
	end := s.begin(false)
	if d := s.doubts[0]; d.to != never || d.revoked {
		t.Errorf("%+v", d)
	}
	end()
	if d := s.doubts[0]; d.to == never || d.to < d.from {
		t.Errorf("%+v", d)
	}
}

// TestResource: a resource refuses smaller tokens, and notes a token of two sessions.
func TestResource(t *testing.T) {
	r := &resource{keys: make(map[string]*written)}
	for i, w := range []struct {
		key     string
		token   uint64
		session int
		taken   bool
	}{{"a", 5, 1, true}, {"a", 5, 1, true}, {"a", 4, 2, false}, {"b", 4, 2, true}, {"a", 6, 2, true}, {"a", 5, 1, false}, {"a", 6, 3, true}} {
		if got := r.write(w.key, w.token, w.session); got != w.taken {
			t.Errorf("write %d: taken: %t", i, got)
		}
	}
	if r.writes != 7 || r.refused != 2 || len(r.twice) != 1 || r.twice[0] != "a: token 6" {
		t.Errorf("%+v", r)
	}
}

// TestLink: a link carries, keeps what is sent while it hangs, and ends connections that it refuses.
func TestLink(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // echoes
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
	l, err := newLink(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	echo := func(conn net.Conn, within time.Duration) error {
		conn.SetReadDeadline(time.Now().Add(within))
		_, err := io.ReadFull(conn, make([]byte, 1))
		return err
	}
	conn := dial()
	conn.Write([]byte("a"))
	if err := echo(conn, patience); err != nil {
		t.Fatal(err)
	}
	l.set(hangs)
	late := dial()
	conn.Write([]byte("b"))
	late.Write([]byte("c"))
	if echo(conn, 20*time.Millisecond) == nil || echo(late, 20*time.Millisecond) == nil {
		t.Error("a link that hangs carries")
	}
	l.set(carries)
	if err := echo(conn, patience); err != nil {
		t.Errorf("what was sent while it hung: %v", err)
	}
	if err := echo(late, patience); err != nil {
		t.Errorf("who has come while it hung: %v", err)
	}
	l.set(refuses)
	for _, conn := range []net.Conn{conn, dial()} {
		if err := echo(conn, patience); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("a link that refuses: %v", err)
		}
	}
	l.set(carries)
	again := dial()
	again.Write([]byte("d"))
	if err := echo(again, patience); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	l.reset()
	if err := echo(again, patience); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a connection that was reset: %v", err)
	}
}
